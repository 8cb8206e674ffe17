"""Search in videos: the time ranges that answer to a question, best first. Each is looked at once, see index.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from ..vlm import VLM
from .look import LookOptions, Progress, as_index
from .score import question_for, score_windows
from .segments import Segment
from .select import Selection, select
from .windows import WINDOW_S, curve_of, cut_windows

IS_IT_THE_MOMENT = 'Is this the moment that is asked for: "{criteria}" Answer yes or no.'
ASKING_WORDS = ("when", "where", "who", "what", "which", "how", "why", "at")  # such a question isn't answered by yes
NEAR_BEST = 0.8  # of the best score, when nothing is likelier than not
TOP = 5


@dataclass(frozen=True)
class Hit:
    """A time range of one of the videos. number: which of them. label_mass: see Highlights."""

    number: int
    video: str
    segment: Segment
    label_mass: float


def search(
    vlm: VLM,
    videos: Sequence[Any],
    question: str,
    *,
    template: str | None = None,
    top: int = TOP,
    window_s: float = WINDOW_S,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
    **look: Unpack[LookOptions],
) -> list[Hit]:
    """Where in these videos the answer is, best first; at least the best place, however low its score.

    videos: as in find_highlights(). question: "when does ...", a question that yes answers, or what is looked for in
    words. template: asked of every window instead, with {criteria}. on_progress: told (windows judged, of all).
    """
    asked = question_for(question, template or _template(question))
    how = Selection(padding_s=0.0)
    indices = [as_index(vlm, video, **look) for video in videos]
    plans = [cut_windows(index.track, index.cuts, index.duration_s, window_s=window_s) for index in indices]
    before, total = 0, sum(map(len, plans))
    hits: list[Hit] = []
    for number, (index, windows) in enumerate(zip(indices, plans, strict=True)):

        def judged(done: int, _: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        scores = score_windows(vlm, index, windows, [asked], max_image_tokens=max_image_tokens, on_progress=judged)
        before += len(windows)
        curve = curve_of(windows, scores.yes)
        likely = min(how.threshold, NEAR_BEST * max(curve.scores))
        for segment in select(curve, index.duration_s, index.cuts_s, replace(how, threshold=likely)):
            hits.append(Hit(number, index.name, segment, scores.label_mass))
    return sorted(hits, key=lambda hit: -hit.segment.score)[:top]


def _template(question: str) -> str | None:
    """A question that begins with when or what can't be answered by yes: then the window is what is asked about."""
    words = question.lower().split()
    return IS_IT_THE_MOMENT if words and words[0] in ASKING_WORDS and question.strip().endswith("?") else None
