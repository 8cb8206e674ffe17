"""What is in a data set, in numbers: formats, lengths, tiles, and what can't be used and why. cli/data.py shows it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import InputError
from .encode import Encoded, Encoder, Pair
from .sample import Skipped
from .sources import DataSet

FIRST_BIN = 32  # tokens; each bin of the histogram is twice as wide as the one before


@dataclass(frozen=True)
class Spread:
    """Of one number a sample: the least, the middle one, what 95 % don't exceed, the most, and all together."""

    least: int
    median: int
    p95: int
    most: int
    total: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Spread:
        if not numbers:
            return cls(0, 0, 0, 0, 0)
        ordered = sorted(numbers)
        median, p95 = ordered[(len(ordered) - 1) // 2], ordered[math.ceil(0.95 * len(ordered)) - 1]
        return cls(ordered[0], median, p95, ordered[-1], sum(ordered))


@dataclass(frozen=True)
class Report:
    """One data set. rows: of all files; looked_at: evenly spread among them; the rest is of those.

    formats: rows of each, without those whose media may not be opened. tokens, learned, tiles: of the samples that can
    be used. histogram: (tokens, samples with at most so many, and more than the bin before). shrunk: samples that get
    fewer tiles, because of their length.
    """

    path: str
    files: int
    left_out: tuple[str, ...]
    rows: int
    looked_at: int
    formats: dict[str, int]
    pictures: int
    videos: int
    tokens: Spread
    learned: Spread
    tiles: Spread
    histogram: tuple[tuple[int, int], ...]
    shrunk: int
    skipped: tuple[Skipped, ...]


def inspect(
    data_set: DataSet, encoder: Encoder, limit: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Read and encode samples as training would. limit: how many, evenly spread; None is all of them."""
    chosen = spread_out(len(data_set), limit)
    formats: Counter[str] = Counter()
    used: list[Encoded] = []
    skipped: list[Skipped] = []
    for number, (name, one) in enumerate(look(data_set, encoder, chosen), 1):
        formats.update([name] if name else [])
        if isinstance(one, Skipped):
            skipped.append(one)
        else:
            used.append(_numbers_only(one))
        if progress:
            progress(number, len(chosen))
    lengths = [one.tokens for one in used]
    media = [medium.kind for one in used for medium in one.media]
    return Report(
        path=data_set.source.path,
        files=len(data_set.tables),
        left_out=tuple(file.name for file in data_set.left_out),
        rows=len(data_set),
        looked_at=len(chosen),
        formats=dict(formats.most_common()),
        pictures=media.count("image"),
        videos=media.count("video"),
        tokens=Spread.of(lengths),
        learned=Spread.of([int(one.learned.sum()) for one in used]),
        tiles=Spread.of([sum(medium.tiles for medium in one.media) for one in used]),
        histogram=histogram(lengths),
        shrunk=sum(one.given_up > 0 for one in used),
        skipped=tuple(skipped),
    )


def look(data_set: DataSet, encoder: Encoder, chosen: Sequence[int]) -> Iterator[tuple[str, Encoded | Pair | Skipped]]:
    """(name of the format, the sample as training gets it or why it doesn't) of each chosen number."""
    for index in chosen:
        name = ""
        try:
            name, sample = data_set.converted(index)
            yield name, encoder(sample)
        except InputError as error:
            yield name, Skipped.by(data_set.place(index), error)


def spread_out(count: int, limit: int | None) -> list[int]:
    """At most `limit` of the numbers below `count`, evenly spread, from 0 on."""
    if limit is None or limit >= count:
        return list(range(count))
    return [number * count // limit for number in range(limit)]


def histogram(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(upper bound, how many) of bins that double, from the first with anything in it to the last."""
    if not lengths:
        return ()
    bins = Counter(max(FIRST_BIN, 1 << (length - 1).bit_length()) for length in lengths)
    bound, found = min(bins), []
    while bound <= max(bins):
        found.append((bound, bins[bound]))
        bound *= 2
    return tuple(found)


def _numbers_only(one: Encoded | Pair) -> Encoded:
    """Without the tiles, which would fill the memory. Of a pair, the longer conversation."""
    if isinstance(one, Pair):
        one = max(one.chosen, one.rejected, key=lambda talk: talk.tokens)
    return Encoded(one.place, one.ids, one.learned, one.tiles[:0], one.media, one.given_up)
