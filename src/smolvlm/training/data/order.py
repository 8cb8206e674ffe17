"""Which sample comes when: pure functions of a seed and an epoch. Numbers only, no files.

Random numbers are hashes of positions, not those of a generator, so an order stays what it is with any numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np


def hashes(count: int, *seed: object) -> np.ndarray:
    """(count,) uint64, evenly spread: splitmix64 of 0, 1, ... from a start that the seed gives."""
    start = int.from_bytes(sha256("/".join(map(str, seed)).encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        x = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) + np.uint64(start)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permutation(count: int, *seed: object) -> np.ndarray:
    """(count,) int64: 0 to count - 1 in an order that the seed gives."""
    return np.argsort(hashes(count, *seed), kind="stable").astype(np.int64)


def shuffled_runs(runs: np.ndarray, window: int, in_order: bool, *seed: object) -> np.ndarray:
    """Rows in a random order that reads few runs at a time.

    runs: sizes of rows that lie together. Runs are shuffled (not when they must be read in order), and then the rows of
    each `window` of neighbours.
    """
    if len(runs) == runs.sum() and not in_order:  # every row alone
        return permutation(len(runs), *seed)
    starts = np.cumsum(runs) - runs
    order = np.arange(len(runs)) if in_order else permutation(len(runs), *seed, "runs")
    parts = []
    for first in range(0, len(order), window):
        together = order[first : first + window]
        rows = np.concatenate([np.arange(starts[run], starts[run] + runs[run]) for run in together])
        parts.append(rows[permutation(len(rows), *seed, first)])
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def interleaved(counts: Sequence[int], *seed: object) -> np.ndarray:
    """(sum of counts,) int16: which source each place of an epoch takes from.

    Each source is spread evenly: its k-th sample comes at a random place in the k-th of its `count` equal stretches.
    """
    places = [(np.arange(count) + hashes(count, *seed, one) / 2.0**64) / count for one, count in enumerate(counts)]
    sources = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    return sources[np.argsort(np.concatenate(places), kind="stable")] if len(sources) else sources
