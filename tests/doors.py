"""A server with keys and small limits, and raw sockets to knock at it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from smolvlm.server.run import Server
from smolvlm.server.settings import Limits
from smolvlm.vlm import VLM
from tests.serving import serving

KEY, OTHER_KEY = "a-key-of-a-client", "a-key-of-another"
LIMITS: dict[str, Any] = {
    "workers": 1, "body_bytes": 20_000, "bodies_bytes": 50_000, "chunk_s": 1.0, "body_s": 3.0, "header_s": 1.0,
    "header_bytes": 4096, "connections": 12,
}  # fmt: skip


@contextmanager
def guarded(vlm: VLM) -> Iterator[Server]:
    """A server with two keys, one page of another origin and one name allowed, and small limits."""
    access = {"api_keys": (KEY, OTHER_KEY), "cors_origins": ("https://app.example",), "hosts": ("vlm.example",)}
    with serving(vlm, limits=Limits(**LIMITS), **access) as server:
        yield server


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def talk(url: str, *pieces: bytes, pause_s: float = 0.0, read_s: float = 20.0) -> bytes:
    """Send pieces as they are, then read until the server hangs up or is silent for a while."""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=read_s) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except OSError:  # it hung up before the end, having said why
            pass
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except OSError:
        pass
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def error_of(answer: bytes) -> dict[str, Any]:
    """The error of an answer, which must be one in the form of the service."""
    error: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def head(length: int | None = None, *more: str, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {KEY}", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
