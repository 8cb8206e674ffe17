"""A client of server_load.py: chat completions over one connection of plain sockets, whole or streamed, timed.

It is small so that it takes little of the machine that it measures; what people use is the openai package.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

PATH = "/v1/chat/completions"
LINE_BYTES = 2**20


@dataclass(frozen=True)
class Reply:
    """text, reason: what was answered. tokens: of the answer. first_s: to the first text of a stream, else None."""

    text: str
    reason: str
    tokens: int
    first_s: float | None
    total_s: float


class Client:
    """One connection, kept open from question to question. Not for several tasks at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes) -> Reply:
        """Raises OSError, EOFError or ValueError for anything but a complete answer with status 200."""
        started = time.perf_counter()
        try:
            head, parts = await self._post(body)
            if head.get("content-type", "").startswith("text/event-stream"):
                return await _read_stream(parts, started)
            whole = json.loads(b"".join([part async for part in parts]))
        except BaseException:
            self.close()
            raise
        choice = whole["choices"][0]
        tokens = whole["usage"]["completion_tokens"]
        return Reply(choice["message"]["content"], choice["finish_reason"], tokens, None, time.perf_counter() - started)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _post(self, body: bytes) -> tuple[dict[str, str], AsyncIterator[bytes]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=LINE_BYTES)
        assert self._reader is not None, "both are opened together"
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self._writer.drain()
        return await self._read_head(self._reader)

    async def _read_head(self, reader: asyncio.StreamReader) -> tuple[dict[str, str], AsyncIterator[bytes]]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        parts = self._read_parts(reader, headers)
        if first.split()[1] != "200":
            raise ValueError(f"{first}: {b''.join([part async for part in parts])[:300]!r}")
        return headers, parts

    async def _read_parts(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            yield await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self.close()


async def _read_stream(parts: AsyncIterator[bytes], started: float) -> Reply:
    """The events of a stream, which must end as streams of completions do."""
    texts: list[str] = []
    reason, tokens, first_s = "", 0, None
    async for event in _events(parts):
        for choice in event["choices"]:
            text = choice["delta"].get("content")
            if text:
                first_s = first_s or time.perf_counter() - started
                texts.append(text)
            reason = choice.get("finish_reason") or reason
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    if not reason:
        raise EOFError("the stream ended before the answer did")
    return Reply("".join(texts), reason, tokens, first_s, time.perf_counter() - started)


async def _events(parts: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    left = b""
    async for part in parts:
        *complete, left = (left + part).split(b"\n\n")
        for one in complete:
            text = one.removeprefix(b"data: ")
            if text and text != b"[DONE]":
                event = json.loads(text)
                if "error" in event:
                    raise ValueError(f"the stream broke off: {event['error']}")
                yield event
