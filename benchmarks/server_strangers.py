"""Clients of every kind for server_faults.py: healthy ones, and those that vanish, lie, stall and attack.

Each kind does one request and says (status of the answer, what is wrong with it, or None). Not a benchmark by itself.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from server_bombs import ADDRESSES, BODIES, PICTURE, PICTURES, VIDEO, VIDEOS, data_uri, slow_film

KEY = "a-key-for-the-faults"
CHAT = "/v1/chat/completions"
WAIT_S = 300
GONE = 0  # the status of a request whose connection ended without an answer
QUESTIONS = ("What is this?", "What colours are there?", "How many things are there?", "Say hello!")
NEW_TOKENS = 12


@dataclass
class World:
    """Where the server is, what healthy requests must be answered with, and what was seen."""

    port: int
    victim_port: int
    expected: dict[tuple[str, str], str]
    seen: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, status: int, complaint: str | None) -> None:
        with self.lock:
            self.seen[kind][status] += 1
            if complaint:
                self.wrong.append(f"{kind}: {complaint}")


# ---- talking -------------------------------------------------------------------------------------------------------


def connect(world: World, timeout_s: float = WAIT_S) -> socket.socket:
    return socket.create_connection(("127.0.0.1", world.port), timeout=timeout_s)


def head(length: int | None, path: str = CHAT, *more: str, method: str = "POST", key: str | None = KEY) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *more]
    lines += [] if key is None else [f"Authorization: Bearer {key}"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except OSError:
        pass
    return bytes(received)


def send(world: World, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, bytes]:
    """(status, body) of what comes back; (GONE, b"") for nothing."""
    with connect(world) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except OSError:
            pass
        answer = read_all(connection)
    top, _, body = answer.partition(b"\r\n\r\n")
    if not top.startswith(b"HTTP/1.1 "):
        return GONE, b""
    if b"transfer-encoding: chunked" in top.lower():
        body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n(?=[0-9a-f]+\r\n)", body, re.DOTALL))
    length = re.search(rb"content-length: (\d+)", top.lower())  # garbage may hold two requests: the first counts
    return int(top.split(b" ", 2)[1]), body if length is None else body[: int(length[1])]


def post(world: World, body: object, path: str = CHAT, *more: str, key: str | None = KEY) -> tuple[int, bytes]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(world, head(len(raw), path, *more, key=key), raw)


def chat(question: str, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": NEW_TOKENS, "temperature": 0, **more}


def image(uri: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri}}


def video(uri: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": uri}}


MEDIA = {"text": (), "image": (image(data_uri(PICTURE)),), "video": (video(data_uri(VIDEO, "video/mp4")),)}


# ---- kinds of requests ---------------------------------------------------------------------------------------------

Kind = Callable[[World, random.Random], tuple[int, str | None]]
KINDS: dict[str, tuple[Kind, int]] = {}  # name -> (what it does, its share)


def kind(name: str, share: int = 1) -> Callable[[Kind], Kind]:
    def add(function: Kind) -> Kind:
        KINDS[name] = (function, share)
        return function

    return add


def judged(answer: tuple[int, bytes], *allowed: int) -> tuple[int, str | None]:
    """A refusal must have one of these statuses, and the service's form."""
    status, body = answer
    if status not in allowed:
        return status, f"status {status} instead of {allowed}: {body[:200]!r}"
    if status == GONE or status == 200:
        return status, None
    try:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
    except (ValueError, KeyError, TypeError, AssertionError):
        return status, f"not in the form of the service: {body[:200]!r}"
    leaks = [word for word in ("Traceback", "site-packages", "/src/", KEY, os.getcwd()) if word in body.decode()]
    return status, f"leaks {leaks}: {body[:200]!r}" if leaks else None


