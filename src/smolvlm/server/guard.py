"""Who may come in and with what, before any route sees it: host, origin, key, size and speed of the body, time.

A plain ASGI wrapper around the finished application. Bodies are read here to their end, so that a route never waits
for a slow client. Connections that never become a request are connections.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .connections import ABORT, connection_class
from .failures import Failure, RequestError, as_response, describe, request_id
from .settings import LOOPBACK_NAMES, Limits, Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 2.0  # a refused body is read on for so long, so that clients that send first and read then see the refusal
LAST_WORDS_S = 2.0
RETRY_S = 1
KEEP_ALIVE_S = 5
_PER_HEADER = len(": \r\n")
_OPEN = re.compile(r"/|/health|/ready|/[A-Za-z0-9_-]+\.(?:html|css|js|svg|ico|png|webmanifest)")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def protect(app: ASGIApp, settings: Settings, on_refusal: Callable[[int], None] | None = None) -> ASGIApp:
    """The finished application, safe to expose as far as the settings say. on_refusal: told the status of each
    request that didn't get to it."""
    guarded: ASGIApp = Guard(app, settings, on_refusal)
    if not settings.cors_origins:
        return guarded
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        guarded,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("X-Request-Id", "Retry-After"),
    )


def server_options(settings: Settings) -> dict[str, Any]:
    """Keywords of uvicorn.Config: limits of connections and headers, and nothing that isn't HTTP/1.1."""
    return {
        "http": connection_class(settings.limits),
        "ws": "none",
        "h11_max_incomplete_event_size": settings.limits.header_bytes,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "proxy_headers": False,
    }


