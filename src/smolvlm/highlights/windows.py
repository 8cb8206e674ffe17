"""Cut a video into the windows that a model judges one by one. Knows times and changes, no pixels and no model.

Shots end at cuts. Inside a shot a stretch in which something moves is a window of its own, and so is what lies between
two of them; what is longer than a window is covered by several that overlap by half. A window of motion is shown with
a little of what was before and comes after: that something appears can only be seen from both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .segments import Curve
from .shots import Track, shots

WINDOW_S = 8.0
CONTEXT_S = 1.5  # shown before and after a window of motion
SHORTEST_S = 1.0  # of a window of motion
PAUSE_S = 0.5  # at least, between two motions and from a motion to a cut
ACTIVE_PEAK, ACTIVE_RATIO = 0.015, 4.0  # change of a block that is motion; and in times of a quiet moment of the shot
QUIET = 0.25  # the quantile of a shot's changes that is its quiet moment


@dataclass(frozen=True)
class Window:
    """start_s, end_s: what its score is for. from_s, to_s: what the model is shown."""

    start_s: float
    end_s: float
    from_s: float
    to_s: float


def cut_windows(track: Track, cuts: Sequence[int], duration_s: float, *, window_s: float = WINDOW_S) -> list[Window]:
    """All windows of a video, in the order of their starts; together they cover it.

    cuts: places in the track where shots begin. window_s: the longest. Raises InputError when that isn't at least 1 s.
    """
    if not window_s >= SHORTEST_S:
        raise InputError(f"window_s={window_s!r} is too short: give at least {SHORTEST_S:g} s.")
    windows = []
    for first, last in shots(len(track.times_s), cuts):
        start_s = 0.0 if first == 0 else float(track.times_s[first])
        end_s = duration_s if last == len(track.times_s) else float(track.times_s[last])
        if end_s <= start_s:  # the container claims less than it holds
            end_s = start_s + 1e-3
        for piece_start_s, piece_end_s, moves in _pieces(track, first, last, start_s, end_s):
            margin_s = CONTEXT_S if moves else 0.0
            for at_s, to_s in _slide(piece_start_s, piece_end_s, window_s):
                windows.append(Window(at_s, to_s, max(start_s, at_s - margin_s), min(end_s, to_s + margin_s)))
    return windows


def spans(
    track: Track, cuts: Sequence[int], duration_s: float, *, shortest_s: float, longest_s: float
) -> list[tuple[float, float]]:
    """Stretches that cover a video once, without overlap: shots, short ones joined and long ones cut evenly."""
    borders = [0.0, *(float(track.times_s[place]) for place in cuts), duration_s]
    kept = [0.0]
    for border_s in borders[1:-1]:
        if border_s - kept[-1] >= shortest_s and duration_s - border_s >= shortest_s:
            kept.append(border_s)
    found = []
    for start_s, end_s in itertools.pairwise([*kept, duration_s]):
        parts = max(1, math.ceil((end_s - start_s) / longest_s - 1e-9))
        step_s = (end_s - start_s) / parts
        found += [(start_s + part * step_s, start_s + (part + 1) * step_s) for part in range(parts)]
    return found


def curve_of(windows: Sequence[Window], scores: Sequence[float]) -> Curve:
    """One score for every moment: the geometric mean of the windows that cover it.

    Of two overlapping windows of which one says no, the event is in the other's own part: a mean that the no pulls down
    finds it there.
    """
    starts, ends = (np.array([getattr(one, name) for one in windows]) for name in ("start_s", "end_s"))
    borders = np.unique(np.concatenate([starts, ends]).round(6))
    logs = np.log(np.clip(np.asarray(scores, np.float64), 1e-6, 1))
    cells = []
    for at_s, to_s in itertools.pairwise(borders):
        covering = (starts < (at_s + to_s) / 2) & (ends > (at_s + to_s) / 2)
        cells.append(float(np.exp(logs[covering].mean())) if covering.any() else 0.0)
    return Curve(tuple(map(float, borders[:-1])), tuple(cells))


def _pieces(track: Track, first: int, last: int, start_s: float, end_s: float) -> Iterator[tuple[float, float, bool]]:
    """(start, end, whether something moves) of the stretches of one shot, in turn."""
    motions = _motions(track, first, last, start_s, end_s)
    at_s = start_s
    for from_s, to_s in motions:
        if from_s > at_s:
            yield at_s, from_s, False
        yield from_s, to_s, True
        at_s = to_s
    if at_s < end_s:
        yield at_s, end_s, False


def _motions(track: Track, first: int, last: int, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """Stretches of a shot in which something moves, none shorter than SHORTEST_S."""
    peaks, times = track.peak[first + 1 : last], track.times_s[first:last]
    if not len(peaks):
        return []
    least = max(ACTIVE_PEAK, ACTIVE_RATIO * float(np.quantile(peaks, QUIET)))
    runs: list[tuple[float, float]] = []
    for place in np.flatnonzero(peaks > least):
        from_s, to_s = float(times[place]), float(times[place + 1])
        if runs and from_s - runs[-1][1] < PAUSE_S:
            from_s = runs.pop()[0]
        runs.append((from_s, to_s))
    found: list[tuple[float, float]] = []
    for run in runs:
        from_s, to_s = _widen(*run, start_s, end_s)
        if from_s - start_s < PAUSE_S:
            from_s = start_s
        if end_s - to_s < PAUSE_S:
            to_s = end_s
        if found and from_s <= found[-1][1]:
            from_s = found.pop()[0]
        found.append((from_s, to_s))
    return found


def _widen(from_s: float, to_s: float, start_s: float, end_s: float) -> tuple[float, float]:
    """At least SHORTEST_S around the same middle, inside the shot."""
    missing = max(0.0, SHORTEST_S - (to_s - from_s)) / 2
    return max(start_s, from_s - missing), min(end_s, to_s + missing)


def _slide(start_s: float, end_s: float, window_s: float) -> Iterator[tuple[float, float]]:
    """The whole when it is short enough, else windows of the same length, each half over the one before or more."""
    length_s = end_s - start_s
    if length_s <= window_s:
        yield start_s, end_s
        return
    steps = math.ceil((length_s - window_s) / (window_s / 2))
    for step in range(steps + 1):
        at_s = start_s + step * (length_s - window_s) / steps
        yield at_s, at_s + window_s
