"""Server-sent events: how streamed answers are written, and what ends a stream that fails. Knows no routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from .failures import describe

DONE = b"data: [DONE]\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies shall pass every event on at once


def encode(value: object) -> bytes:
    """JSON as clients of OpenAI's service get it: UTF-8, no spaces. A lone surrogate becomes "?"."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def event(value: Mapping[str, object], name: str | None = None) -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encode(value) + b"\n\n"


class JSON(JSONResponse):
    """A whole answer."""

    def render(self, content: object) -> bytes:
        return encode(content)


class EventStream(StreamingResponse):
    """A stream of events. What the iterator raises becomes the last of them: the status is sent already."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        """close: called when the stream has ended, or was left by the client, maybe before its first event."""
        super().__init__(_with_failure(events), headers=HEADERS)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _with_failure(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for one in events:
            yield one
    except Exception as error:
        yield event(describe(error).body)
