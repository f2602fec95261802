"""The application: routes, error handlers, access checks, startup and shutdown."""

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
from moreish.serve import metrics_routes
from moreish.serve.batching import EngineError
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import AccessRules, ApiError, DocumentedApp, Guard, to_api_error
from moreish.serve.jobs import TrainingManager, training_router
from moreish.serve.native import native_router
from moreish.serve.openai import openai_router
from moreish.serve.registry import Registry

PAGE = Path(__file__).parent / "page"


def create_app(
    registry: Registry,
    rules: AccessRules,
    executor: BackgroundExecutor,
    manager: TrainingManager | None,
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        registry: the served models.
        rules: which requests to let through.
        executor: runs the computations of the native API.
        manager: runs training; None serves no training routes.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if manager is not None:
            manager.runs.start()
        yield
        executor.stop()
        await anyio.to_thread.run_sync(registry.stop, 0)  # all connections are closed

    app = DocumentedApp(
        needs_token=rules.token is not None,
        title="Moreish",
        version=version("moreish"),
        summary="Language models of your own texts, trained and served on this machine.",
        lifespan=lifespan,
        docs_url=None,  # it would load scripts from other sites
        redoc_url=None,
        max_body_size=registry.limits.body_bytes,
    )

    async def respond_to_error(request: Request, error: Exception) -> JSONResponse:
        found = to_api_error(error)
        if isinstance(error, MoreishError):
            found.detail.message = registry.without_paths(found.detail.message)
        response = found.response()
        if found.status == 405:
            response.headers["Allow"] = ", ".join(_allowed_methods(app, request.scope))
        return response

    async def respond_to_nobody(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    for kind in (
        ApiError,
        EngineError,
        MoreishError,
        RequestValidationError,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(kind, respond_to_error)
    app.add_exception_handler(ClientDisconnect, respond_to_nobody)
    app.include_router(metrics_routes.router(registry))
    app.include_router(openai_router(registry))
    app.include_router(native_router(registry, executor, training=manager is not None))
    if manager is not None:
        app.include_router(training_router(manager))
    for path in PAGE.iterdir():
        app.router.routes.append(_page_route(path))
    return Guard(app, rules, registry.metrics.count_response)


def _allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods of a path; FastAPI has a separate route for each of them."""
    scopes = {method: {**scope, "method": method} for method in ("GET", "HEAD", "POST")}
    return [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in app.routes)
    ]


def _page_route(path: Path) -> Route:
    """Return the route of one of the page's files; no other file can be requested."""
    # Some systems map .js to another type, with which browsers run no module.
    media_type = "text/javascript" if path.suffix == ".js" else None

    async def send_file(request: Request) -> FileResponse:
        return FileResponse(path, media_type=media_type)

    return Route("/" if path.name == "index.html" else f"/{path.name}", send_file)
