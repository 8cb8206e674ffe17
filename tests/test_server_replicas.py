"""Several server processes behind one door: they are restarted while requests run, and none of these is lost.

The door is a few lines of Python here, in which nothing but its rule for refusals counts; in the cluster tier it is
nginx and Caddy with the examples' configurations. Replicas under Ray Serve are test_ray_serve.py's.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.server_client import Reply
from tests.commands import REPOSITORY, process
from tests.replicas import answers_of_the_library, ask_all_the_while, check, free_ports
from tests.serving import (
    WAIT_S,
    Stream,
    call,
    metric,
    until,
    user,
    wait_until_ready,
)

DOORS = REPOSITORY / "examples" / "doors"
LONG = {
    "messages": user("Go on."), "max_tokens": 3000, "structured_outputs": {"regex": "[a-z]{2500}"}, "loop_guard": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> list[str]:
    return answers_of_the_library()


class Replica:
    """A `smolvlm serve` of its own."""

    def __init__(self, port: int, *options: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = process("serve", "--port", port, "--workers", "1", "--cache-bytes", 2**28, "--quiet", *options)

    def leave(self) -> None:
        """Tell it to end while it answers, and wait for that."""
        until(lambda: metric(self.url, "smolvlm_requests_running") > 0)
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(WAIT_S) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Door:
    """Asks the replicas in turn. One that refuses, or breaks off before it answers, is passed over for the next."""

    def __init__(self, ports: list[int]) -> None:
        self._turns = itertools.cycle(ports)
        self._tries = 2 * len(ports)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        request = head[:-2] + b"Connection: close\r\n\r\n" + await reader.readexactly(length)
        for port in itertools.islice(self._turns, self._tries):
            try:
                answer, replica = await asyncio.open_connection("127.0.0.1", port)
                replica.write(request)
                chunk = await answer.readuntil(b"\r\n")
            except (OSError, asyncio.IncompleteReadError):
                continue
            while chunk and b" 503 " not in chunk[:13]:
                writer.write(chunk)
                chunk = await answer.read(2**16)
            replica.close()
            if not chunk:
                break
        writer.close()


def restart(number: int, ports: list[int], running: list[Replica], *options: str) -> None:
    running[number].leave()
    running[number] = Replica(ports[number], *options)
    wait_until_ready(running[number].url)


@contextmanager
def replicas(ports: list[int], *options: str) -> Iterator[list[Replica]]:
    running = [Replica(port, *options) for port in ports]
    try:
        for one in running:
            wait_until_ready(one.url)
        yield running
    finally:
        for one in running:
            one.kill()


def test_no_request_is_lost_while_a_replica_is_restarted(answers: list[str]) -> None:
    async def run(ports: list[int], running: list[Replica]) -> tuple[list[Reply], list[int]]:
        async with await asyncio.start_server(Door(ports).pass_on, "127.0.0.1", 0) as door:
            return await ask_all_the_while(door.sockets[0].getsockname()[1], lambda: restart(0, ports, running))

    ports = free_ports(2)
    with replicas(ports) as running:
        replies, asked = asyncio.run(run(ports, running))
    check(replies, asked, answers)


# ---- doors that people use ----


@contextmanager
def door(name: str, folder: Path, ports: list[int]) -> Iterator[int]:
    """nginx or Caddy with the example's configuration, for other ports."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} isn't installed")
    (own,) = free_ports(1)
    file = {"nginx": "nginx.conf", "caddy": "Caddyfile"}[name]
    text = (DOORS / file).read_text()
    for old, new in zip((8000, 8001, 8002), (own, *ports), strict=True):
        assert f"127.0.0.1:{old}" in text
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    if name == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        as_root = "" if os.geteuid() else "user root; "  # else its workers are nobody, who may not write here
        text = text.replace("http {", f"{as_root}http {{ {paths}")
    (folder / file).write_text(text)
    commands = {
        "nginx": ["-p", folder, "-c", folder / file, "-e", "stderr", "-g", f"daemon off; pid {folder}/pid;"],
        "caddy": ["run", "--config", folder / file, "--adapter", "caddyfile"],
    }
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    running = subprocess.Popen([program, *commands[name]], env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{own}")
        yield own
    finally:
        running.terminate()
        running.wait(WAIT_S)


@pytest.mark.cluster
@pytest.mark.parametrize("name, options", [("nginx", ()), ("caddy", ("--leave-s", "3"))])
def test_no_request_is_lost_behind_a_door_that_people_use(
    name: str, options: tuple[str, ...], answers: list[str], tmp_path: Path
) -> None:
    def restart_all(ports: list[int], running: list[Replica]) -> None:
        for number in range(len(ports)):
            restart(number, ports, running, *options)

    ports = free_ports(2)
    with replicas(ports, *options) as running, door(name, tmp_path, ports) as at:
        replies, asked = asyncio.run(ask_all_the_while(at, lambda: restart_all(ports, running)))
        assert call(f"http://127.0.0.1:{at}", "/metrics").status == 404
    check(replies, asked, answers)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_a_door_passes_streams_on_as_they_come_and_leaves_large_bodies_to_the_server(name: str, tmp_path: Path) -> None:
    ports = free_ports(2)
    with replicas(ports) as running, door(name, tmp_path, ports) as at:
        url = f"http://127.0.0.1:{at}"
        for one in running:  # the door asks either
            assert call(one.url, "/v1/models").status == 200
        stream = Stream(url, LONG)
        assert sum(metric(one.url, "smolvlm_requests_running") for one in running) == 1, "its first event came before"
        stream.leave()
        until(lambda: sum(metric(one.url, "smolvlm_requests_running") for one in running) == 0)
        assert call(url, "/v1/chat/completions", b" " * 64_000_001).error["code"] == "body_too_large"
