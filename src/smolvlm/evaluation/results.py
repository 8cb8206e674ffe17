"""The end of a run: what its records add up to, as summary.json and as a page to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from .folder import REPORT, SUMMARY, RunFolder, Surveyed
from .records import Record
from .report import report_page, shown_records
from .summary import TaskSummary, summarise
from .task import Protocol, Task
from .thumbnails import Thumbnail, thumbnails


def finish(
    folder: RunFolder,
    tasks: Sequence[Task],
    surveyed: Surveyed,
    directory: Path,
    protocol: Protocol,
    facts: Mapping[str, Any],
    published: Mapping[str, float],
) -> list[TaskSummary]:
    """Wait for the records of all processes, sum them up, and write both files.

    facts: what else a figure should carry, name -> value. published: task -> score from 0 to 1, to be told beside.
    """
    records = folder.finish(surveyed)
    of_task = {task.name: [record for record in records if record.task == task.name] for task in tasks}
    summaries = [summarise(task, of_task[task.name], surveyed[task.name], protocol.mode) for task in tasks]
    told = [{**asdict(one), "published": published.get(one.task)} for one in summaries]
    content = json.dumps({**facts, "tasks": told}, indent=2, ensure_ascii=False)
    (folder.path / SUMMARY).write_text(content + "\n", encoding="utf-8")
    shown: list[Record] = []
    pictures: dict[tuple[str, str], list[Thumbnail]] = {}
    for task in tasks:
        wrong = shown_records(of_task[task.name])
        shown += wrong
        pictures |= _pictures(task, directory, protocol, wrong, len(surveyed[task.name]))
    listed = {name.replace("_", " "): value for name, value in _flat(facts) if value not in ("", None)}
    page = report_page(f"Evaluation of {facts['model']}", listed, summaries, shown, pictures, published)
    (folder.path / REPORT).write_text(page, encoding="utf-8", errors="replace")
    return summaries


def _pictures(
    task: Task, directory: Path, protocol: Protocol, records: Sequence[Record], rows: int
) -> dict[tuple[str, str], list[Thumbnail]]:
    wanted = {record.key for record in records}
    found = (row for row in islice(task.read(directory), rows) if row.key in wanted) if wanted else ()
    return {(task.name, row.key): thumbnails(task, row, protocol) for row in found}


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        pair
        for name, value in facts.items()
        for pair in (value.items() if isinstance(value, dict) else [(name, value)])
    ]
