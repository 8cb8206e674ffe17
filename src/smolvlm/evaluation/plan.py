"""What a run will cost, before it starts: samples, tokens, time.

Tokens are counted on a few rows of each task, evenly spread, from the sizes of their pictures, and extrapolated. The
time follows from the tokens a second that a few of these rows took here, or from a rate that is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..errors import InputError
from ..types import TokenReport
from .runner import Asking, answer
from .task import Protocol, Row, Task

if TYPE_CHECKING:
    from ..vlm.requests import AskRequest

COUNTED = 16  # rows whose tokens are counted
ANSWERED = 4  # of these, to measure a rate

Count = Callable[["AskRequest"], TokenReport]


@dataclass(frozen=True)
class Plan:
    """Of one task. tokens, image_tokens: read for all samples together, extrapolated from those of `counted`."""

    task: Task
    samples: int
    counted: tuple[Row, ...]
    tokens: float
    image_tokens: float

    def seconds(self, tokens_per_s: float) -> float:
        return self.tokens / tokens_per_s


def plan(task: Task, directory: Path, surveyed: Sequence[Row], protocol: Protocol, count: Count) -> Plan:
    """count: a request -> its tokens. Raises InputError when no row that is looked at can be asked."""
    reports: list[TokenReport] = []
    rows, reason = [], None
    for row in _spread(task, directory, surveyed):
        try:
            reports.append(count(task.ask(row, protocol).request))
            rows.append(row)
        except InputError as error:  # the run will keep a record of it
            reason = error
    if not reports:
        raise InputError(f"{task.name} can't be planned: no row that was looked at can be asked. {reason}") from reason
    samples = len(surveyed)
    tokens, image_tokens = fmean(one.total for one in reports), fmean(one.image for one in reports)
    return Plan(task, samples, tuple(rows), samples * tokens, samples * image_tokens)


def tokens_per_second(asking: Asking, one: Plan) -> float:
    """Tokens of prompts over the seconds until they are answered, of a few of the counted rows; the first warms up."""
    warm, *rows = one.counted[: ANSWERED + 1]
    for _ in answer(asking, one.task, [warm]):
        pass
    started = time.perf_counter()
    records = [record for batch in answer(asking, one.task, rows or [warm]) for record in batch]
    return sum(record.prompt_tokens for record in records) / (time.perf_counter() - started)


def _spread(task: Task, directory: Path, surveyed: Sequence[Row]) -> Iterator[Row]:
    """Rows with their pictures, evenly spread over those surveyed."""
    step = max(1.0, len(surveyed) / COUNTED)
    keys = {surveyed[int(number * step)].key for number in range(min(len(surveyed), COUNTED))}
    return (row for row in islice(task.read(directory), len(surveyed)) if row.key in keys)
