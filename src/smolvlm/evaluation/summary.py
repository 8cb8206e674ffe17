"""What records add up to: scores with their 95 % interval, breakdowns, and how many answers could not be read.

Source: Wilson, JASA 22 (1927), for shares of right answers; the percentile bootstrap (Efron, 1979) for everything else.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from .records import Record
from .scorers import Mode
from .task import Row, Task

Z_95 = 1.959963984540054  # 97.5 % of a normal distribution lie below
RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Figure:
    """A score from 0 to 1, and where it lies with 95 % confidence. interval: how that was found.

    An undecided, empty or failed sample counts with what the scorer gave it, mostly 0, and is told beside.
    """

    n: int
    score: float
    low: float
    high: float
    interval: Literal["wilson", "bootstrap"]
    undecided: int
    empty: int
    failed: int


@dataclass(frozen=True)
class TaskSummary:
    """A task's figure and those of its groups: breakdown -> group -> figure.

    cut: answers that ended at max_new_tokens. unjudged: undecided because the judge didn't answer. tokens: of all
    samples together. prompts: SHA-256 of all prompts as sent.
    """

    task: str
    title: str
    metric: str
    figure: Figure
    groups: Mapping[str, Mapping[str, Figure]]
    cut: int
    unjudged: int
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    prompts: str


def summarise(task: Task, records: Sequence[Record], rows: Sequence[Row], mode: Mode) -> TaskSummary:
    """records and rows: of all samples, in one order."""
    members: dict[str, dict[str, list[Record]]] = {name: defaultdict(list) for name in task.groups}
    for record in records:
        for name in task.groups:
            for group in _groups(record, name):
                members[name][group].append(record)
    prompts = hashlib.sha256("\0".join(record.prompt for record in records).encode("utf-8", "surrogatepass"))
    return TaskSummary(
        task=task.name,
        title=task.title,
        metric=task.metric,
        figure=_overall(task, records, rows, mode),
        groups={
            name: {group: figure_of(members[name][group]) for group in sorted(members[name])} for name in task.groups
        },
        cut=sum(record.finish_reason == "length" for record in records),
        unjudged=sum(record.status == "undecided" and bool(record.reason) for record in records),
        prompt_tokens=sum(record.prompt_tokens for record in records),
        image_tokens=sum(record.image_tokens for record in records),
        new_tokens=sum(record.new_tokens for record in records),
        prompts=prompts.hexdigest(),
    )


def figure_of(records: Sequence[Record]) -> Figure:
    """The mean of the scores."""
    values = np.array([record.score for record in records])
    mean = float(values.mean())
    if set(values.tolist()) <= {0.0, 1.0}:
        return _figure(records, mean, *wilson(int(values.sum()), len(values)), "wilson")
    picked = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    return _figure(records, mean, *_middle(values[picked].mean(axis=1)), "bootstrap")


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, spread = hits / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def overall_score(task: Task, records: Sequence[Record], rows: Sequence[Row], mode: Mode) -> float:
    """From 0 to 1, by the task's own rule where it has one. records and rows: of all samples, in one order."""
    if task.overall is None:
        return fmean(record.score for record in records)
    return task.overall([record.graded for record in records], rows, mode)


def _overall(task: Task, records: Sequence[Record], rows: Sequence[Row], mode: Mode) -> Figure:
    """A task's own rule is applied to each resample."""
    if task.overall is None:
        return figure_of(records)
    scores = [record.graded for record in records]
    found = []
    for picked in np.random.default_rng(SEED).integers(len(rows), size=(RESAMPLES, len(rows))).tolist():
        found.append(task.overall([scores[at] for at in picked], [rows[at] for at in picked], mode))
    return _figure(records, overall_score(task, records, rows, mode), *_middle(np.array(found)), "bootstrap")


def _figure(
    records: Sequence[Record], score: float, low: float, high: float, interval: Literal["wilson", "bootstrap"]
) -> Figure:
    counts = [sum(record.status == status for record in records) for status in ("undecided", "empty", "failed")]
    return Figure(len(records), score, low, high, interval, *counts)


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high


def _groups(record: Record, name: str) -> tuple[str, ...]:
    of = record.groups.get(name, ())
    return (of,) if isinstance(of, str) else of
