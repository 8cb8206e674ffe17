"""Does a server stand clients that vanish, lie, stall and attack, and answer the others as if there were none?

    python benchmarks/server_faults.py                       1,000 requests, a quarter of them healthy
    python benchmarks/server_faults.py --requests 100 --clients 4

A real server process with the bundled model; kinds of requests in a shuffled order from several clients at a time. A
healthy one must be answered with the library's own words, every other one refused with a status of its kind, in the
service's form, without a trace. Then media workers are killed while they decode. Prints a table, then one JSON line;
exits 1 when anything went otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from server_bombs import PICTURE, VIDEO, data_uri, slow_film
from server_strangers import (
    GONE,
    KEY,
    KINDS,
    NEW_TOKENS,
    QUESTIONS,
    WAIT_S,
    World,
    chat,
    head,
    healthy,
    judged,
    send,
    video,
)  # fmt: skip

import smolvlm

OPTIONS = [
    *("--port", "0", "--api-key", KEY, "--allow-url", "--fetch-s", "2", "--workers", "3", "--decode-s", "8"),
    *("--chunk-s", "1.5", "--body-s", "4", "--header-s", "1.5", "--body-bytes", "8000000", "--queue", "64"),
    *("--connections", "128", "--video-frames", "4500", "--request-s", "240"),
]


@dataclass(frozen=True)
class Process:
    """One on this machine, read from /proc."""

    number: int

    @property
    def is_running(self) -> bool:
        return Path(f"/proc/{self.number}/stat").is_file()

    @property
    def command(self) -> str:
        return Path(f"/proc/{self.number}/cmdline").read_text()

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.number}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.number}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def children(self) -> list[Process]:
        found = " ".join(file.read_text() for file in Path(f"/proc/{self.number}/task").glob("*/children"))
        return [Process(int(number)) for number in found.split()]


@contextmanager
def server_process(options: list[str]) -> Iterator[tuple[Process, int, list[str]]]:
    """(process, port, lines of its log) of a server that is ready."""
    command = [sys.executable, "-m", "smolvlm", "serve", *OPTIONS, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        lines: list[str] = []
        found = threading.Event()

        def follow() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.rstrip())
                found.set()

        threading.Thread(target=follow, daemon=True).start()
        try:
            assert found.wait(WAIT_S), "the server says where it is"
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", lines[0])[0])
            wait_until_ready(port)
            yield Process(process.pid), port, lines
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_ready(port: int) -> None:
    world = World(port, 0, {})
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if send(world, head(None, "/ready", method="GET"))[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server doesn't get ready")


@contextmanager
def victim() -> Iterator[tuple[int, list[str]]]:
    """A service on this machine that nobody may be made to talk to: its port, and who did."""
    reached: list[str] = []
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def listen() -> None:
            while not stop.is_set():
                try:
                    connection, peer = listener.accept()
                except OSError:
                    continue
                reached.append(str(peer))
                connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1], reached
        stop.set()
        thread.join()


def expected_answers() -> dict[tuple[str, str], str]:
    """What the library says to every healthy question."""
    vlm = smolvlm.load()
    media: dict[str, dict[str, Any]] = {"text": {}, "image": {"images": [PICTURE]}, "video": {"videos": [VIDEO]}}
    return {
        (question, medium): vlm.ask(question, **given, max_new_tokens=NEW_TOKENS, loop_guard=True).text
        for question in QUESTIONS
        for medium, given in media.items()
    }


def schedule(requests: int, seed: int) -> list[str]:
    """Names of kinds by their shares, shuffled; each at least once where there is room."""
    shares = {name: share for name, (_, share) in KINDS.items()}
    total = sum(shares.values())
    names = [name for name, share in shares.items() for _ in range(max(1, round(share * requests / total)))]
    random.Random(seed).shuffle(names)
    return names


def attack(world: World, names: list[str], clients: int, seed: int) -> None:
    def one(number: int) -> None:
        name = names[number]
        try:
            status, complaint = KINDS[name][0](world, random.Random(seed + number))
        except OSError as error:
            status, complaint = GONE, f"{type(error).__name__}: {error}"
        world.note(name, status, complaint)

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(one, range(len(names))))


def kill_workers(world: World, server: Process, times: int) -> None:
    """Kill the worker that decodes, again and again: its request fails, those beside it are answered."""
    body = json.dumps(chat("What?", video(data_uri(slow_film(), "video/mp4")))).encode()
    with ThreadPoolExecutor(3) as threads:
        for number in range(times):
            before = {worker.number: worker.cpu_s for worker in media_workers(server)}
            doomed = threads.submit(send, world, head(len(body)), body)
            healthy_one = threads.submit(healthy, world, QUESTIONS[number % 4], "image", False)
            busy = busiest_worker(server, before)
            status, complaint = healthy_one.result()
            world.note("healthy beside a killed worker", status, complaint)
            os.kill(busy.number, signal.SIGKILL)
            world.note("its worker is killed", *judged(doomed.result(), 422))
            world.note("healthy after a killed worker", *healthy(world, QUESTIONS[number % 4], "video", False))


def media_workers(server: Process) -> list[Process]:
    """Children of the process that starts them, which is a child of the server."""
    return [worker for child in server.children if "forkserver" in child.command for worker in child.children]


def busiest_worker(server: Process, before: dict[int, float]) -> Process:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        for worker in media_workers(server):
            if worker.cpu_s - before.get(worker.number, 0.0) > 0.5:
                return worker
        time.sleep(0.05)
    raise AssertionError("no worker decodes")


def run(requests: int, clients: int, kills: int, seed: int = 7) -> dict[str, Any]:
    """Everything that was seen. "wrong" is empty when all went as it should."""
    expected = expected_answers()
    with (
        victim() as (victim_port, reached),
        server_process([*OPTIONS, "--url-port", str(victim_port)]) as (server, port, lines),
    ):
        world = World(port, victim_port, expected)
        for question in QUESTIONS:  # warm
            healthy(world, question, "image", False)
        memory_mb = server.memory_mb
        started = time.monotonic()
        attack(world, schedule(requests, seed), clients, seed)
        seconds = time.monotonic() - started
        kill_workers(world, server, kills)
        grown_mb = server.memory_mb - memory_mb
        if not server.is_running or send(world, head(None, "/health", method="GET"))[0] != 200:
            world.wrong.append("the server is gone")
        status = judged_idle(world)
        world.wrong += [] if status is None else [status]
    traces = [line for line in lines if "Traceback" in line or "Error:" in line]
    world.wrong += [f"in the log: {line}" for line in traces]
    world.wrong += [f"somebody was reached: {peer}" for peer in reached]
    return {
        "requests": sum(sum(counts.values()) for counts in world.seen.values()),
        "clients": clients, "seconds": round(seconds, 1), "grown_mb": round(grown_mb, 1),
        "reached": len(reached), "wrong": world.wrong,
        "kinds": {name: dict(sorted(counts.items())) for name, counts in sorted(world.seen.items())},
    }  # fmt: skip


def judged_idle(world: World) -> str | None:
    """Once all is over, nothing is running or waiting any more."""
    end = time.monotonic() + 60
    text = ""
    while time.monotonic() < end:
        text = send(world, head(None, "/metrics", method="GET"))[1].decode()
        load = re.findall(
            r"^smolvlm_(?:requests|media)_(?:running|waiting|looking|working) ([\d.]+)$", text, re.MULTILINE
        )
        if len(load) >= 5 and all(float(value) == 0 for value in load):
            return None
        time.sleep(0.2)
    return f"something still runs: {text[:500]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    found = run(options.requests, options.clients, options.kills, options.seed)
    print("| kind | requests | by status (0: no answer) |\n|---|---|---|")
    for name, counts in found["kinds"].items():
        told = ", ".join(f"{status}: {count}" for status, count in counts.items())
        print(f"| {name} | {sum(counts.values())} | {told} |")
    statuses: Counter[int] = Counter()
    for counts in found["kinds"].values():
        statuses.update(counts)
    print(f"\nby status: {dict(sorted(statuses.items()))}; wrong: {len(found['wrong'])}")
    for complaint in found["wrong"][:20]:
        print(f"  {complaint}")
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
