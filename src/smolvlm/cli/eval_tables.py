"""`smolvlm eval` without a run: what there is, what a run would cost, what changed between two, drawn twins."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import UsageError, data_directory
from .eval import protocol_from, survey_tasks
from .eval_run import print_table
from .terminal import load_model, waiting

if TYPE_CHECKING:
    from ..types import TokenReport
    from ..vlm.requests import AskRequest

COMPARISON = "diff.html"
TWIN_ROWS = 300


def list_tasks() -> int:
    from ..evaluation.tasks import TASKS

    rows = [(task.name, task.title, task.kind, task.metric) for task in TASKS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    return 0


def draw_twins(options: argparse.Namespace) -> int:
    from ..evaluation.twins import TWINS, draw_twin

    for name in TWINS:
        with waiting(f"Drawing {name}", options):
            print(draw_twin(name, options.draw, options.limit or TWIN_ROWS))
    return 0


def show_plan(options: argparse.Namespace) -> int:
    from ..evaluation.plan import ANSWERED, COUNTED, plan, tokens_per_second
    from ..evaluation.runner import Asking

    tasks, surveyed = survey_tasks(options)
    protocol, count, plans = protocol_from(options), _counter(options), []
    for task in tasks:
        with waiting(f"Counting tokens of {task.title}", options):
            plans.append(plan(task, data_directory(options.data), surveyed[task.name], protocol, count))
    if options.rate:
        rates, source = [options.rate] * len(plans), f"{options.rate:g} tokens a second, as told"
    else:
        asking = Asking(load_model(options), protocol, batch_size=options.batch_size)
        rates = [tokens_per_second(asking, one) for one in plans]
        source = f"{ANSWERED} samples of each task, answered here by {asking.vlm!r}"
    table = [["task", "samples", "tokens", "of pictures", "tokens/s", "time"]]
    for one, rate in zip(plans, rates, strict=True):
        counts = [f"{number:,.0f}" for number in (one.samples, one.tokens, one.image_tokens, rate)]
        table.append([one.task.name, *counts, _told(one.seconds(rate))])
    columns = zip(*((one.samples, one.tokens, one.image_tokens) for one in plans), strict=True)
    whole = sum(one.seconds(rate) for one, rate in zip(plans, rates, strict=True))
    print_table([*table, ["together", *(f"{sum(numbers):,.0f}" for numbers in columns), "", _told(whole)]])
    print(f"\nTokens: extrapolated from {COUNTED} samples of each task, evenly spread. Time: from {source}.")
    return 0


def _counter(options: argparse.Namespace) -> Callable[[AskRequest], TokenReport]:
    """Tokens of requests, by the small files of a checkpoint."""
    from .. import hub
    from ..config import SmolVLMConfig
    from ..processing.processor import SmolVLMProcessor
    from ..vlm.requests import AskRequest, read_request
    from ..vlm.vlm import count_tokens

    directory = hub.resolve(
        options.model, revision=options.revision, local_files_only=options.offline, patterns=hub.PROCESSOR_FILES
    )
    processor = SmolVLMProcessor.from_pretrained(directory)
    context = SmolVLMConfig.from_file(directory / "config.json").text_config.max_position_embeddings

    def count(request: AskRequest) -> TokenReport:
        given = {name: value for name, value in request.items() if name != "question"}
        return count_tokens(processor, read_request("plan", request.get("question"), given, AskRequest), context)

    return count


def _told(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def compare(options: argparse.Namespace) -> int:
    from ..evaluation.comparison import comparison_page
    from ..evaluation.diff import compare as compare_runs

    if options.words[0] != "diff" or len(options.words) != 3:
        raise UsageError("two runs are compared by `smolvlm eval diff RUN RUN`; tasks are named by --tasks")
    before, after = map(Path, options.words[1:])
    differences = compare_runs(before, after)
    table = [["task", "samples", "before", "after", "fixed", "broken", "same", "p", "test"]]
    for one in differences:
        same = one.n - len(one.fixed) - len(one.broken)
        table.append([
            one.task, f"{one.n:,}", f"{100 * one.before:.1f}", f"{100 * one.after:.1f}", f"{len(one.fixed):,}",
            f"{len(one.broken):,}", f"{same:,}", f"{one.p_value:.3g}", one.test,
        ])  # fmt: skip
    print_table(table)
    page = options.output or after / COMPARISON
    page.write_text(comparison_page(str(before), str(after), differences), encoding="utf-8", errors="replace")
    print(f"\n{page}")
    return 0
