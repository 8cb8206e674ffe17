"""Watch a camera, a stream or a growing file, and say when something begins and ends: one JSON object a line.

Watching people without their knowledge and consent is not what this is for, nor deciding anything about a person: the
model errs, and the authors of SmolVLM name surveillance among its misuses. Watch kettles, printers, plants.

examples:
  smolvlm watch camera --when "the kettle boils" --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct
  smolvlm watch rtsp://192.168.0.20/stream --when "the printer has stopped" --run "notify-send {event} {score}"
  smolvlm watch recording.ts --when "Does anything move?"
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .arguments import Parser, UsageError, add_model_options, number
from .terminal import is_watched, load_model

if TYPE_CHECKING:
    from ..highlights import Change

STDERR = 2  # what a command prints must not come between the JSON lines


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm watch SOURCE --when TEXT [options]"
    parser.add_argument(
        "source", metavar="SOURCE",
        help="camera, or camera:NAME; an rtsp:// address; or a file, which may still grow (.ts, .mkv)",
    )  # fmt: skip
    parser.add_argument("--when", metavar="TEXT", required=True, help="what is watched for, in words or as a question")
    parser.add_argument("--question", metavar="TEXT", help="asked instead, with {criteria} for what is watched for")
    parser.add_argument(
        "--run", metavar="COMMAND", dest="command",
        help="start this at every event; {event} (start or end), {score}, {time_s} and {clock} are filled in. It is "
        "split into words as a shell would, and started without one",
    )  # fmt: skip
    group = parser.add_argument_group("watching")
    group.add_argument("--window", metavar="S", type=number, default=6.0, help="seconds asked about; default: 6")
    group.add_argument("--every", metavar="S", type=number, default=1.0, help="between two questions; default: 1")
    group.add_argument("--fps", metavar="N", type=number, default=1.0, help="frames a second to look at; default: 1")
    group.add_argument(
        "--on", metavar="P", type=float, default=0.6, help="score at which an event begins; default: 0.6"
    )
    group.add_argument("--off", metavar="P", type=float, default=0.4, help="score below which it ends; default: 0.4")
    group.add_argument("--idle", metavar="S", type=float, default=10.0, help="a file that stopped growing; default: 10")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    try:
        command = shlex.split(options.command) if options.command else []
    except ValueError as error:
        raise UsageError(f"--run can't be split into words: {error}") from error
    vlm = load_model(options)
    from ..highlights import Watching, watch

    how = Watching(options.window, options.every, options.fps, options.on, options.off, options.idle)

    def told(time_s: float, score: float) -> None:
        print(f"\r{time_s:8.1f} s  {score:.2f} ", end="", file=sys.stderr, flush=True)

    on_score = told if is_watched(options) else None
    running: list[subprocess.Popen[bytes]] = []
    for change in watch(vlm, options.source, options.when, question=options.question, how=how, on_score=on_score):
        fields = as_fields(change)
        print(json.dumps({**fields, "when": options.when}, ensure_ascii=False), flush=True)
        if command:
            running = [one for one in running if one.poll() is None]
            running.append(start(command, fields))
    for one in running:
        one.wait()
    return 0


def as_fields(change: Change) -> dict[str, object]:
    clock = datetime.fromtimestamp(change.clock, UTC).isoformat(timespec="seconds")
    return {"event": change.event, "time_s": round(change.time_s, 3), "clock": clock, "score": round(change.score, 4)}


def start(command: Sequence[str], fields: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start a command with the fields filled in, each inside its own word, so that none can become another word."""
    words = []
    for word in command:
        for name, value in fields.items():
            word = word.replace(f"{{{name}}}", str(value))
        words.append(word)
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=STDERR)
    except OSError as error:
        raise UsageError(f"--run can't start {words[0]!r}: {error.strerror or error}") from error
