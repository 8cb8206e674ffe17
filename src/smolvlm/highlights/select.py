"""From a score over time to the segments that are kept. Arithmetic alone; the same result is cut anew without a model.

In this order: smooth inside each shot, keep what reaches the threshold, join what is hardly apart, shorten what is too
long to its best part, add padding, end at cuts, and take the best first: what is too near to a better one is dropped.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .segments import Curve, Segment

SPLIT_S = 3.0  # a stretch is split at a cut when both sides are so long; a faster montage stays whole
NEAR = 1e-6  # seconds that are the same


@dataclass(frozen=True)
class Selection:
    """What is kept. Seconds, all of them; None is no limit.

    threshold: least score. top: most segments. target_length_s: of all segments together. min_gap_s: the weaker of
    two that are nearer is dropped; 0 keeps both. join_s: a shorter pause doesn't end a segment. padding_s: shown before
    and after, never across a cut. snap_s: a border so near to a cut moves there. smooth_s: width of a moving average;
    windows that overlap are smooth already. longest_s: of one segment.
    """

    threshold: float = 0.5
    top: int | None = None
    target_length_s: float | None = None
    min_gap_s: float = 0.0
    join_s: float = 1.0
    padding_s: float = 0.5
    snap_s: float = 0.5
    smooth_s: float = 0.0
    longest_s: float | None = 30.0

    def __post_init__(self) -> None:
        rules = (
            ("threshold", 0 <= self.threshold <= 1, "from 0 to 1"),
            ("top", self.top is None or self.top >= 1, "at least 1"),
            ("target_length_s", self.target_length_s is None or self.target_length_s > 0, "above 0"),
            ("longest_s", self.longest_s is None or self.longest_s > 0, "above 0"),
            *((name, getattr(self, name) >= 0, "0 or above") for name in _SECONDS),
        )
        for name, ok, allowed in rules:
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} is out of range: it must be {allowed}.")


_SECONDS = ("min_gap_s", "join_s", "padding_s", "snap_s", "smooth_s")


Cell = tuple[float, float, float]  # start, end, score


def select(
    curve: Curve, duration_s: float, cuts_s: Sequence[float] = (), how: Selection | None = None
) -> list[Segment]:
    """The segments to keep, in the order of the video; none when nothing reaches the threshold."""
    how = how or Selection()
    cells = _smoothed(curve, duration_s, cuts_s, how.smooth_s)
    kept: list[Segment] = []
    total_s = 0.0
    for one in sorted(_candidates(cells, cuts_s, how), key=lambda found: (-found.score, found.start_s)):
        if how.top is not None and len(kept) == how.top:
            break
        shown = _with_borders(one, duration_s, cuts_s, how)
        if how.min_gap_s and any(_gap_s(shown, other) < how.min_gap_s - NEAR for other in kept):
            continue
        left_s = np.inf if how.target_length_s is None else how.target_length_s - total_s
        if shown.duration_s > left_s + NEAR:
            if kept:  # a shorter one further down may still fit
                continue
            shown = _middle(shown, left_s)
        kept.append(shown)
        total_s += shown.duration_s
    return _joined(sorted(kept, key=lambda found: found.start_s))


def _smoothed(curve: Curve, duration_s: float, cuts_s: Sequence[float], width_s: float) -> list[Cell]:
    """The curve as cells; each score is the mean, over its cell, of a moving average that ends at cuts."""
    ends_s = [*curve.times_s[1:], duration_s][: len(curve.times_s)]
    cells = list(zip(curve.times_s, ends_s, curve.scores, strict=True))
    cells = [cell for cell in cells if cell[1] > cell[0]]
    if not width_s:
        return cells
    smooth = []
    for _, shot in itertools.groupby(cells, key=lambda cell: bisect.bisect_right(cuts_s, cell[0] + NEAR)):
        inside = list(shot)
        times = np.array([inside[0][0], *(cell[1] for cell in inside)])
        # A moving average is a difference of the integral, whose ends go on as they are.
        integral = np.concatenate([[0.0], np.cumsum([(end_s - start_s) * score for start_s, end_s, score in inside])])
        far = np.array([times[0] - width_s, *times, times[-1] + width_s])
        sums = np.array([-width_s * inside[0][2], *integral, integral[-1] + width_s * inside[-1][2]])
        for start_s, end_s, _ in inside:
            points = np.linspace(start_s, end_s, 33)
            moving = np.interp(points + width_s / 2, far, sums) - np.interp(points - width_s / 2, far, sums)
            smooth.append((start_s, end_s, float(np.clip(moving.mean() / width_s, 0, 1))))
    return smooth


def _candidates(cells: Sequence[Cell], cuts_s: Sequence[float], how: Selection) -> list[Segment]:
    """Stretches that reach the threshold, none longer than longest_s. Their score is their best moment's."""
    runs: list[list[Cell]] = []
    for cell in cells:
        if cell[2] < how.threshold:
            continue
        if runs and cell[0] - runs[-1][-1][1] < max(how.join_s, NEAR):
            runs[-1].append(cell)
        else:
            runs.append([cell])
    found: list[Segment] = []
    for run in runs:
        for part in _split_at_cuts(run, cuts_s):
            found += _shortened(part, how.longest_s)
    return found


