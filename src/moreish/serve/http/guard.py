"""Access checks: who may send requests, and how large they may be.

The reasons are in docs/serving.md, under "Threat model".
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreish.serve.batching import ShuttingDown
from moreish.serve.http.errors import ApiError, to_api_error

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

SECURITY_HEADERS = {
    # The page's modules must all have the same version.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
}
"""Headers of every response: the page loads nothing from elsewhere and runs no text as a script."""


@dataclass(frozen=True, kw_only=True)
class AccessRules:
    """What `Guard` lets through."""

    hosts: frozenset[str]
    """Allowed names in the Host header, in lower case, without port or brackets."""
    token: str | None
    """Bearer token that everything but the page itself requires; None requires none."""
    body_bytes: int
    """Maximum size of a JSON body."""
    uploads: Mapping[str, int]
    """Paths whose body is a file, with the maximum size of each."""


class Guard:
    """ASGI middleware around the application that checks requests and adds security headers."""

    def __init__(
        self, app: ASGIApp, rules: AccessRules, on_response: Callable[[int], None]
    ) -> None:
        """
        Args:
            app: the application.
            rules: what to let through.
            on_response: is called with the status of every response.
        """
        self.app, self.rules, self.on_response = app, rules, on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.on_response(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] in (413, 507):  # the rest of the body is not read
                    headers["Connection"] = "close"
            await send(message)

        if (error := self._check(scope)) is not None:
            response = error.response()
            response.headers["Connection"] = "close"  # the body is not read
            await response(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # uvicorn stops and does not wait any longer
            if not started:
                response = to_api_error(ShuttingDown()).response()
                await response(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> ApiError | None:
        """Return why a request is rejected, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _host_name(host) not in self.rules.hosts:
            # DNS rebinding: a page of another site whose name resolves to this machine.
            return ApiError(421, f"this server is not {host[:100]!r}; see --allow-host")
        path = scope["path"]
        private = is_private(path)
        origin = headers.get("origin", "").lower()
        own_origins = ("", f"http://{host}".lower(), f"https://{host}".lower())
        # Browsers send both headers; other programs send neither.
        other_site = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if origin not in own_origins or (other_site and private):
            return ApiError(403, "requests from pages of other origins are not allowed")
        if self.rules.token is not None and private:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(token.strip().encode(), self.rules.token.encode())
            if scheme.lower() != "bearer" or not matches:
                challenge = {"WWW-Authenticate": "Bearer"}
                message = "send the server's token: Authorization: Bearer …"
                return ApiError(401, message, code="invalid_api_key", headers=challenge)
        length = headers.get("content-length", "0")
        if length != "0" or "transfer-encoding" in headers:
            upload = path in self.rules.uploads
            expected = "application/octet-stream" if upload else "application/json"
            # A form of another site cannot send these types.
            if headers.get("content-type", "").partition(";")[0].strip().lower() != expected:
                return ApiError(415, f"the content type of the body must be {expected}")
            maximum = self.rules.uploads.get(path, self.rules.body_bytes)
            if not length.isdecimal() or int(length) > maximum:
                return ApiError(413, f"the body must have at most {maximum:,} bytes")
        return None


def is_private(path: str) -> bool:
    """Whether a path is more than the page itself, so that it requires the token."""
    return path.startswith(("/v1/", "/api/", "/metrics", "/openapi"))


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port; empty if it is invalid."""
    if set(host) & set("@/?#\\"):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
