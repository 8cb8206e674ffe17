"""A real server on a loopback port, and the official client that asks it; for the tests of the service and its page."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from openai import DefaultHttpxClient, OpenAI
from PIL import Image

import smolvlm
from smolvlm.server.run import Server
from smolvlm.server.settings import Limits, Settings
from smolvlm.vlm import VLM

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"
PICTURE, VIDEO = DEMO / "picture.png", DEMO / "video.mp4"
WAIT_S = 120


@contextmanager
def serving(vlm: VLM, **settings: Any) -> Iterator[Server]:
    """A server in a thread, ready to answer. settings: of Settings, port 0 and one media worker by default."""
    server = Server(vlm, Settings(**{"port": 0, "limits": Limits(workers=1), "grace_s": 5.0, **settings}))
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    try:
        wait_until_ready(server.url)
        yield server
    finally:
        server.drain()
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the server ends"


def wait_until_ready(url: str) -> None:
    until(lambda: call(url, "/ready").status == 200)


def until(holds: Any) -> None:
    """Wait until a condition holds; connections that are refused are waited out, too."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("it didn't come about in time")


def client(server: Server, **options: Any) -> OpenAI:
    """The official client, without its own retries."""
    options = {"api_key": "none", "max_retries": 0, "timeout": WAIT_S, **options}
    return OpenAI(base_url=f"{server.url}/v1", http_client=DefaultHttpxClient(trust_env=False), **options)


@dataclass(frozen=True)
class Reply:
    """What a server says to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[Any]:
        """The data of a stream; its last may be the text "[DONE]"."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


def call(url: str, path: str, body: object = None, method: str | None = None, **headers: str) -> Reply:
    """One request as a script sends it. body: None for GET, bytes as they are, else JSON."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=WAIT_S)
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if raw is None else "POST"), path, raw, headers)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class Stream:
    """A streamed answer whose client may leave. Its first event is there."""

    def __init__(self, url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)
        self._connection.request("POST", path, json.dumps({**body, "stream": True}))
        self._response = self._connection.getresponse()
        assert self._response.status == 200 and self._response.readline().startswith((b"data: ", b"event: "))

    def rest(self) -> bytes:
        return self._response.read()

    def leave(self) -> None:
        self._response.close()
        self._connection.close()


def metric(url: str, name: str, **labels: str) -> float:
    """A number of /metrics."""
    given = ",".join(f'{key}="{value}"' for key, value in labels.items())
    line = rf"^{name}{re.escape('{' + given + '}') if given else ''} (\S+)$"
    found = re.search(line, call(url, "/metrics").body.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def data_uri(source: Path | Image.Image) -> str:
    """A picture or a video as pages send it."""
    if isinstance(source, Path):
        kind, content = ("video/mp4" if source.suffix == ".mp4" else "image/png"), source.read_bytes()
    else:
        kind, buffer = "image/png", BytesIO()
        source.save(buffer, "PNG")
        content = buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def user(question: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of one turn, its pictures ahead."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def image_part(source: Path | Image.Image, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(source), **more}}


def video_part(source: Path) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": data_uri(source)}}
