"""Does `smolvlm serve` give many clients at a time the library's answers, and how long do they wait for them?

    python benchmarks/server_load.py                          64 clients, five minutes
    python benchmarks/server_load.py --minutes 1 --rival      and the same beside `transformers serve`

The bundled model; a real server process on this machine, which the clients share. Questions: 40 % about one picture,
20 % text, 20 % several pictures, 20 % videos of 2 to 6 s, all drawn and sent inside the request; half streamed, a
quarter sampled with a seed. Each is answered by the library first, one after another; an answer is wrong when it, or
its reason to end, isn't the library's, and lost when anything but a whole answer came. In five minutes they are so many
that the server has forgotten what it saw when one comes again; how much it remembered is told. First one client on a
fresh server, for a fifth of the time, then all. Memory is what all processes of the server hold, added up: flat is at
most 5 % between the medians of fifths of the last half. What a server adds to the library's time to the first text is
server_latency.py's.

--rival: pictures and text alone, nothing sampled, pictures cut into tiles as transformers cuts them, for a third of the
time with either server, on the same weights (under the name idefics3, which transformers loads without torchvision)
in the same dtype. Its answers are compared, too. Prints tables, then one JSON line. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server_client import Client, Reply
from server_mix import PICTURES_AND_TEXT, WHOLE_MIX, Question, make_question
from server_process import (
    DTYPE,
    NANO,
    Memory,
    counters,
    free_port,
    last_half,
    our_command,
    rival_command,
    server,
    write_idefics3,
)

import smolvlm

QUESTIONS_A_MINUTE = 400
OURS: dict[str, Any] = {"stream_options": {"include_usage": True}}
FLAT = 0.05
WARM_UP = 8
MOST_LOST = 1000  # a server that is gone loses them all
COLUMNS = {
    "clients": "at a time", "requests": "requests", "wrong": "wrong", "lost": "lost", "a_second": "requests/s",
    "tokens_a_second": "new tokens/s", "p50_s": "p50, s", "p95_s": "p95, s", "first_p50_s": "first text p50, s",
    "first_p95_s": "first text p95, s", "client_share": "clients' share of a core",
}  # fmt: skip


@dataclass
class Run:
    """What came of one run of clients. wrong, lost: what was said instead, and why nothing was."""

    clients: int
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    answered: list[tuple[Question, Reply]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Any]:
        replies = [reply for _, reply in self.answered]
        total = [reply.total_s for reply in replies]
        first = [reply.first_s for reply in replies if reply.first_s is not None]
        return {
            "name": name, "clients": self.clients, "requests": len(replies) + len(self.lost),
            "wrong": len(self.wrong), "lost": len(self.lost), "a_second": len(replies) / self.seconds,
            "tokens_a_second": sum(reply.tokens for reply in replies) / self.seconds,
            "p50_s": share_of(total, 0.5), "p95_s": share_of(total, 0.95), "first_p50_s": share_of(first, 0.5),
            "first_p95_s": share_of(first, 0.95), "client_share": self.client_cpu_s / self.seconds,
        }  # fmt: skip


async def run_clients(port: int, clients: int, seconds: float, questions: Sequence[Question], model: str | None,
                      more: dict[str, Any]) -> Run:  # fmt: skip
    """So many clients, each of which asks the next question as soon as it has an answer; all finish what they asked."""
    found, numbers, end = Run(clients), itertools.count(), time.perf_counter() + seconds
    bodies = [question.to_send(model, more) for question in questions]

    async def be_client() -> None:
        client = Client(port)
        while time.perf_counter() < end and len(found.lost) < MOST_LOST:
            number = next(numbers) % len(questions)
            await ask_once(client, questions[number], bodies[number], found)
        client.close()

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(be_client() for _ in range(clients)))
    found.seconds, found.client_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return found


async def warm_up(port: int, questions: Sequence[Question], model: str | None, more: dict[str, Any]) -> None:
    """The first questions of a process wait for what is made on demand."""
    clients, found = [Client(port) for _ in range(WARM_UP)], Run(WARM_UP)
    some = questions[-WARM_UP:]
    await asyncio.gather(*(
        ask_once(client, one, one.to_send(model, more), found) for client, one in zip(clients, some, strict=True)
    ))  # fmt: skip
    for client in clients:
        client.close()


async def ask_once(client: Client, question: Question, body: bytes, found: Run) -> None:
    try:
        reply = await client.ask(body)
    except (OSError, EOFError, ValueError, KeyError) as error:
        found.lost.append(f"{question.kind}: {type(error).__name__}: {error}")
        return
    found.answered.append((question, reply))
    if (reply.text.strip(), reply.reason) != (question.text.strip(), question.reason):
        found.wrong.append(f"{question.kind}: {reply.text!r}, {reply.reason}, not {question.text!r}")


def share_of(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else float("nan")


def make_questions(count: int, kinds: tuple[str, ...], *, plain: bool) -> list[Question]:
    print(f"the library answers {count} questions", file=sys.stderr)
    vlm = smolvlm.load(NANO, dtype=DTYPE)
    return [make_question(vlm, index, kinds, plain=plain) for index in range(count)]


def measure_ours(clients: int, minutes: float) -> tuple[list[Run], dict[str, Any]]:
    """One client, then all, on one server; what memory it held, and how much it remembered."""
    questions = make_questions(max(int(QUESTIONS_A_MINUTE * minutes), 2 * clients), WHOLE_MIX, plain=False)
    port = free_port()
    with server(our_command(port), port, "/ready") as pid:
        asyncio.run(warm_up(port, questions, None, OURS))
        print("one client", file=sys.stderr)
        alone = asyncio.run(run_clients(port, 1, 12 * minutes, questions, None, OURS))
        print(f"{clients} clients", file=sys.stderr)
        memory = Memory(pid)
        memory.start()
        together = asyncio.run(run_clients(port, clients, 60 * minutes, questions, None, OURS))
        held = last_half(memory.stop())
        found: dict[str, Any] = {
            "last_half_mb": [round(one, 1) for one in held], "drift": max(held) / min(held) - 1,
            "peak_mb": max(memory.samples), **remembered(counters(port)),
        }  # fmt: skip
    return [alone, together], found


def remembered(counted: dict[str, float]) -> dict[str, float]:
    tiles, prompts = counted["tiles_total"] + counted["cached_tiles_total"], counted["prompt_tokens_total"]
    return {
        "remembered_tiles": counted["cached_tiles_total"] / max(tiles, 1),
        "remembered_tokens": counted["cached_tokens_total"] / max(prompts, 1),
    }


def measure_rival(clients: int, minutes: float) -> dict[str, list[Run]]:
    """Both servers with pictures and text, by one client and by all."""
    questions = make_questions(max(int(QUESTIONS_A_MINUTE * minutes), 2 * clients), PICTURES_AND_TEXT, plain=True)
    with tempfile.TemporaryDirectory() as folder:
        write_idefics3(Path(folder))
        port, other = free_port(), free_port()
        sides: dict[str, tuple[list[str], int, str, str | None, dict[str, Any]]] = {
            "smolvlm serve": (our_command(port), port, "/ready", None, OURS),
            "transformers serve": (rival_command(Path(folder), other), other, "/health", folder, {}),
        }
        found: dict[str, list[Run]] = {}
        for name, (command, at, ready, model, more) in sides.items():
            with server(command, at, ready):
                print(f"{name}, pictures and text", file=sys.stderr)
                asyncio.run(warm_up(at, questions, model, more))
                found[name] = [
                    asyncio.run(run_clients(at, count, 20 * minutes, questions, model, more)) for count in (1, clients)
                ]
    return found


def show(rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n| | {' | '.join(COLUMNS.values())} |\n|---{'|---' * len(COLUMNS)}|")
    for row in rows:
        values = (f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS)
        print(f"| {row['name']} | {' | '.join(values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rival", action="store_true", help="also transformers serve, which must be installed")
    options = parser.parse_args()
    runs, found = measure_ours(options.clients, options.minutes)
    rows = [run.row("whole mix") for run in runs]
    show(rows)
    print(f"\n| | |\n|---|---|\n| memory in the last half, MB | {found['last_half_mb']} |")
    for name in ("drift", "peak_mb", "remembered_tiles", "remembered_tokens"):
        print(f"| {name} | {found[name]:.4g} |")
    faults = [fault for run in runs for fault in (*run.wrong, *run.lost)]
    if options.rival:
        beside = measure_rival(options.clients, options.minutes)
        rivals = [run.row(name) for name, both in beside.items() for run in both]
        show(rivals)
        faults += [fault for run in beside["smolvlm serve"] for fault in (*run.wrong, *run.lost)]
        rows += rivals
    print(json.dumps({"rows": rows, **found}))
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    if faults or found["drift"] > FLAT:
        sys.exit(f"{len(faults)} answers are wrong or lost; memory changed by {found['drift']:.1%}")


if __name__ == "__main__":
    main()