def _split_at_cuts(run: Sequence[Cell], cuts_s: Sequence[float]) -> list[list[Cell]]:
    parts, rest = [], list(run)
    for cut_s in cuts_s:
        if cut_s - rest[0][0] >= SPLIT_S and rest[-1][1] - cut_s >= SPLIT_S:
            before = [cell for cell in rest if cell[0] < cut_s - NEAR]
            if len(before) < len(rest):  # else the last cell goes across the cut, and stays whole
                parts.append(before)
                rest = rest[len(before) :]
    return [*parts, rest]


def _shortened(run: Sequence[Cell], longest_s: float | None) -> list[Segment]:
    """The best part of at most longest_s, then the best of what is left on both sides, and so on."""
    starts, ends, scores = (np.array([cell[place] for cell in run]) for place in range(3))
    # What the scores add up to from the beginning to each border of a cell; between them it grows evenly.
    borders, sums = np.stack([starts, ends], 1).ravel(), np.cumsum((ends - starts) * scores)
    integral = np.stack([np.concatenate([[0.0], sums[:-1]]), sums], 1).ravel()
    found, left = [], [(run[0][0], run[-1][1])]
    while left:
        start_s, end_s = left.pop()
        first, last = np.searchsorted(ends, start_s + NEAR, "right"), np.searchsorted(starts, end_s - NEAR, "left")
        if end_s - start_s < NEAR or first >= last:
            continue
        if longest_s is None or end_s - start_s <= longest_s + NEAR:
            found.append(Segment(start_s, end_s, float(scores[first:last].max())))
            continue
        places = np.unique(np.clip(starts[first:last], start_s, end_s - longest_s))
        held = np.interp(places + longest_s, borders, integral) - np.interp(places, borders, integral)
        best_s = float(places[np.argmax(held >= held.max() - NEAR)])
        inside = (ends[first:last] > best_s) & (starts[first:last] < best_s + longest_s)
        found.append(Segment(best_s, best_s + longest_s, float(scores[first:last][inside].max())))
        left += [(start_s, best_s), (best_s + longest_s, end_s)]
    return found


def _with_borders(one: Segment, duration_s: float, cuts_s: Sequence[float], how: Selection) -> Segment:
    """Padded up to the nearest cut, then moved to a cut that is near."""
    start_s, end_s = max(0.0, one.start_s - how.padding_s), min(duration_s, one.end_s + how.padding_s)
    before = bisect.bisect_right(cuts_s, one.start_s + NEAR) - 1
    after = bisect.bisect_left(cuts_s, one.end_s - NEAR)
    if before >= 0:
        start_s = max(start_s, cuts_s[before])
    if after < len(cuts_s):
        end_s = min(end_s, cuts_s[after])
    start_s, end_s = (_snapped(second, cuts_s, how.snap_s) for second in (start_s, end_s))
    return replace(one, start_s=start_s, end_s=end_s) if end_s > start_s else one


def _snapped(second: float, cuts_s: Sequence[float], snap_s: float) -> float:
    near = min(cuts_s, key=lambda cut_s: abs(cut_s - second), default=second)
    return near if abs(near - second) <= snap_s else second


def _middle(one: Segment, length_s: float) -> Segment:
    start_s = one.start_s + (one.duration_s - length_s) / 2
    return replace(one, start_s=start_s, end_s=start_s + length_s)


def _gap_s(one: Segment, other: Segment) -> float:
    return max(one.start_s, other.start_s) - min(one.end_s, other.end_s)


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Segments that overlap as one; a reel would show the moment twice."""
    whole: list[Segment] = []
    for one in segments:
        if whole and _gap_s(whole[-1], one) < -NEAR:
            last = whole.pop()
            one = replace(last, end_s=max(last.end_s, one.end_s), score=max(last.score, one.score))
        whole.append(one)
    return whole
