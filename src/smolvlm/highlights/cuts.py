"""Which part of its source each segment of a reel really is, and where in the reel it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from ..errors import InputError
from .copying import Run
from .footage import Footage
from .segments import Segment

SNAP_S = 0.05  # a border moves to a frame's that is as near; in films of few frames a second it cuts into a frame


@dataclass(frozen=True)
class Cut:
    """A segment in the reel. start_s, end_s: the actual borders, in the source. reel_start_s: in the reel. Seconds."""

    segment: Segment
    start_s: float
    end_s: float
    reel_start_s: float

    @property
    def lead_s(self) -> float:
        """How much earlier it begins than it was asked to."""
        return max(0.0, self.segment.start_s - self.start_s)


def in_order(segments: Sequence[Segment], footage: Footage) -> list[Segment]:
    """Segments as a reel shows them. Raises InputError when there is none, two overlap, or one is not in the film."""
    ordered = sorted(segments, key=lambda one: one.start_s)
    if not ordered:
        raise InputError("There is no segment to make a reel of. Lower the threshold, or ask for another thing.")
    for before, after in zip(ordered, ordered[1:], strict=False):
        if after.start_s < before.end_s:
            raise InputError(
                f"The segments from {before.start_s:g} s to {before.end_s:g} s and from {after.start_s:g} s to "
                f"{after.end_s:g} s overlap. Join them."
            )
    if ordered[-1].start_s >= footage.end_s:
        raise InputError(
            f"The segment from {ordered[-1].start_s:g} s lies behind the end of {footage.name}, which is "
            f"{footage.end_s:.1f} s long. Leave it out."
        )
    return ordered


def encoded_cuts(footage: Footage, segments: Sequence[Segment]) -> tuple[Cut, ...]:
    """The asked borders, moved to the nearest frame's; at least one frame each."""
    cuts: list[Cut] = []
    reel_start_s = 0.0
    for one in segments:
        start_s = footage.border_near(one.start_s, SNAP_S)
        if start_s >= footage.end_s:
            start_s = footage.times_s[-1]
        end_s = min(footage.border_near(one.end_s, SNAP_S), footage.end_s)
        if end_s <= start_s:
            end_s = next((time for time in footage.times_s if time > start_s), footage.end_s)
        cuts.append(Cut(one, start_s, end_s, reel_start_s))
        reel_start_s += end_s - start_s
    return tuple(cuts)


def copied_cuts(runs: Sequence[Run], segments: Sequence[Segment]) -> tuple[Cut, ...]:
    """Each segment's part of its run: from its key frame, where that isn't in the one before yet, to the next one's."""
    cuts: list[Cut] = []
    left = iter(segments)
    reel_start_s = 0.0
    for run in runs:
        inside = list(islice(left, len(run.starts_s)))
        starts_s = [run.starts_s[0]]
        starts_s += [max(one.end_s, key_s) for one, key_s in zip(inside, run.starts_s[1:], strict=False)]
        for one, start_s, end_s in zip(inside, starts_s, [*starts_s[1:], run.end_s], strict=True):
            cuts.append(Cut(one, start_s, end_s, reel_start_s))
            reel_start_s += end_s - start_s
    return tuple(cuts)