def healthy(world: World, question: str, medium: str, streamed: bool) -> tuple[int, str | None]:
    status, body = post(world, chat(question, *MEDIA[medium], stream=streamed))
    if status != 200:
        return status, f"a healthy request got {status}: {body[:200]!r}"
    if streamed:
        events = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
        pieces = [json.loads(event)["choices"] for event in events if event != "[DONE]"]
        text = "".join(choices[0]["delta"].get("content") or "" for choices in pieces if choices)
    else:
        text = json.loads(body)["choices"][0]["message"]["content"]
    expected = world.expected[question, medium]
    return status, None if text == expected else f"a healthy request got {text!r} instead of {expected!r}"


for medium_name, healthy_share in (("text", 28), ("image", 36), ("video", 20)):
    for is_streamed in (False, True):

        def ask(world: World, chance: random.Random, medium: str = medium_name, streamed: bool = is_streamed) -> Any:
            return healthy(world, chance.choice(QUESTIONS), medium, streamed)

        kind(f"healthy {medium_name}{', streamed' if is_streamed else ''}", healthy_share)(ask)


@kind("vanishes in its headers", 4)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    with connect(world) as connection:
        connection.sendall(head(100)[: chance.randrange(1, 60)])
    return GONE, None


@kind("vanishes in its body", 6)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    raw = json.dumps(chat("What?", *MEDIA["video"])).encode()
    with connect(world) as connection:
        connection.sendall(head(len(raw)) + raw[: chance.randrange(1, len(raw))])
    return GONE, None


@kind("vanishes while it is worked on", 12)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    raw = json.dumps(chat("Tell me all.", *MEDIA[chance.choice(list(MEDIA))], max_tokens=400)).encode()
    with connect(world) as connection:
        connection.sendall(head(len(raw)) + raw)
        time.sleep(chance.choice((0, 0.01, 0.1, 0.5)))
    return GONE, None


@kind("vanishes in its stream", 12)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    raw = json.dumps(chat("Tell me all.", *MEDIA["image"], max_tokens=400, stream=True)).encode()
    with connect(world) as connection:
        connection.sendall(head(len(raw)) + raw)
        connection.recv(chance.randrange(1, 2000))
        if chance.random() < 0.5:  # a reset instead of a goodbye
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return GONE, None


NOISE = (
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"\n" * 50, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM",
    b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /x y HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\n: x\r\n",
)  # fmt: skip


@kind("sends garbage", 10)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    raw = chance.choice((*NOISE, chance.randbytes(chance.randrange(1, 5000))))
    return judged(send(world, raw + b"\r\n\r\n"), 400, 401, 408, GONE)  # some of it is HTTP, but has no key


@kind("breaks off its upload", 8)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    raw = json.dumps(chat("What?", *MEDIA["image"])).encode()
    with connect(world) as connection:
        connection.sendall(head(len(raw)) + raw[: len(raw) // 2])
        connection.shutdown(socket.SHUT_WR)
        return judged((GONE if not read_all(connection) else 200, b""), GONE)


@kind("stalls in its body", 3)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(send(world, head(1000) + b'{"messages"'), 408)


@kind("drips its body", 3)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(send(world, head(100), *[b" "] * 40, pause_s=0.2), 408)


@kind("drips its headers", 3)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(send(world, *[head(1)[place : place + 1] for place in range(25)], pause_s=0.15), 408)


@kind("too large a body", 4)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    if chance.random() < 0.5:
        return judged(send(world, head(9_000_000), *[b" " * 10**6] * 9), 413)
    chunk = b"f4240\r\n" + b" " * 10**6 + b"\r\n"
    return judged(send(world, head(None, CHAT, "Transfer-Encoding: chunked"), *[chunk] * 10), 413)


@kind("a packed body", 3)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, BODIES["zip bomb"](), CHAT, "Content-Encoding: gzip"), 415)


@kind("bad JSON", 24)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    name = chance.choice(list(BODIES))
    return judged(post(world, BODIES[name]()), 400, 413)


def hostile_values() -> list[Any]:
    return [
        None,
        True,
        -1,
        0,
        2**63,
        1.5,
        1e308,
        "",
        "x",
        "x" * 5000,
        [],
        [[]],
        {},
        {"a": 1},
        [None],
        "\u0000",
        "💥" * 99,
    ]


