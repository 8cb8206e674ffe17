"""Connections of uvicorn, with an end for each that goes nowhere: too many, no request in time, nobody who reads.

uvicorn gives a client all the time of the world to finish its headers and to take its answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from .failures import Failure, failure
from .settings import Limits

log = logging.getLogger(__name__)
ABORT = "smolvlm.abort"  # in the scope of a request: breaks its connection
TAKE_S = 30.0  # to take the last bytes of an answer
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class Connection(H11Protocol):
    """One connection. limits: set by `connection_class`."""

    limits: Limits

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = log
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(failure(503, "The server has no room for more connections.", None, "too_many_connections", 1))
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._header_timer is None and self._is_idle:
            self._expect_headers()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_timer()
            cast("dict[str, Any]", self.scope)[ABORT] = self.transport.abort

    def send_400_response(self, msg: str) -> None:
        """Of uvicorn: what came is not HTTP."""
        self._refuse(failure(400, msg, None, "invalid_http"))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(TAKE_S, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(TAKE_S, self.transport.abort)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_s, self._no_headers)

    def _no_headers(self) -> None:
        if self._is_idle and not self.transport.is_closing():
            self._refuse(failure(408, "The headers of the request came too slowly.", None, "headers_too_slow"))

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, why: Failure) -> None:
        """Answer without the application, if nothing is being answered, and hang up."""
        self._stop_timer()
        if self._is_idle:
            body = json.dumps(why.body).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
            lines = [f"{name}: {value}" for name, value in {**headers, **why.headers}.items()]
            head = "\r\n".join((f"HTTP/1.1 {why.status} {_PHRASES[why.status]}", *lines, "", ""))
            self.transport.write(head.encode() + body)
        self.transport.close()
        self.loop.call_later(TAKE_S, self.transport.abort)


def connection_class(limits: Limits) -> type[Connection]:
    """For uvicorn.Config(http=...)."""
    log.setLevel(logging.ERROR)  # garbage of strangers isn't worth a line of the log each time
    return type("Connection", (Connection,), {"limits": limits})
