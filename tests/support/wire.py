"""Bytes for a server that no client would send: everything that arrives before the schema does."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

BODIES: dict[str, Any] = {
    "/v1/completions": {"model": "words", "prompt": "an", "max_tokens": 2},
    "/v1/chat/completions": {"model": "words", "messages": []},
    "/api/surprisal": {"model": "words", "text": "anna"},
    "/api/next": {"model": "words", "text": "an"},
    "/api/attention": {"model": "story", "text": "The", "layer": 0},
    "/api/list": {"model": "words", "n": 2},
    "/api/novelty": {"model": "words", "texts": ["anna"]},
    "/api/write": {"model": "words", "prompt": "an", "max_tokens": 2},
    "/api/doctor": {"text": "no text"},
    "/api/plan": {"text": "no text"},
    "/api/training": {"name": "new", "text": "no text"},
    "/api/training/resume": {"name": "no run"},
    "/api/training/stop": {},
}
"""Valid bodies of the routes that take one, for names that exist and that do not."""

PATHS = [
    "/", "/index.html", "/healthz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/words",
    "/api/models", "/api/embedding?model=story", "/api/pairs?model=words",
    "/api/history?model=words", "/api/texts", "/api/training", "/api/training/history",
    "/api/training/events", "/api/training/name?name=a", "/api/texts?name=a.txt",
]  # fmt: skip

PATH_PARTS = [
    "%00", "%", "%f", "%ff", "%c3%28", "%ed%a0%80", "\x00", "\xff", "..", "../..", "%2e%2e/", "//",
    "%2F", "\\", "?", "??", "#", ";", "*", "~", "~root", "a" * 300, "/" * 300, "é", "😀", " ",
    "http://localhost/", "[", "]", "{model}", "|", "%0d%0aX: y", "%u0000", "&", "=", "name=%00",
    "name=%ff", "name=" + "x" * 3000, "model=%00", "model=", "model=words%00", "model=a&model=b",
    "name", "name=.", "name=..%2f", "model=\xff", "+",
]  # fmt: skip

METHODS = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "PRI",
    "M-SEARCH", "A" * 300, "G\x00T", "G T", "", "É",
]  # fmt: skip

NUMBERS = [
    "0", "-1", "1", "5", "+5", " 5", "5 ", "0x5", "1_0", "1e3", "5.0", "٣", "²", "9" * 20, "9" * 21,
    "9" * 5000, "", "nan", "5, 5", "5,6", "00005", "18446744073709551616",
]  # fmt: skip

ODD = [
    "", " ", "\x00", "\xff", "\x80\x81", "a" * 5000, "é", "😀", ",", ";", "=", '"', '"\\', "\t",
    "\x0b", "\x7f", "%00", "../x", "*", "*/*;q=x", "[::1", "[", "]", "::", ":", ":x", "x:99999999",
    "localhost:x", "localhost:", "localhost\x00", "user@localhost", "LOCALHOST", "[::1]:80",
    "\u2100", "null", "http://[", "http://localhost", "bytes=", "bytes=0-", "bytes=-0", "bytes=9-1",
    "bytes=0-0,2-2," * 50, "bytes=x-y", "bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000,
]  # fmt: skip

HEADERS: dict[str, list[str]] = {
    "Host": ["localhost", "127.0.0.1"],
    "Content-Type": [
        "application/json", "application/octet-stream", "application/json; charset=utf-16",
        "application/json; charset=" + "x" * 99, "multipart/form-data", "text/plain",
        "multipart/form-data; boundary=" + "-" * 99, "application/x-www-form-urlencoded",
        "application/json; a*0*=x''%ff", "application/json;;;=", "APPLICATION/JSON",
        "application/vnd.api+json", "application/",
    ],
    "Content-Length": NUMBERS,
    "Transfer-Encoding": ["chunked", "gzip", "gzip, chunked", "identity", "Chunked", "chunked, x"],
    "Authorization": ["Bearer", "Bearer x", "Bearer \xff", "Basic eDp5", "Digest a=", "Bearer é"],
    "Origin": ["null", "http://localhost", "http://example.org", "http://localhost:x", "file://"],
    "Sec-Fetch-Site": ["cross-site", "same-site", "same-origin", "none"],
    "Expect": ["100-continue", "200-ok", "100-Continue"],
    "Upgrade": ["websocket", "h2c", "TLS/1.0", "HTTP/2.0"],
    "Connection": ["close", "keep-alive", "upgrade", "Upgrade, HTTP2-Settings", "close, upgrade"],
    "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="],
    "Sec-WebSocket-Version": ["13"],
    "Accept": ["text/html", "text/event-stream", "application/json"],
    "Accept-Encoding": ["gzip", "br", "identity;q=0, *;q=0"],
    "Range": ["bytes=0-5", "bytes=5-", "bytes=-5", "items=0-5"],
    "If-Range": ["x", 'W/"x"'],
    "If-None-Match": ["*", 'W/"x"', '"x"'],
    "If-Modified-Since": ["Sun, 06 Nov 1994 08:49:37 GMT", "yesterday"],
    "Cookie": ["a=b", "=", "a=\x00"],
    "X-Forwarded-For": ["1.2.3.4"],
    "Forwarded": ["for=1.2.3.4;proto=x"],
    "Content-Encoding": ["gzip", "br"],
}  # fmt: skip

SCALARS = [
    "null", "true", "1", "1.5", "-0", "1e999", "-1e999", "NaN", "Infinity", "9" * 400, "9" * 5000,
    "1e-400", '""', '"x"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"' + "x" * 9000 + '"',
    "[]", "{}", "[[]]", "[{}]", '[""]', "[null]", '{"": null}', '{"a": {"a": {"a": {"a": {}}}}}',
    '"\\uFFFF"', '"../x"', '"words\\u0000"', '"~nosuchuser/x"', '"a" "b"', "[1,]", "{,}", "'x'",
    "", " ", "\ufeff{}", "//", "0x10", "01", "1.", ".5", "tru", '"\x00"', '"\x1f"', '"\\x"', '"',
]  # fmt: skip

DEPTHS = [5, 60, 100, 200, 250, 300, 330, 500, 900, 990, 1000, 1100, 5000, 100_000]


def odd_json(random: Random) -> str:
    """Return JSON of any kind, or nearly JSON."""
    match random.randrange(5):
        case 0:
            depth = random.choice(DEPTHS) + random.randrange(3)
            opening, closing = random.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
            inner = random.choice(SCALARS)
            return opening * depth + inner + closing * random.choice([depth, depth, 0, depth - 1])
        case 1:
            return f"[{','.join(random.choice(SCALARS) for _ in range(random.randrange(9)))}]"
        case _:
            return random.choice(SCALARS)


def odd_body(path: str, random: Random) -> bytes:
    """Return a body for a path: any JSON, or a valid body of the path with odd values."""
    valid = BODIES.get(path.partition("?")[0], {"text": "x"})
    match random.randrange(8):
        case 0:
            text = json.dumps(valid)
        case 1 | 2:
            text = odd_json(random)
        case 3:
            return random.randbytes(random.randrange(60))
        case _:
            members = {json.dumps(key): json.dumps(value) for key, value in valid.items()}
            key = random.choice([*members, *members, odd_json(random), '"extra"'])
            members[key] = odd_json(random)
            pairs = [f"{key}:{value}" for key, value in members.items()]
            random.shuffle(pairs)
            text = f"{{{','.join(pairs)}}}"
    encoding = random.choice(["utf-8"] * 9 + ["utf-16", "utf-32", "utf-8-sig", "utf-16-be"])
    return text.encode(encoding, "surrogatepass")


def odd_request(random: Random) -> bytes:
    """Return the bytes of a request that is odd in a few ways."""
    is_post = random.random() < 0.6
    path = random.choice(list(BODIES) if is_post else PATHS)
    if is_post and random.random() < 0.1:
        path = "/api/texts?name=odd.txt"
    method = "POST" if is_post else random.choice(["GET", "GET", "HEAD", "POST"])
    body = odd_body(path, random) if is_post else b""
    upload = path.startswith("/api/texts")
    headers = [
        ("Host", "localhost"),
        ("Content-Type", "application/octet-stream" if upload else "application/json"),
        ("Content-Length", str(len(body))),
    ]
    ways = random.choice([0, 0, 1, 1, 1, 2, 3]) if is_post else random.choice([1, 1, 2, 3])
    for _ in range(ways):
        match random.randrange(5):
            case 0:
                method = random.choice(METHODS)
            case 1:
                at = random.choice([0, random.randrange(len(path) + 1), len(path)])
                path = path[:at] + random.choice(PATH_PARTS) + path[at:]
            case _:
                name = random.choice(list(HEADERS))
                value = random.choice(HEADERS[name] if random.random() < 0.6 else ODD)
                if random.random() < 0.5:
                    headers = [header for header in headers if header[0] != name]
                headers.append((name, value))
    if ("Transfer-Encoding", "chunked") in headers:
        headers = [header for header in headers if header[0] != "Content-Length"]
        size = random.choice([f"{len(body):x}"] * 5 + ["-1", "f" * 30, "", "x", "5;a=" + "b" * 99])
        body = size.encode() + b"\r\n" + body + random.choice([b"\r\n0\r\n\r\n", b"\r\n", b""])
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    request = "\r\n".join(lines).encode(random.choice(["utf-8", "latin-1"]), "replace") + body
    return mutated(request, random) if random.random() < 0.25 else request


def mutated(request: bytes, random: Random) -> bytes:
    """Change a few bytes anywhere."""
    changed = bytearray(request)
    for _ in range(random.choice([1, 1, 2, 5])):
        at = random.randrange(len(changed) + 1)
        length = random.choice([1, 1, 2, 20])
        match random.randrange(4):
            case 0:
                changed[at : at + length] = random.randbytes(length)
            case 1:
                changed[at:at] = random.randbytes(length)
            case 2:
                del changed[at : at + length]
            case _:
                changed[at:at] = changed[at : at + length] * random.choice([1, 2, 50])
    return bytes(changed)


async def send(host: str, port: int, request: bytes, seconds: float) -> str:
    """Send bytes; return the status of the response, "nothing" or "timeout"."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(request)
            with suppress(ConnectionError):
                await writer.drain()
            line = await reader.readline()
            while line.startswith(b"HTTP/1.1 100") or line == b"\r\n":  # continue
                line = await reader.readline()
            if not line:
                return "nothing"
            return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else repr(line)
    except TimeoutError:
        return "timeout"
    except (ConnectionError, asyncio.IncompleteReadError):
        return "nothing"
    finally:
        writer.transport.abort()


async def fuzz(
    host: str, port: int, tries: int, seed: int, *, clients: int = 32, seconds: float = 2.0
) -> tuple[Counter[str], list[bytes]]:
    """Send odd requests; return the statuses, and the requests that met an internal error.

    Args:
        host, port: the server.
        tries: number of requests.
        seed: decides all of them.
        clients: number of requests at a time.
        seconds: how long to wait for a response: an incomplete request has none.
    """
    random, statuses, failed = Random(seed), Counter[str](), []

    async def client() -> None:
        while statuses.total() + busy.total() < tries:
            busy["now"] += 1
            request = odd_request(random)
            status = await send(host, port, request, seconds)
            busy["now"] -= 1
            statuses[status] += 1
            if status in ("500", "501", "502"):
                failed.append(request)

    busy: Counter[str] = Counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses, failed