FIELDS = (
    "messages", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream", "logprobs",
    "top_logprobs", "model",
    "response_format", "stream_options", "fps", "max_frames", "max_image_tokens", "structured_outputs",
    "tools", "top_k",
    "unknown_field",
)  # fmt: skip
TYPES = ("image_url", "video_url", "text", "image", "video", "input_audio", 3, None)
PARTS = ("image_url", "video_url", "text", "url", "frames", "base64", "detail", "fps", "file_id")


@kind("wrong types", 30)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    body = {**chat("What?"), "max_tokens": 3}
    body[chance.choice(FIELDS)] = chance.choice(hostile_values())
    return judged(post(world, body), 200, 400, 404, 413)


@kind("wrong parts", 30)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    values = hostile_values()
    part = {name: chance.choice(values) for name in chance.sample(PARTS, 3)}
    return judged(post(world, chat("What?", {"type": chance.choice(TYPES), **part})), 200, 400, 413)


@kind("picture bombs", 40)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    content = PICTURES[chance.choice(list(PICTURES))]()
    return judged(post(world, chat("What?", image(data_uri(content)))), 200, 400, 413, 422)


@kind("video bombs", 30)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    content = VIDEOS[chance.choice(list(VIDEOS))]()
    return judged(post(world, chat("What?", video(data_uri(content, "video/mp4")))), 200, 400, 413, 422)


@kind("a film that takes for ever", 1)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, chat("What?", video(data_uri(slow_film(), "video/mp4")))), 422, 400)


@kind("damaged files", 40)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    picture = chance.random() < 0.5
    content = bytearray(PICTURE if picture else VIDEO)
    for _ in range(chance.choice((1, 5, 50, 500))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    part = image(data_uri(bytes(content))) if picture else video(data_uri(bytes(content), "video/mp4"))
    return judged(post(world, chat("What?", part)), 200, 400, 413, 422)


@kind("too many pictures", 6)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, chat("What?", *MEDIA["image"] * 33)), 400)


@kind("too long a text", 6)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, chat("word " * chance.choice((5_000, 50_000, 300_000)))), 400, 413)


def deep_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


RULES: list[dict[str, Any]] = [
    {"structured_outputs": {"regex": "(a{1,1000}){1,1000}"}}, {"structured_outputs": {"regex": "(((((a*)*)*)*)*)*b"}},
    {"structured_outputs": {"regex": "("}}, {"structured_outputs": {"regex": "a" * 70_000}},
    {"structured_outputs": {"choice": []}}, {"structured_outputs": {"choice": ["x" * 1000] * 100}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "file:///etc/passwd"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "http://127.0.0.1/x"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": deep_schema(20)}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": deep_schema(200)}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": list(range(20_000))}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(1000)}}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}},
]  # fmt: skip


@kind("hostile schemas", 12)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, {**chat("What?"), "max_tokens": 5, **chance.choice(RULES)}), 200, 400)


@kind("hostile addresses", 80)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    url = chance.choice(ADDRESSES).replace("{port}", str(world.victim_port))
    part = chance.choice((image, video))(url)
    return judged(post(world, chat("What?", part)), 400, 422)


@kind("no key, or a wrong one", 10)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    return judged(post(world, chat("What?"), key=chance.choice((None, "wrong", KEY[:-1], KEY + "x"))), 401)


@kind("another host or origin", 8)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    host = head(2).replace(b"Host: localhost", b"Host: evil.example")
    return judged(send(world, chance.choice((host, head(2, CHAT, "Origin: https://evil.example"))) + b"{}"), 403)


ROUTES = ("/v1/nothing", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/../settings.py", "//", CHAT)


@kind("no such route", 8)
def _(world: World, chance: random.Random) -> tuple[int, str | None]:
    method = chance.choice(("GET", "DELETE", "PUT"))
    return judged(send(world, head(None, chance.choice(ROUTES), method=method)), 404, 405)
