"""Find the highlights of a video: what counts, how sure the model is over time, and what is kept of it.

The parts are index.py (see each frame once), windows.py, score.py and select.py; writing a reel is reel.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any, Literal, Unpack

from ..types import FramesSeen
from ..vlm import VLM
from .index import Index
from .look import LookOptions, Progress, as_index
from .propose import Proposal, propose_criteria
from .score import question_for, score_windows
from .segments import Curve, Segment
from .select import Selection, select
from .windows import WINDOW_S, curve_of, cut_windows

VERSIONS = ("smolvlm", "av", "numpy", "pillow")  # what segments can depend on


@dataclass(frozen=True)
class Highlights:
    """What was found, and everything it rests on.

    segments: in the order of the video. curve: the score over time. cuts_s: where shots begin; those that are a border
    of a segment to the frame. criteria: what counted; questions: what was asked about each window, prompts with it.
    proposal: where the criteria came from, None when the caller gave them. label_mass: how much of the probability lay
    on yes and no; a low one says that the model doesn't know the question, and the scores mean little. frames: that the
    model could be shown. method: "windows" or "published".
    """

    video: str
    duration_s: float
    segments: tuple[Segment, ...]
    curve: Curve
    cuts_s: tuple[float, ...]
    criteria: tuple[str, ...]
    questions: tuple[str, ...]
    system: str | None
    proposal: Proposal | None
    label_mass: float
    frames: FramesSeen
    selection: Selection
    model: str
    dtype: str
    versions: Mapping[str, str]
    method: Literal["windows", "published"] = "windows"
    seed: int | None = None

    def facts(self) -> dict[str, Any]:
        """All of it but the segments and the curve, as JSON can hold it."""
        facts = asdict(replace(self, segments=(), curve=Curve((), ())))
        del facts["segments"], facts["curve"]
        facts["prompts"] = {"system": facts.pop("system"), "questions": facts.pop("questions")}
        facts["frames_seen"] = facts.pop("frames")
        return facts


def find_highlights(
    vlm: VLM,
    video: Any,
    *,
    criteria: str | Sequence[str] | None = None,
    question: str | None = None,
    system: str | None = None,
    selection: Selection | None = None,
    window_s: float = WINDOW_S,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
    **look: Unpack[LookOptions],
) -> Highlights:
    """Find what is worth showing in a video of any length.

    video: path, URL, bytes, a folder of pictures, a list of frames, or an index of one. criteria: what counts, in words
    or as a question; of several one is enough; None lets the model propose them, see propose.py. question: instead of
    the template of score.py, with {criteria} in it. selection: how much is kept. max_image_tokens: most of them for one
    window. on_progress: told (windows judged, of all). look: see LookOptions.
    Raises VideoError, FetchError, InputError.
    """
    selection = selection or Selection()
    index = as_index(vlm, video, **look)
    proposal = None
    if criteria is None:
        proposal = propose_criteria(vlm, index, max_image_tokens=max_image_tokens)
        criteria = proposal.criteria
    wanted = (criteria,) if isinstance(criteria, str) else tuple(criteria)
    questions = tuple(question_for(criterion, question) for criterion in wanted)
    windows = cut_windows(index.track, index.cuts, index.duration_s, window_s=window_s)
    scores = score_windows(
        vlm, index, windows, questions, system=system, max_image_tokens=max_image_tokens, on_progress=on_progress
    )
    curve = curve_of(windows, scores.yes)
    segments = select(curve, index.duration_s, index.cuts_s, selection)
    exact = _exact_cuts(index, segments)
    return Highlights(
        video=index.name,
        duration_s=index.duration_s,
        segments=tuple(_moved(segment, exact) for segment in segments),
        curve=Curve(tuple(exact.get(second, second) for second in curve.times_s), curve.scores),
        cuts_s=tuple(exact.get(second, second) for second in index.cuts_s),
        criteria=wanted,
        questions=questions,
        system=system,
        proposal=proposal,
        label_mass=scores.label_mass,
        frames=index.seen(),
        selection=selection,
        model=vlm.name,
        dtype=vlm.dtype,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONS}


def _exact_cuts(index: Index, segments: Sequence[Segment]) -> dict[float, float]:
    """Where the cuts really are at which a segment begins or ends; only these, since frames are decoded for it."""
    borders = {border for segment in segments for border in (segment.start_s, segment.end_s)}
    places = zip(index.cuts_s, index.cuts, strict=True)
    return {cut_s: index.exact_cut_s(place) for cut_s, place in places if cut_s in borders}


def _moved(segment: Segment, exact: Mapping[float, float]) -> Segment:
    start_s, end_s = (exact.get(border, border) for border in (segment.start_s, segment.end_s))
    return replace(segment, start_s=start_s, end_s=end_s) if end_s > start_s else segment
