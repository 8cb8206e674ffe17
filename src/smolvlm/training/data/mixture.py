"""Data sets mixed by weight, as one endless list of samples: what stands at a position follows from the seed alone.

So the order is the same for any number of ranks and workers, and a run goes on exactly from one number, the next
position. A sample that can't be used leaves its place empty and is counted; above a set share the run stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError, InputError
from .encode import Encoded, Encoder, Pair
from .order import interleaved
from .sample import Passed, Place, Sample, Skipped
from .sources import DataSet

Learned = Encoded | Pair
LISTED = 20  # skipped samples that an error names
FEW = 100  # samples before a share of them says something


class Mixture:
    """Samples by position, from 0 without end. An epoch takes each data set as many times as its weight says."""

    def __init__(self, sets: Sequence[DataSet], *, seed: int = 0) -> None:
        if not sets:
            raise DataError("A mixture needs at least one data set.")
        self.sets = list(sets)
        self.seed = seed
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if not self.start_of(1):
            raise DataError("The weights are so small that an epoch has no sample. Make them larger.")

    def start_of(self, epoch: int) -> int:
        """The first position of an epoch."""
        return sum(_taken(one, epoch) for one in self.sets)

    def epoch_of(self, position: int) -> int:
        """The epoch that a position belongs to. Epochs differ by a sample or two where weights don't come out even."""
        epoch = int(position / sum(len(one) * one.source.share for one in self.sets))
        while self.start_of(epoch + 1) <= position:
            epoch += 1
        return epoch

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each place of an epoch: number of the data set, number of the sample in it."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                del self._orders[min(self._orders)]
            self._orders[epoch] = self._make_order(epoch)
        return self._orders[epoch]

    def locate(self, position: int) -> tuple[DataSet, int]:
        """The data set and the number of the sample in it that stand at a position."""
        epoch = self.epoch_of(position)
        sources, rows = self.order(epoch)
        place = position - self.start_of(epoch)
        return self.sets[int(sources[place])], int(rows[place])

    def sample(self, position: int) -> Sample:
        """Raises DataError, PromptError or MediaError for a row that can't be used."""
        data_set, row = self.locate(position)
        return data_set.sample(row)

    def place(self, position: int) -> Place:
        data_set, row = self.locate(position)
        return data_set.place(row)

    def _make_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        counts = [_taken(one, epoch + 1) - _taken(one, epoch) for one in self.sets]
        sources = interleaved(counts, self.seed, epoch)
        rows = np.empty(len(sources), np.int64)
        for number, one in enumerate(self.sets):
            rows[sources == number] = self._rows(number, one, _taken(one, epoch), _taken(one, epoch + 1))
        return sources, rows

    def _rows(self, number: int, one: DataSet, start: int, end: int) -> np.ndarray:
        """A stretch of a data set's endless list: one shuffled pass after another."""
        parts = [np.zeros(0, np.int64)]
        for turn in range(start // len(one), -(-end // len(one))):
            shuffled = one.shuffled(self.seed, number, turn)
            parts.append(shuffled[max(0, start - turn * len(one)) : end - turn * len(one)])
        return np.concatenate(parts)


def _taken(one: DataSet, epochs: int) -> int:
    """Samples that are taken from a data set in so many epochs."""
    return int(epochs * len(one) * one.source.share)


@dataclass(frozen=True)
class Step:
    """What a rank reads for one update: samples ready to be learned, those that can't be used, and how many were passed
    over, being shorter than their data set wants."""

    learned: list[Learned]
    skipped: list[Skipped]
    passed: int = 0


class Steps:
    """Steps by number, for `torch.utils.data.DataLoader(steps, batch_size=None, sampler=range(start, end))`.

    batch_size: samples of a step, over all ranks. Step k is positions k * batch_size to (k + 1) * batch_size; ranks
    share them out, so they only split what a single rank would read.
    """

    def __init__(self, mixture: Mixture, encoder: Encoder, batch_size: int, *, rank: int = 0, ranks: int = 1) -> None:
        if batch_size < ranks or not 0 <= rank < ranks:
            raise InputError(f"rank {rank} of {ranks} has no share of a batch of {batch_size}.")
        self.mixture, self.encoder, self.batch_size, self.rank, self.ranks = mixture, encoder, batch_size, rank, ranks

    def positions(self, step: int) -> range:
        first = step * self.batch_size
        return range(first + self.rank, first + self.batch_size, self.ranks)

    def __getitem__(self, step: int) -> Step:
        found = [read(self.mixture, self.encoder, position) for position in self.positions(step)]
        return Step(
            learned=[one for one in found if not isinstance(one, Skipped)],
            skipped=[one for one in found if isinstance(one, Skipped) and not isinstance(one, Passed)],
            passed=sum(isinstance(one, Passed) for one in found),
        )


def read(mixture: Mixture, encoder: Encoder, position: int) -> Learned | Skipped:
    """The sample at a position as ids and tiles, or why it isn't learned from: it can't be used, or was passed over."""
    data_set, row = mixture.locate(position)
    try:
        one = encoder(data_set.sample(row))
    except InputError as error:
        return Skipped.by(data_set.place(row), error)
    least = data_set.source.min_tokens
    if one.tokens < least:
        return Passed(one.place, "short", f"The sample has {one.tokens:,} tokens, and at least {least:,} are wanted.")
    return one


class Tally:
    """Counts what was read, and what of it was skipped. most: the share of skipped samples above which a run stops.

    passed: samples that were passed over, which are no fault and not among the seen.
    """

    def __init__(self, most: float = 0.01) -> None:
        self.most = most
        self.seen = self.shrunk = self.passed = 0
        self.skipped: list[Skipped] = []

    def add(self, step: Step) -> None:
        """Raises DataError, naming the skipped samples, when there are too many."""
        self.seen += len(step.learned) + len(step.skipped)
        self.shrunk += sum(one.given_up > 0 for one in step.learned)
        self.passed += step.passed
        self.skipped += step.skipped
        if len(self.skipped) > self.most * max(self.seen, FEW):
            raise DataError(
                f"{len(self.skipped)} of {self.seen} samples can't be used, more than {self.most:.1%}: "
                f"{count_kinds(self.skipped)}. " + listed(self.skipped)
            )


def count_kinds(skipped: Iterable[Skipped]) -> str:
    """ "3 ImageError, 1 PromptError", the commonest first."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in skipped).most_common())


def listed(skipped: Sequence[Skipped], most: int = LISTED) -> str:
    rest = f" And {len(skipped) - most} more." if len(skipped) > most else ""
    return " ".join(f"[{one}]" for one in skipped[:most]) + rest
