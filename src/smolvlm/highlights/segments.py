"""The two things that finding and cutting hand each other: a stretch of a video, and a score over its time."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import VideoError


@dataclass(frozen=True)
class Segment:
    """A stretch of a video.

    start_s, end_s: seconds of the video's own clock, which starts at the first frame's time; the frame at end_s is not
    shown any more. score: how sure the model is, from 0 to 1. title: one line, empty where nobody asked for one.
    """

    start_s: float
    end_s: float
    score: float = 1.0
    title: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s:
            raise VideoError(
                f"A segment can't go from {self.start_s:g} s to {self.end_s:g} s: it starts at 0 or later, and ends "
                "after its start."
            )

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Curve:
    """A score over the time of a video: scores[i] holds from times_s[i] to the next time, the last to the end."""

    times_s: tuple[float, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.times_s) == len(self.scores), "a curve has one score for each time"
