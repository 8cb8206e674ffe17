"""Cut a video into chapters, each with a title: shots that look alike belong together, borders lie at cuts.

Alike is what the vision tower says: the mean of the features of a stretch, compared with that of the next. The two most
alike neighbours become one until every chapter is long enough, and no two neighbours are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from ..errors import InputError
from ..vlm import VLM
from .describe import WHAT_HAPPENS, title_of_stretch
from .index import Index
from .look import LookOptions, Progress, as_index
from .segments import Segment
from .windows import spans

SHORTEST_S, MOST = 10.0, 20  # of a chapter; of chapters, unless they are asked to be shorter
LONGEST_S = 30.0  # of the stretches that are joined
ALIKE = 0.8  # cosine of two neighbours' features, each without the mean of the video


@dataclass(frozen=True)
class _Stretch:
    """total: sum of its frames' features."""

    start_s: float
    end_s: float
    total: np.ndarray

    def __add__(self, later: _Stretch) -> _Stretch:
        return _Stretch(self.start_s, later.end_s, self.total + later.total)


def find_chapters(
    vlm: VLM,
    video: Any,
    *,
    shortest_s: float | None = None,
    question: str = WHAT_HAPPENS,
    system: str | None = None,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
    **look: Unpack[LookOptions],
) -> list[Segment]:
    """The chapters of a video, from its beginning to its end, without gaps.

    video: path, URL, bytes, a list of frames, or an index of one. shortest_s: of a chapter, by default 10 s or a
    twentieth of the video. question: whose answer becomes the title.
    """
    index = as_index(vlm, video, **look)
    if shortest_s is None:
        shortest_s = max(SHORTEST_S, index.duration_s / MOST)
    if not shortest_s > 0:
        raise InputError(f"shortest_s={shortest_s!r} can't be used: it must be above 0 seconds.")
    stretches = _joined(_stretches(index, shortest_s), shortest_s)
    chapters = []
    for done, one in enumerate(stretches, 1):
        title = title_of_stretch(
            vlm, index, one.start_s, one.end_s, question=question, system=system, max_image_tokens=max_image_tokens
        )
        chapters.append(Segment(one.start_s, one.end_s, title=title))
        if on_progress is not None:
            on_progress(done, len(stretches))
    return chapters


def _stretches(index: Index, shortest_s: float) -> list[_Stretch]:
    features = index.means()
    features = features - features.mean(axis=0)
    longest_s = max(LONGEST_S, shortest_s)
    found = []
    for start_s, end_s in spans(index.track, index.cuts, index.duration_s, shortest_s=0.0, longest_s=longest_s):
        places = index.choose(start_s, end_s)
        found.append(_Stretch(start_s, end_s, features[places].sum(axis=0)))
    return found


def _joined(stretches: Sequence[_Stretch], shortest_s: float) -> list[_Stretch]:
    """Neighbours become one: first the most alike of those that are too short, then all that are alike."""
    left = list(stretches)
    alike = [_alike(one, other) for one, other in itertools.pairwise(left)]
    while len(left) > 1:
        short = [one.end_s - one.start_s < shortest_s - 1e-6 for one in left]
        pairs = range(len(left) - 1)
        open_to = [place for place in pairs if short[place] or short[place + 1]] or list(pairs)
        best = max(open_to, key=alike.__getitem__)
        if not any(short) and alike[best] < ALIKE:
            break
        left[best : best + 2] = [left[best] + left[best + 1]]
        around = left[max(0, best - 1) : best + 2]
        alike[max(0, best - 1) : best + 2] = [_alike(one, other) for one, other in itertools.pairwise(around)]
    return left


def _alike(one: _Stretch, other: _Stretch) -> float:
    norms = float(np.linalg.norm(one.total) * np.linalg.norm(other.total))
    return float(one.total @ other.total) / norms if norms > 1e-9 else 1.0
