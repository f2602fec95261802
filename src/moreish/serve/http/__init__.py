"""The HTTP server."""

from moreish.serve.http.connections import ACCEPTED, Connection, protocol
from moreish.serve.http.errors import ERRORS, GUARDED, ApiError, answer_error, as_api_error, refused
from moreish.serve.http.guard import LOCAL, Guard, Rules
from moreish.serve.http.limits import Limits
from moreish.serve.http.metrics import Measured
from moreish.serve.http.openapi import Described
from moreish.serve.http.streams import EVENTS, EventStream, unless_gone, with_errors

__all__ = [
    "ACCEPTED",
    "ERRORS",
    "EVENTS",
    "GUARDED",
    "LOCAL",
    "ApiError",
    "Connection",
    "Described",
    "EventStream",
    "Guard",
    "Limits",
    "Measured",
    "Rules",
    "answer_error",
    "as_api_error",
    "protocol",
    "refused",
    "unless_gone",
    "with_errors",
]
