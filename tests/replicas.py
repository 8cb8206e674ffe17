"""Clients that go on asking while servers are restarted behind a door, and what they must be answered."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from typing import Any

import smolvlm
from benchmarks.server_client import Client, Reply
from tests.serving import PICTURE, VIDEO, image_part, user, video_part

CLIENTS = 6
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"messages": user("Describe the picture.", image_part(PICTURE))},
    {"messages": user("What happens in the video?", video_part(VIDEO)), "stream": True},
    {"messages": user("Spell CAT."), "stream": True},
    {"messages": user("Go on.", image_part(PICTURE)), "max_tokens": 200, "temperature": 2.0, "seed": 3, "stream": True},
    {"messages": user("Go on."), "max_tokens": 200, "temperature": 2.0, "seed": 4},
)


def answers_of_the_library() -> list[str]:
    """To each question."""
    vlm = smolvlm.load()
    return [
        vlm.ask(
            messages=question["messages"], max_new_tokens=question.get("max_tokens", 1024), loop_guard=True,
            temperature=question.get("temperature", 0.0), seed=question.get("seed"),
        ).text
        for question in QUESTIONS
    ]  # fmt: skip


async def ask_all_the_while(port: int, work: Callable[[], object]) -> tuple[list[Reply], list[int]]:
    """Clients ask without a pause until work, in a thread, is done: their replies, and what each of them was asked."""
    replies: list[Reply] = []
    asked: list[int] = []
    numbers = itertools.count()
    working = asyncio.ensure_future(asyncio.to_thread(work))

    async def be_client() -> None:
        client = Client(port)
        while not working.done():
            number = next(numbers) % len(QUESTIONS)
            replies.append(await client.ask(json.dumps({"model": "nano", **QUESTIONS[number]}).encode()))
            asked.append(number)
        client.close()

    await asyncio.gather(*(be_client() for _ in range(CLIENTS)))
    await working
    return replies, asked


def check(replies: list[Reply], asked: list[int], answers: list[str]) -> None:
    assert set(asked) == set(range(len(QUESTIONS)))
    for reply, number in zip(replies, asked, strict=True):
        assert reply.text.strip() == answers[number].strip()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
