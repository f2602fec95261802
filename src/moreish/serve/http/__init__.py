"""The HTTP layer: connections, access checks, errors, streams, limits, metrics and OpenAPI."""

from moreish.serve.http.body import RequestBody
from moreish.serve.http.connections import ACCEPT_BATCH, Connection, affordable_connections
from moreish.serve.http.errors import (
    ERROR_RESPONSES,
    GUARD_ERROR_RESPONSES,
    ApiError,
    ErrorBody,
    bad_request,
    to_api_error,
)
from moreish.serve.http.guard import LOOPBACK_HOSTS, AccessRules, Guard
from moreish.serve.http.limits import Limits
from moreish.serve.http.metrics import Metrics
from moreish.serve.http.openapi import DocumentedApp
from moreish.serve.http.streams import EVENT_STREAM_RESPONSE, EventStream, cancel_on_disconnect
