"""Errors in the shape that OpenAI's clients read."""

from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from moreish.errors import MoreishError
from moreish.serve.batching import DeadlineExceeded, GenerationFailed, QueueFull, ShuttingDown


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    """The part of the request that it is about."""
    code: str | None = None


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is not understood, or asks for too much.",
        401: "The token is missing or wrong.",
        403: "The page that asks is not this server's.",
        404: "There is no such thing.",
        405: "Not with this method.",
        408: "The body did not come in time.",
        409: "Not now: see the message.",
        413: "The body is too large.",
        415: "The body is no JSON.",
        421: "The Host header names another server.",
        429: "Too many requests are waiting; see Retry-After.",
        500: "An error that should not be.",
        503: "The server is stopping.",
        504: "It took too long.",
    }.items()
}
"""For the OpenAPI document."""

GUARD_ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: ERROR_RESPONSES[status] for status in (401, 403, 413, 415, 421, 500)
}
"""Of routes that take anything, which the guard answers nevertheless."""


class ApiError(Exception):
    """An answer that is no success; raised anywhere below a route."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.detail = ErrorDetail(message=message, type=kind, param=param, code=code)

    def body(self) -> dict[str, Any]:
        return ErrorBody(error=self.detail).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def bad_request(param: str, message: str) -> ApiError:
    """The client's mistake, in one part of the request."""
    return ApiError(400, message, param=param)


def to_api_error(error: Exception) -> ApiError:
    """What the client is told of an error of ours. Nothing of an unforeseen one."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            after = {"Retry-After": str(error.seconds)}
            return ApiError(429, str(error), code="rate_limit_exceeded", headers=after)
        case ShuttingDown():
            after = {"Retry-After": "5"}
            return ApiError(503, "the server is stopping", code="closing", headers=after)
        case DeadlineExceeded():
            return ApiError(504, "it took too long, and was given up", code="deadline_exceeded")
        case GenerationFailed():
            return ApiError(500, "the model could not go on", code="model_failed")
        case MoreishError():
            return ApiError(400, str(error))
        case RequestValidationError():
            return _validation_error(error)
        case HTTPException():
            plain = HTTPStatus(error.status_code).phrase
            told = error.detail if error.detail != plain else f"{error.status_code} {plain}"
            headers = dict(error.headers) if error.headers else None
            return ApiError(error.status_code, str(told), headers=headers)
    return ApiError(500, "an error that should not be; the server's log says more")


def _validation_error(error: RequestValidationError) -> ApiError:
    errors = error.errors()
    # Of a union there is an error for each of its types: one that is about more tells more.
    first = next((e for e in errors if not e["type"].endswith("_type")), errors[0])
    kind, where = first["type"], [str(part) for part in first["loc"]]
    if kind == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx'].get('error', 'not understood')}")
    # ("body", "prompt", "list[int]", 3) and the like; names of types are no part of a path.
    param = where[1] if len(where) > 1 else where[0]
    if kind == "extra_forbidden":
        return bad_request(param, f"unknown parameter: {'.'.join(where[1:])[:100]}")
    here = [e for e in errors if e["loc"][1:2] == first["loc"][1:2]]
    reasons = dict.fromkeys(e["msg"] for e in (here if kind.endswith("_type") else [first]))
    told = " or ".join(reasons).replace(" or Input should be ", " or ")
    return bad_request(param, f"{param}: {told.removeprefix('Value error, ')}")


async def handle_error(request: Request, error: Exception) -> JSONResponse:
    """The handler of all of these."""
    return to_api_error(error).response()
