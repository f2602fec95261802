"""Error responses in the shape of OpenAI's API."""

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from moreish.errors import MoreishError, one_line
from moreish.serve.batching import DeadlineExceeded, GenerationFailed, QueueFull, ShuttingDown


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    """The parameter of the request that caused the error."""
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is invalid or exceeds a limit.",
        401: "The token is missing or wrong.",
        403: "The request comes from a page of another origin.",
        404: "The model, text or run does not exist.",
        405: "The path does not support this method.",
        408: "The request body did not arrive in time.",
        409: "The request conflicts with the current state; see the message.",
        413: "The body is too large.",
        415: "The body has the wrong content type.",
        421: "The Host header names another server.",
        429: "Too many requests are waiting; see Retry-After.",
        500: "An internal error occurred.",
        503: "The server is shutting down.",
        504: "The request exceeded its deadline.",
    }.items()
}
"""For the OpenAPI document."""

GUARD_ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: ERROR_RESPONSES[status] for status in (401, 403, 413, 415, 421, 500)
}
"""The errors of routes without parameters: those of `Guard`, and internal errors."""


class ApiError(Exception):
    """An error response; routes and everything below them may raise it."""

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
    """Return the error for an invalid parameter (400)."""
    return ApiError(400, message, param=param)


def to_api_error(error: Exception) -> ApiError:
    """Return the response for any exception; an unexpected one reveals nothing."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            headers = {"Retry-After": str(error.retry_after)}
            return ApiError(429, str(error), code="rate_limit_exceeded", headers=headers)
        case ShuttingDown():
            headers = {"Retry-After": "5"}
            return ApiError(503, "the server is shutting down", code="closing", headers=headers)
        case DeadlineExceeded():
            return ApiError(504, "the request exceeded its deadline", code="deadline_exceeded")
        case GenerationFailed():
            message = "the model failed; see the server's log"
            return ApiError(500, message, code="model_failed")
        case MoreishError():
            return ApiError(400, str(error))
        case RequestValidationError():
            return _validation_error(error)
        case HTTPException(status_code=400) if isinstance(error.__cause__, ValueError):
            # FastAPI's error: an integer of too many digits, or bytes that are not UTF-8.
            return ApiError(400, f"the body is not valid JSON: {one_line(error.__cause__)}")
        case HTTPException(status_code=400) if isinstance(error.__cause__, RecursionError):
            return ApiError(400, "the body is not valid JSON: it is nested too deeply")
        case HTTPException(status_code=status, detail=detail, headers=headers):
            phrase = HTTPStatus(status).phrase
            message = f"{status} {phrase}" if detail == phrase else str(detail)
            return ApiError(status, message, headers=dict(headers) if headers else None)
    return ApiError(500, "internal error; see the server's log")


def _validation_error(error: RequestValidationError) -> ApiError:
    """Name the parameter and everything that it may be."""
    errors = error.errors()
    # A union has an error for each of its types; one that is not about the type says more.
    first = next((e for e in errors if not e["type"].endswith("_type")), errors[0])
    kind, where = first["type"], [str(part) for part in first["loc"]]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx'].get('error', kind)}")
    if where == ["body"]:
        return ApiError(400, "the body must be a JSON object")
    # A location is ("body", "prompt", "list[int]", 3) and the like.
    param = where[1] if len(where) > 1 else where[0]
    if kind == "extra_forbidden":
        return bad_request(param, f"unknown parameter: {'.'.join(where[1:])[:100]}")
    same = [e for e in errors if e["loc"][1:2] == first["loc"][1:2]]
    reasons = dict.fromkeys(e["msg"] for e in (same if kind.endswith("_type") else [first]))
    message = " or ".join(reasons).replace(" or Input should be ", " or ")
    return bad_request(param, f"{param}: {message.removeprefix('Value error, ')}")
