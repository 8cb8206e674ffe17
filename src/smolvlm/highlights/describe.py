"""A video of any length in words: a timed log of what happens, and answers to questions about the whole of it.

A model can be shown some dozens of frames at once. A longer video is described stretch by stretch, each with the words
for the one before it, and a question about the whole is answered over this log; a log that is longer than the model's
context is summed up, two lines to one, until it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from ..types import Answer, SamplingParams
from ..vlm import VLM
from ..vlm.requests import AskOptions
from .index import Index
from .lists import one_line, short_clock
from .look import LookOptions, Progress, as_index
from .score import most_frames
from .segments import Segment
from .windows import spans

WHAT_HAPPENS = "What happens in the video?"
CARRIED = "Before this: {before}\n\n{question}"
OVER_LOG = "This is a log of a video of {duration}:\n\n{log}\n\n{question}"
SUM_UP = "Sum up in one sentence:\n\n{log}"
LINE_TOKENS, TITLE_CHARACTERS = 64, 80
SHORTEST_S, LONGEST_S = 3.0, 16.0  # of the stretch of one line


@dataclass(frozen=True)
class LongAnswer:
    """log: what the answer rests on, a line for every stretch; empty when the video was short enough to be shown."""

    answer: Answer
    log: tuple[Segment, ...]


def describe(
    vlm: VLM,
    video: Any,
    *,
    question: str = WHAT_HAPPENS,
    system: str | None = None,
    carry: bool = False,
    longest_s: float = LONGEST_S,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
    **look: Unpack[LookOptions],
) -> Iterator[Segment]:
    """One line for every stretch of a video, as soon as it is written; the line is the title of the segment.

    video: path, URL, bytes, a list of frames, or an index of one. carry: each stretch is shown with the line for the
    one before.
    """
    index = as_index(vlm, video, **look)
    stretches = spans(index.track, index.cuts, index.duration_s, shortest_s=SHORTEST_S, longest_s=longest_s)
    before = ""
    for done, (start_s, end_s) in enumerate(stretches, 1):
        asked = CARRIED.format(before=before, question=question) if carry and before else question
        shown = index.features(vlm, index.choose(start_s, end_s, most_frames(vlm, max_image_tokens)))
        before = one_line(vlm.ask(asked, features=shown, system=system, max_new_tokens=LINE_TOKENS).text)
        yield Segment(start_s, end_s, title=before)
        if on_progress is not None:
            on_progress(done, len(stretches))


def ask_long(
    vlm: VLM,
    video: Any,
    question: str,
    *,
    system: str | None = None,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
    answer: AskOptions | None = None,
    **look: Unpack[LookOptions],
) -> LongAnswer:
    """Answer a question about a whole video, of hours if need be.

    video: path, URL, bytes, a list of frames, or an index of one. answer: how the answer is chosen, as in VLM.ask.
    """
    index = as_index(vlm, video, **look)
    chosen: AskOptions = {**(answer or {}), "system": system}
    if len(index.encoded) <= most_frames(vlm, max_image_tokens):
        whole: AskOptions = {**chosen, "features": index.features(vlm, index.choose(0.0, index.duration_s + 1))}
        return LongAnswer(vlm.ask(question, **whole), ())
    log = tuple(describe(vlm, index, carry=True, max_image_tokens=max_image_tokens, on_progress=on_progress))
    lines = list(log)
    room = chosen.get("max_new_tokens", SamplingParams().max_new_tokens)
    while vlm.tokens(_over(lines, index, question), system=system).left < room and len(lines) > 1:
        lines = _summed_up(vlm, lines)
    return LongAnswer(vlm.ask(_over(lines, index, question), **chosen), log)


def title_of_stretch(
    vlm: VLM,
    index: Index,
    start_s: float,
    end_s: float,
    *,
    question: str = WHAT_HAPPENS,
    system: str | None = None,
    max_image_tokens: int | None = None,
) -> str:
    """The first sentence of the answer about a stretch, short enough for a list."""
    shown = index.features(vlm, index.choose(start_s, end_s, most_frames(vlm, max_image_tokens)))
    text = one_line(vlm.ask(question, features=shown, system=system, max_new_tokens=LINE_TOKENS).text)
    title = text.split(". ")[0].rstrip(".")
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 3].rsplit(" ", 1)[0] + "..."


def titled(vlm: VLM, index: Index, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The same segments, each with a title."""
    return tuple(replace(one, title=title_of_stretch(vlm, index, one.start_s, one.end_s)) for one in segments)


def as_text(log: Sequence[Segment]) -> str:
    """A log as people read it, and the model too."""
    return "\n".join(f"{short_clock(line.start_s)}-{short_clock(line.end_s)} {line.title}" for line in log)


def _over(lines: Sequence[Segment], index: Index, question: str) -> str:
    return OVER_LOG.format(duration=short_clock(index.duration_s), log=as_text(lines), question=question)


def _summed_up(vlm: VLM, lines: Sequence[Segment]) -> list[Segment]:
    """Two lines as one."""
    shorter = []
    for place in range(0, len(lines), 2):
        pair = lines[place : place + 2]
        text = pair[0].title
        if len(pair) == 2:
            text = one_line(vlm.ask(SUM_UP.format(log=as_text(pair)), max_new_tokens=LINE_TOKENS).text)
        shorter.append(replace(pair[0], end_s=pair[-1].end_s, title=text))
    return shorter
