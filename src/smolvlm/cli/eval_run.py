"""`smolvlm eval --tasks`: one run, in one process or as one of several, and what is printed at its end."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import data_directory
from .eval import KEY_VARIABLES, protocol_from, survey_tasks
from .terminal import load_model, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..evaluation.judge import JudgeEndpoint
    from ..evaluation.published import Published
    from ..evaluation.ranks import Share
    from ..evaluation.settings import Settings
    from ..evaluation.summary import TaskSummary
    from ..evaluation.task import Protocol
    from ..vlm import VLM


def evaluate(options: argparse.Namespace) -> int:
    from .. import __version__
    from ..evaluation.folder import RunFolder
    from ..evaluation.ranks import share_of
    from ..evaluation.results import finish
    from ..evaluation.runner import Asking
    from ..evaluation.runner import evaluate as answer_all

    share = share_of(os.environ)
    protocol, judge = protocol_from(options), _judge(options)
    tasks, surveyed = survey_tasks(options)
    if options.jobs > 1 and share.ranks == 1:
        return _spread(options)
    _place(options, share)
    vlm = load_model(options)
    settings = _settings(options, vlm, protocol, judge, __version__)
    folder, directory = RunFolder(options.output, settings), data_directory(options.data)
    asking, started = Asking(vlm, protocol, judge, options.batch_size), time.perf_counter()
    with progress_bar(", ".join(options.tasks), options, unit="samples") as progress:
        asked = answer_all(asking, tasks, surveyed, directory, folder, share=share, progress=progress)
        if share.rank:
            return 0
        folder.wait(surveyed)
        speed = {"asked": asked, "seconds": round(time.perf_counter() - started, 3)}
        facts = {**_facts(options, settings, vlm, share), **folder.speed(speed)}
        figures = _published(options)
        shares = {task: one.value / 100 for task, one in figures.items()}
        summaries = finish(folder, tasks, surveyed, directory, protocol, facts, shares)
    return _tell(folder.path, summaries, figures, judge)


def _spread(options: argparse.Namespace) -> int:
    """This command again, as several processes."""
    from ..evaluation.ranks import run_ranks
    from ..runtimes.machine import usable_cores

    run_ranks(options.command_line, options.jobs, usable_cores())
    return 0


def _place(options: argparse.Namespace, share: Share) -> None:
    """A GPU of its own for each process of a machine."""
    from ..runtimes.machine import may_have_gpu
    from ..vlm import best_device

    if share.ranks == 1 or options.device not in (None, "cuda"):
        return
    if options.device == "cuda" or (may_have_gpu() and best_device() == "cuda"):
        options.device = f"cuda:{share.local_rank}"


def _judge(options: argparse.Namespace) -> JudgeEndpoint | None:
    from ..evaluation.judge import JudgeEndpoint

    if not options.judge:
        return None
    key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
    return JudgeEndpoint(options.judge, options.judge_model, key)


def _settings(
    options: argparse.Namespace, vlm: VLM, protocol: Protocol, judge: JudgeEndpoint | None, version: str
) -> Settings:
    from .. import hub
    from ..evaluation.settings import Settings, prompts_fingerprint, weights_fingerprint

    directories = [hub.resolve(options.model, revision=options.revision, local_files_only=True)]
    if options.adapter is not None:
        directories.append(hub.resolve_adapter(options.adapter, local_files_only=True))
    return Settings(
        model=vlm.name,
        adapter=str(options.adapter or ""),
        weights=weights_fingerprint(directories),
        runtime=vlm.runtime,
        dtype=vlm.dtype,
        device=vlm.device.partition(":")[0],
        protocol=protocol,
        prompts=prompts_fingerprint(),
        judge=str(judge or ""),
        version=version,
    )


def _facts(options: argparse.Namespace, settings: Settings, vlm: VLM, share: Share) -> dict[str, Any]:
    """What a figure should carry beside the settings that answers depend on."""
    from ..evaluation.settings import commit, machine

    hardware = machine()
    if vlm.device.startswith("cuda"):
        from ..model import cuda

        hardware = f"{cuda.name()}; {hardware}"
    return {
        **asdict(settings),
        "longest_edge": vlm.processor.image_processor.size.get("longest_edge"),
        "data": str(data_directory(options.data)),
        "limit": options.limit,
        "batch_size": options.batch_size,
        "processes": share.ranks,
        "commit": commit(),
        "hardware": hardware,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _published(options: argparse.Namespace) -> dict[str, Published]:
    from ..evaluation.published import published_score

    if not options.published:
        return {}
    found = {task: published_score(options.model or "nano", task) for task in options.tasks}
    return {task: one for task, one in found.items() if one is not None}


def _tell(
    folder: Path, summaries: Sequence[TaskSummary], figures: Mapping[str, Published], judge: JudgeEndpoint | None
) -> int:
    """The scores, and what went wrong. Returns 1 when a task has no sample that could be asked."""
    from ..evaluation.folder import REPORT

    header = ["task", "score, %", "95 % interval", "samples", "undecided", "empty", "failed"]
    rows = [[*header, *(["published", "table"] if figures else [])]]
    for one in summaries:
        figure = one.figure
        counts = [f"{count:,}" for count in (figure.n, figure.undecided, figure.empty, figure.failed)]
        interval = f"{100 * figure.low:.1f} to {100 * figure.high:.1f}"
        row = [one.task, f"{100 * figure.score:.1f}", interval, *counts]
        if figures:
            told = figures.get(one.task)
            row += [f"{told.value:g}{' (unsure)' if told.unsure else ''}", told.table.title] if told else ["", ""]
        rows.append(row)
    print_table(rows)
    print(f"\n{folder / REPORT}")
    for one in summaries:
        if one.figure.failed:
            warnings.warn(
                f"{one.figure.failed} of {one.figure.n} samples of {one.task} failed and count as 0: their records "
                "tell why.", stacklevel=2,
            )  # fmt: skip
        if one.unjudged:
            warnings.warn(
                f"{one.unjudged} of {one.figure.n} samples of {one.task} are undecided, for the judge {judge} didn't "
                "answer; they count as 0.", stacklevel=2,
            )  # fmt: skip
    return int(any(one.figure.failed == one.figure.n for one in summaries))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())
