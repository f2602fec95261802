"""The HTTP server."""

from moreish.serve.http.connections import ACCEPT_BATCH, Connection, connection_factory
from moreish.serve.http.errors import (
    ERROR_RESPONSES,
    GUARD_ERROR_RESPONSES,
    ApiError,
    bad_request,
    handle_error,
    to_api_error,
)
from moreish.serve.http.guard import LOOPBACK_HOSTS, AccessRules, Guard
from moreish.serve.http.limits import Limits
from moreish.serve.http.metrics import Metrics
from moreish.serve.http.openapi import DocumentedApp
from moreish.serve.http.streams import (
    EVENT_STREAM_RESPONSE,
    EventStream,
    cancel_on_disconnect,
    with_error_event,
)

__all__ = [
    "ACCEPT_BATCH",
    "ERROR_RESPONSES",
    "EVENT_STREAM_RESPONSE",
    "GUARD_ERROR_RESPONSES",
    "LOOPBACK_HOSTS",
    "AccessRules",
    "ApiError",
    "Connection",
    "DocumentedApp",
    "EventStream",
    "Guard",
    "Limits",
    "Metrics",
    "bad_request",
    "cancel_on_disconnect",
    "connection_factory",
    "handle_error",
    "to_api_error",
    "with_error_event",
]