class Guard:
    """The wrapper. bytes_held: of bodies, now."""

    def __init__(self, app: ASGIApp, settings: Settings, on_refusal: Callable[[int], None] | None = None) -> None:
        self._app = app
        self._settings = settings
        self._limits: Limits = settings.limits
        self._keys = [_digest(key) for key in settings.api_keys]
        self._on_refusal = on_refusal or (lambda status: None)
        self.bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _Reply(scope, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        named = request_id.set(reply.name)
        body = _Body(scope, receive, self._limits)
        try:
            check_size(scope["headers"], self._limits)
            check_host(body.headers, self._settings)
            check_origin(scope["method"], body.headers, self._settings)
            check_key(scope["method"], scope["path"], body.headers, self._keys)
            await body.read(self)
        except RequestError as error:
            self._on_refusal(error.status)
            await body.linger()
            await reply.fail(describe(error), close=not body.is_whole)
        else:
            if not body.is_left:
                await self._run(scope, body, reply)
        finally:
            self.bytes_held -= body.held
            request_id.reset(named)

    async def _run(self, scope: Scope, body: _Body, reply: _Reply) -> None:
        """Let the application answer, within the time of a request."""
        try:
            async with asyncio.timeout(self._limits.request_s) as time_left:
                await self._app(scope, body.replay, reply.send)
        except TimeoutError as error:
            if not time_left.expired():
                await reply.fail(describe(error))
                return
            self._on_refusal(504)
            await reply.fail(describe(_took_too_long(self._limits.request_s)))
        except Exception as error:  # most are answered, and logged, in the application
            if not reply.is_ended:
                await reply.fail(describe(error))


class _Body:
    """A request's body on its way in. held: bytes of it in memory. is_whole: all of it was read. is_left: by its
    client, before its end."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits) -> None:
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.is_whole = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        self.is_left = False
        self.held = 0
        self._content = bytearray()
        self._receive = receive
        self._limits = limits
        self._is_replayed = self.is_whole

    async def read(self, guard: Guard) -> None:
        """Raises RequestError for one that is too large, too slow, or compressed."""
        if self.is_whole:
            return
        self._check_headers()
        end = time.monotonic() + self._limits.body_s
        while not (self.is_whole or self.is_left):
            message = await self._next(min(end - time.monotonic(), self._limits.chunk_s))
            chunk = message.get("body", b"")
            self.held += len(chunk)
            guard.bytes_held += len(chunk)
            if self.held > self._limits.body_bytes:
                raise self._too_large()
            if guard.bytes_held > self._limits.bodies_bytes:
                raise RequestError(
                    "The server holds as many large requests as it can: try again later.", status=429, retry_s=RETRY_S,
                    code="rate_limit_exceeded",
                )  # fmt: skip
            self._content += chunk

    async def replay(self) -> Message:
        """For the application: the body in one piece, then whatever comes from the client."""
        if self._is_replayed:
            return await self._receive()
        self._is_replayed = True
        content, self._content = bytes(self._content), bytearray()
        return {"type": "http.request", "body": content, "more_body": False}

    async def linger(self) -> None:
        """Read on and forget, for a moment: many clients look for an answer only when all is sent."""
        self._content = bytearray()
        end = time.monotonic() + LINGER_S
        waits = "expect" in self.headers
        try:
            while not (waits or self.is_whole or self.is_left):
                await self._next(end - time.monotonic())
        except RequestError:
            return

    async def _next(self, seconds: float) -> Message:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                message = await self._receive()
        except TimeoutError:
            raise RequestError("The body of the request came too slowly.", status=408, code="body_too_slow") from None
        self.is_left = message["type"] == "http.disconnect"
        self.is_whole = not self.is_left and not message.get("more_body", False)
        return message

    def _check_headers(self) -> None:
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(
                "Compressed bodies are not read: send it without Content-Encoding.", status=415,
                code="unsupported_media_type",
            )  # fmt: skip
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        return RequestError(
            f"The body is larger than the limit of {self._limits.body_bytes:,} bytes.",
            status=413,
            code="body_too_large",
        )


@dataclass
class _Reply:
    """What goes out: with the headers of every answer, and an end even when the application has none."""

    scope: Scope
    out: Send
    name: str = field(default_factory=lambda: f"req-{token_hex(12)}")
    is_begun: bool = False
    is_ended: bool = False
    is_stream: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_begun = True
            message = {**message, "headers": self._with_own(message.get("headers", ()))}
        await self.out(message)
        self.is_ended = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def fail(self, failure: Failure, *, close: bool = False) -> None:
        """Tell a failure. In a stream of events it is the last one; any other answer that has begun breaks off."""
        if self.is_ended:
            return
        if not self.is_begun:
            response = as_response(failure)
            if close:
                response.headers["Connection"] = "close"
            await response(self.scope, _no_more, self.send)
            return
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                if self.is_stream:
                    last = b"data: " + json.dumps(failure.body).encode() + b"\n\n"
                    await self.send({"type": "http.response.body", "body": last, "more_body": False})
        except TimeoutError:  # the client doesn't read
            pass
        if not self.is_ended:
            self.scope.get(ABORT, lambda: None)()

    def _with_own(self, headers: Any) -> list[tuple[bytes, bytes]]:
        given = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        self.is_stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in given
        )
        names = {name for name, _ in given}
        own = {**HEADERS, "X-Request-Id": self.name, "Cache-Control": "no-store"}
        more = [(name.lower().encode(), value.encode()) for name, value in own.items()]
        return given + [one for one in more if one[0] not in names]


def check_size(headers: Iterable[tuple[bytes, bytes]], limits: Limits) -> None:
    """Raise RequestError for more headers than allowed: uvicorn's own limit is for those that come in pieces."""
    if sum(len(name) + len(value) + _PER_HEADER for name, value in headers) > limits.header_bytes:
        raise RequestError(
            f"The headers are larger than the limit of {limits.header_bytes:,} bytes.", status=431,
            code="headers_too_large",
        )  # fmt: skip


def check_host(headers: Mapping[str, str], settings: Settings) -> None:
    """Raise RequestError for a Host that isn't ours: a page elsewhere may have pointed its own name at this machine."""
    if "host" not in headers or (not settings.loopback and not settings.hosts):
        return
    host = host_of(headers["host"])
    if host in (*LOOPBACK_NAMES, settings.host.lower(), *(name.lower() for name in settings.hosts)):
        return
    if not _is_loopback(host):
        raise RequestError(
            f"This server doesn't answer to the name {host[:100]!r}. Whoever runs it can allow it: --allowed-host.",
            status=403, code="host_refused",
        )  # fmt: skip


def check_origin(method: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Raise RequestError when a page of another origin wants something done, or of ours under a name that may be
    another's: a page can point its own name at this machine, but has no key."""
    origin = headers.get("origin")
    if origin is None or method in _SAFE_METHODS or {"*", origin} & set(settings.cors_origins):
        return
    netloc = _netloc(origin)
    host, hosts = host_of(netloc), [name.lower() for name in settings.hosts]
    is_ours = settings.loopback or bool(settings.api_keys) or _is_address(host) or host == socket.gethostname().lower()
    if netloc and (host in hosts or (is_ours and netloc == headers.get("host", "").lower())):
        return
    raise RequestError(
        f"Pages of {origin[:100]!r} may not use this server. Whoever runs it can allow it: --cors-origin.",
        status=403, code="origin_refused",
    )  # fmt: skip


def check_key(method: str, path: str, headers: Mapping[str, str], keys: list[bytes]) -> None:
    """Raise RequestError without one of the keys. Every key is compared, each in the same time whatever was sent."""
    if not keys or (method in ("GET", "HEAD") and _OPEN.fullmatch(path)):
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    digest = _digest(given.strip())
    fits = [hmac.compare_digest(digest, key) for key in keys]
    if scheme.lower() == "bearer" and any(fits):
        return
    if not given:
        raise RequestError(
            "You didn't provide an API key. Send it in the header Authorization: Bearer YOUR_KEY.", status=401,
            code="invalid_api_key",
        )  # fmt: skip
    raise RequestError("Incorrect API key provided.", status=401, code="invalid_api_key")


def host_of(header: str) -> str:
    """The name in a Host header, without its port and brackets, in small letters."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _took_too_long(seconds: float) -> RequestError:
    return RequestError(
        f"The request took longer than this server's limit of {seconds:g} s.", status=504, code="request_timeout"
    )


async def _no_more() -> Message:
    return {"type": "http.disconnect"}
