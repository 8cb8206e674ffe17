"""Measure a model on benchmarks: every answer kept, scores with their interval, a page to look at.

examples:
  smolvlm eval --list
  smolvlm eval --tasks nano-scenes,nano-read --limit 100 --output runs/nano
  smolvlm eval --tasks mmstar,chartqa --model HuggingFaceTB/SmolVLM2-2.2B-Instruct --published --output runs/card
  smolvlm eval --tasks docvqa --plan
  smolvlm eval diff runs/before runs/after
  smolvlm eval --draw twins

The same command goes on with a run that was stopped. `torchrun --nproc-per-node 8 -m smolvlm eval ...` asks on 8 GPUs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import (
    DATA,
    DATA_VARIABLE,
    Parser,
    UsageError,
    add_model_options,
    data_directory,
    number,
    task_names,
    whole_number,
)
from .terminal import quieten, waiting

if TYPE_CHECKING:
    from ..evaluation.folder import Surveyed
    from ..evaluation.task import Protocol, Task

KEY_VARIABLES = ("SMOLVLM_JUDGE_KEY", "OPENAI_API_KEY")


def add_arguments(parser: Parser) -> None:
    parser.usage = (
        "smolvlm eval --tasks NAME,... --output DIR [options]\n       smolvlm eval --tasks NAME,... --plan [options]\n"
        "       smolvlm eval diff RUN RUN [--output FILE]\n       smolvlm eval --list | --draw DIR"
    )
    parser.add_argument("words", nargs="*", metavar="diff RUN RUN", help="compare two runs sample by sample")
    parser.add_argument("--tasks", metavar="NAME,...", type=task_names, help="what to ask; --list tells what there is")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="where the run lives; diff: the page to write")
    parser.add_argument("--data", metavar="DIR", type=Path, help=f"default: ${DATA_VARIABLE}, else {DATA}")
    parser.add_argument(
        "--limit", metavar="N", type=whole_number, help="the first N samples of each task; draw: rows (default: 300)"
    )
    parser.add_argument("--batch-size", metavar="N", type=whole_number, default=16, help="default: %(default)s")
    parser.add_argument("--jobs", metavar="N", type=whole_number, default=1, help="processes of this machine")
    parser.add_argument("--plan", action="store_true", help="tell samples, tokens and hours, and keep nothing")
    parser.add_argument(
        "--rate", metavar="N", type=number, help="plan: tokens a second, instead of measuring some here"
    )
    parser.add_argument("--list", action="store_true", help="show the tasks")
    parser.add_argument("--draw", metavar="DIR", type=Path, help="draw small data sets in all official layouts")
    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--published", action="store_true", help="as the published tables were measured, and their figures beside"
    )
    group.add_argument(
        "--prompts", choices=("smolvlm", "smolvlm2", "chat"), dest="wrapper",
        help="smolvlm2 (default), smolvlm: as VLMEvalKit puts them to either; chat: the model's own template",
    )  # fmt: skip
    group.add_argument(
        "--mode", choices=("vlmevalkit", "official", "strict"), help="whose scorers; default: vlmevalkit"
    )
    group.add_argument("--frames", metavar="N", type=whole_number, help="most frames of a video; default: 64")
    group.add_argument(
        "--frame-rate", metavar="N", type=_rate, help="frames a second, or `even` to spread them; default: 1"
    )
    group.add_argument("--frame-side", metavar="N", type=whole_number, help="longest edge of a frame; default: 512")
    group.add_argument(
        "--answer-tokens", metavar="N", type=whole_number, help="most tokens of an answer; default: 2048"
    )
    group = parser.add_argument_group("judge")
    group.add_argument("--judge", metavar="URL", help="OpenAI-compatible address, for answers that no rule can read")
    group.add_argument("--judge-model", metavar="NAME", help=f"its model; its key is taken from ${KEY_VARIABLES[0]}")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from . import eval_run, eval_tables

    quieten(options)
    if options.words:
        return eval_tables.compare(options)
    if options.list:
        return eval_tables.list_tasks()
    if options.draw is not None:
        return eval_tables.draw_twins(options)
    if not options.tasks:
        raise UsageError("`smolvlm eval` needs --tasks NAME,...; `smolvlm eval --list` shows them")
    if options.plan:
        return eval_tables.show_plan(options)
    if options.output is None:
        raise UsageError("`smolvlm eval` needs --output DIR, where the run lives; or --plan")
    if bool(options.judge) != bool(options.judge_model):
        raise UsageError("--judge URL and --judge-model NAME belong together")
    return eval_run.evaluate(options)


def protocol_from(options: argparse.Namespace) -> Protocol:
    """What the options of the protocol stand for."""
    from ..evaluation.published import protocol_of
    from ..evaluation.task import Protocol

    given = {
        name: getattr(options, option)
        for name, option in (
            ("wrapper", "wrapper"), ("mode", "mode"), ("frames", "frames"), ("frame_side", "frame_side"),
            ("max_new_tokens", "answer_tokens"), ("fps", "frame_rate"),
        )
        if getattr(options, option) is not None
    }  # fmt: skip
    if options.published:
        if given:
            raise UsageError("--published is a protocol of its own: leave the other options of the protocol out")
        return protocol_of(options.model or "nano")
    if given.get("fps") == 0:
        given["fps"] = None
    return replace(Protocol(), **given)


def survey_tasks(options: argparse.Namespace) -> tuple[list[Task], Surveyed]:
    """The tasks that were named, and their rows: read once as a whole, before any model is loaded."""
    from ..evaluation.runner import survey
    from ..evaluation.tasks import find_task

    tasks = [find_task(name) for name in options.tasks]
    surveyed = {}
    for task in tasks:
        with waiting(f"Reading {task.title}", options):
            surveyed[task.name] = survey(task, data_directory(options.data), options.limit)
    return tasks, surveyed


def _rate(text: str) -> float:
    """0 stands for frames that are spread evenly."""
    return 0.0 if text == "even" else number(text)
