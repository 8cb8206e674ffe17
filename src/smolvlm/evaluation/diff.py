"""Two runs over the same rows, sample by sample: what one has right and the other wrong, and can that be chance?

Source: McNemar's test with the exact binomial distribution (1947) where every score is 0 or 1; else the paired
permutation test, which gives each difference either sign (Fisher, 1935).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .folder import RECORDS, SUMMARY, read_settings
from .records import Record, read_records

FLIPS = 10_000
SEED = 0


@dataclass(frozen=True)
class Difference:
    """A task in two runs. fixed: pairs (before, after) whose score rose; broken: whose score fell.

    reworded: samples with the same score and another output. p_value: how often chance alone parts runs as far.
    """

    task: str
    n: int
    before: float
    after: float
    fixed: tuple[tuple[Record, Record], ...]
    broken: tuple[tuple[Record, Record], ...]
    reworded: int
    test: str
    p_value: float


def compare(before: Path, after: Path) -> list[Difference]:
    """Folders of two runs -> a difference a task. Raises InputError when they didn't ask the same rows."""
    old, new = _finished(before), _finished(after)
    _refuse_other_rows(old, new, before, after)
    by_task: dict[str, list[tuple[Record, Record]]] = {}
    for place, record in old.items():
        by_task.setdefault(record.task, []).append((record, new[place]))
    return [difference(task, pairs) for task, pairs in by_task.items()]


def difference(task: str, pairs: Sequence[tuple[Record, Record]]) -> Difference:
    """pairs: (before, after) of each row."""
    deltas = [after.score - before.score for before, after in pairs]
    fixed = tuple(pair for pair, delta in zip(pairs, deltas, strict=True) if delta > 0)
    broken = tuple(pair for pair, delta in zip(pairs, deltas, strict=True) if delta < 0)
    if all(record.score in (0.0, 1.0) for pair in pairs for record in pair):
        test, p_value = "McNemar, exact", mcnemar(len(fixed), len(broken))
    else:
        test, p_value = "paired permutation", sign_flip(deltas)
    return Difference(
        task,
        len(pairs),
        sum(before.score for before, _ in pairs) / len(pairs),
        sum(after.score for _, after in pairs) / len(pairs),
        fixed,
        broken,
        sum(delta == 0 and one.output != two.output for delta, (one, two) in zip(deltas, pairs, strict=True)),
        test,
        p_value,
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Both sides of the binomial distribution: how often a fair coin is at least as uneven."""
    changed = fixed + broken
    tail = sum(math.comb(changed, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, float(2 * tail / 2**changed))


def sign_flip(deltas: Iterable[float]) -> float:
    """The share of random signs that make the sum of the differences at least as large, the real signs among them."""
    changed = np.array([delta for delta in deltas if delta])
    if not len(changed):
        return 1.0
    rng, limit = np.random.default_rng(SEED), abs(changed.sum()) - 1e-9
    sums = [abs((changed * rng.choice((-1.0, 1.0), len(changed))).sum()) for _ in range(FLIPS)]
    return (1 + sum(one >= limit for one in sums)) / (1 + FLIPS)


def _finished(folder: Path) -> dict[tuple[str, str], Record]:
    read_settings(folder)
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder} holds a run that hasn't ended: run it again to go on, then compare.")
    return {record.place: record for record in read_records(folder / RECORDS)}


def _refuse_other_rows(
    old: dict[tuple[str, str], Record], new: dict[tuple[str, str], Record], before: Path, after: Path
) -> None:
    tasks = [list(dict.fromkeys(task for task, _ in one)) for one in (old, new)]
    if set(tasks[0]) != set(tasks[1]):
        raise InputError(
            f"The runs are of different tasks: {before} has {', '.join(tasks[0])}, {after} has {', '.join(tasks[1])}."
        )
    for one, other, name in ((old, new, before), (new, old, after)):
        if alone := [place for place in one if place not in other]:
            task, key = alone[0]
            raise InputError(
                f"The runs are of different rows: {len(alone)} are only in {name}, row {key!r} of {task} first. Run "
                "both with the same data and --limit."
            )
    for place, record in old.items():
        if (record.question, record.references) != (new[place].question, new[place].references):
            raise InputError(f"Row {place[1]!r} of {place[0]} isn't the same in both runs: the data changed.")
