"""Who may ask: the server's own page and programs on this machine, or who knows the token.

The reasons are in docs/serving.md, under "Threat model".
"""

import asyncio
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreish.serve.batching import ShuttingDown
from moreish.serve.http.errors import ApiError, to_api_error

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

SECURITY_HEADERS = {
    # Modules of the page that are older than others would not fit.
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
"""Headers of every answer: nothing from elsewhere, and no text becomes a script."""


@dataclass(frozen=True, kw_only=True)
class AccessRules:
    """Whom the guard lets in."""

    hosts: frozenset[str]
    """Names in the Host header, without port."""
    token: str | None = None
    """Known to whoever may ask for more than the page itself."""
    body_bytes: int = 1_000_000
    """Of a body that is JSON; it is not read further."""
    uploads: Mapping[str, int] = field(default_factory=dict)
    """Paths whose body is a file, and no JSON, and how many bytes of it are read."""

    @classmethod
    def of(cls, hosts: Iterable[str], token: str | None, **more: Any) -> "AccessRules":
        """`hosts` as people write them; an empty token is none."""
        names = frozenset(host.lower().strip("[]") for host in hosts)
        return cls(hosts=names, token=token or None, **more)


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, rules: AccessRules, answered: Callable[[int], None]) -> None:
        """`answered` is told the status of every answer."""
        self.app, self.rules, self.answered = app, rules, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self.answered(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] == 413:
                    headers["Connection"] = "close"
            await send(message)

        if (error := self._refusal(scope)) is not None:
            # The body is left unread, so that the connection is of no more use.
            response = error.response()
            response.headers["Connection"] = "close"
            await response(scope, receive, guarded)
            return
        try:
            await self.app(scope, receive, guarded)
        except asyncio.CancelledError:  # the server stops, and this took longer than it waits
            if not begun:
                await to_api_error(ShuttingDown()).response()(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self.rules.hosts:
            # A page from elsewhere whose name was made to point here must not get in (DNS
            # rebinding); 421 is what HTTP has for this.
            return ApiError(421, f"this server is not {host[:100]!r}; see --allow-host")
        path = scope["path"]
        private = is_private(path)
        origin = headers.get("origin", "").lower()
        own = ("", f"http://{host}".lower(), f"https://{host}".lower())
        # Browsers tell both; other programs tell neither.
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if origin not in own or (elsewhere and private):
            return ApiError(403, "only this server's own page may ask")
        if self.rules.token is not None and private:
            given = headers.get("authorization", "")
            kind, _, token = given.partition(" ")
            right = hmac.compare_digest(token.strip().encode(), self.rules.token.encode())
            if kind.lower() != "bearer" or not right:
                challenge = {"WWW-Authenticate": "Bearer"}
                message = "give the server's token: Authorization: Bearer …"
                return ApiError(401, message, code="invalid_api_key", headers=challenge)
        length = headers.get("content-length", "0")
        if length != "0" or "transfer-encoding" in headers:
            upload = path in self.rules.uploads
            wanted = "application/octet-stream" if upload else "application/json"
            # Forms of other pages cannot send these types.
            if headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
                return ApiError(415, f"the body has to be {wanted}")
            most = self.rules.uploads.get(path, self.rules.body_bytes)
            if not length.isdecimal() or int(length) > most:
                return ApiError(413, f"the body may have {most:,} bytes at the most")
        return None


def is_private(path: str) -> bool:
    """Whether it is more than the page itself: where there is a token, it has to be known."""
    return path.startswith(("/v1/", "/api/", "/metrics", "/openapi"))


def _name(host: str) -> str:
    """Without port; empty where it is none."""
    if set(host) & set("@/?#\\"):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
