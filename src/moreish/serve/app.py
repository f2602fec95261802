"""The whole service: routes, errors, guard, and what is started and stopped with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from moreish.errors import MoreishError
from moreish.serve import metrics_routes as monitoring
from moreish.serve.batching import DeadlineExceeded, GenerationFailed, QueueFull, ShuttingDown
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import (
    AccessRules,
    ApiError,
    DocumentedApp,
    Guard,
    handle_error,
    to_api_error,
)
from moreish.serve.jobs import TrainingManager, training_router
from moreish.serve.native import native_router
from moreish.serve.openai import openai_router
from moreish.serve.registry import Registry

PAGE = Path(__file__).parent / "page"


def create_app(
    registry: Registry,
    rules: AccessRules,
    side: BackgroundExecutor,
    trainings: TrainingManager | None,
) -> ASGIApp:
    """What a web server runs; without `trainings` nobody can train."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        side.stop()
        await anyio.to_thread.run_sync(registry.stop, 0)  # nobody listens any more

    app = DocumentedApp(
        token=rules.token is not None,
        title="Moreish",
        version=version("moreish"),
        summary="Language models of your own texts, trained and served on this machine.",
        lifespan=life,
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        max_body_size=registry.limits.body_bytes,
    )

    async def moreish_error(request: Request, error: Exception) -> JSONResponse:
        found = to_api_error(error)
        message = registry.without_paths(found.detail.message)
        return ApiError(found.status, message, param=found.detail.param).response()

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        response = to_api_error(error).response()
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_methods(app, request.scope))
        return response

    for kind in (
        ApiError,
        QueueFull,
        ShuttingDown,
        DeadlineExceeded,
        GenerationFailed,
        RequestValidationError,
    ):
        app.add_exception_handler(kind, handle_error)
    app.add_exception_handler(HTTPException, http_error)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(MoreishError, moreish_error)
    app.add_exception_handler(Exception, handle_error)
    app.include_router(monitoring.router(registry))
    app.include_router(openai_router(registry))
    app.include_router(native_router(registry, side, training=trainings is not None))
    if trainings is not None:
        app.include_router(training_router(trainings))
    for path in PAGE.iterdir():
        app.router.routes.append(_page_route(path))
    return Guard(app, rules, registry.measured.answered)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """All that a path takes: each of its methods is a route of its own, which knows no other."""
    asked = {method: {**scope, "method": method} for method in ("GET", "HEAD", "POST")}
    return [
        method
        for method, scope in asked.items()
        if any(route.matches(scope)[0] is Match.FULL for route in app.routes)
    ]


def _page_route(path: Path) -> Route:
    """Of one of the page's files: there is no other, whatever is asked for."""
    # Some systems name other types, and browsers run no module that has one.
    kind = "text/javascript" if path.suffix == ".js" else None

    async def answer(request: Request) -> FileResponse:
        return FileResponse(path, media_type=kind)

    return Route("/" if path.name == "index.html" else f"/{path.name}", answer)
