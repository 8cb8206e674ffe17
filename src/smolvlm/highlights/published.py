"""The published highlight demo's own procedure, to be compared with: pieces of 10 s, judged by the text of an answer.

Kept as it is, with its weak points: every piece is decoded from the beginning of the video and encoded again before the
model sees it, each is asked about twice, with a list of moments each, "yes" anywhere in the answer counts, and what
comes out depends on chance; a seed makes it repeatable. Differences: PyAV in the place of the ffmpeg program, and a
video without a sound track works. Source: the SmolVLM2 highlight generator (Hugging Face Space), February 2025.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..media.video import open_video
from ..types import FramesSeen
from ..vlm import VLM
from .find import Highlights, versions
from .footage import HOURS, decoded, opened
from .look import Progress
from .propose import ASSISTANT, DESCRIBE, DESCRIBE_SYSTEM, DESCRIPTION_TOKENS, EDITOR, Proposal, list_moments
from .segments import Curve, Segment
from .select import Selection

PIECE_S = 10.0
JUDGE_SYSTEM = (
    "You are a video highlight analyzer. Your role is to identify moments that have high dramatic value, focusing on "
    "displays of skill, emotion, personality, or tension. Compare video segments against provided example highlights "
    "to find moments with similar emotional impact and visual interest, even if the specific actions differ."
)
JUDGE = (
    "Given these highlight examples:\n{criteria}\n\nDoes this video contain a moment that matches the core action of "
    "one of the highlights? Answer with:\n'yes' or 'no'\nIf yes, justify it"
)
TEMPERATURE, JUDGE_TOKENS = 0.7, 64
ULTRAFAST = {"preset": "ultrafast"}


def find_published(
    vlm: VLM,
    path: Path,
    *,
    criteria: str | None = None,
    question: str | None = None,
    system: str | None = JUDGE_SYSTEM,
    seed: int = 0,
    pieces: int | None = None,
    on_progress: Progress | None = None,
) -> Highlights:
    """Find highlights as the demo does. criteria: one list instead of the two that the model writes.

    question, system: instead of the demo's, with {criteria} in the question. pieces: judge only so many, evenly spread.
    """
    video = open_video(path, limits=HOURS)
    proposal, lists = None, [criteria] if criteria is not None else []
    if criteria is None:
        description = vlm.ask(
            DESCRIBE, videos=[path], system=DESCRIBE_SYSTEM, max_new_tokens=DESCRIPTION_TOKENS,
            temperature=TEMPERATURE, seed=seed,
        ).text.lower()  # fmt: skip
        lists = [
            list_moments(vlm, description, prompts, temperature=TEMPERATURE, seed=seed)
            for prompts in (EDITOR, ASSISTANT)
        ]
        proposal = Proposal(description, "\n\n".join(lists), 1.0, tuple(lists))
    questions = [(question or JUDGE).replace("{criteria}", one) for one in lists]
    starts = _starts(video.info.duration_s, pieces)
    kept: list[list[float]] = [[] for _ in lists]
    with tempfile.TemporaryDirectory(prefix="smolvlm-") as folder:
        for done, start_s in enumerate(starts, 1):
            piece = _cut_piece(path, video.info.fps, start_s, Path(folder) / "piece.mp4")
            for asked, own in zip(questions, kept, strict=True):
                answer = vlm.ask(asked, videos=[piece], system=system, max_new_tokens=JUDGE_TOKENS)
                own += [start_s] if "yes" in answer.text.lower() else []
            if on_progress is not None:
                on_progress(done, len(starts))
    chosen = _choose(kept, len(starts))
    duration_s = video.info.duration_s
    return Highlights(
        video=video.name.strip("'"),
        duration_s=duration_s,
        segments=tuple(Segment(start_s, min(start_s + PIECE_S, duration_s)) for start_s in kept[chosen]),
        curve=Curve(tuple(starts), tuple(float(start_s in kept[chosen]) for start_s in starts)),
        cuts_s=(),
        criteria=(lists[chosen],),
        questions=(questions[chosen],),
        system=system,
        proposal=proposal,
        label_mass=1.0,
        frames=FramesSeen(video.name.strip("'"), (), (), duration_s),
        selection=Selection(threshold=0.5, padding_s=0, snap_s=0, smooth_s=0, longest_s=None),
        model=vlm.name,
        dtype=vlm.dtype,
        versions=versions(),
        method="published",
        seed=seed,
    )


def _starts(duration_s: float, pieces: int | None) -> list[float]:
    count = max(1, int(-(-duration_s // PIECE_S)))
    every = list(range(count))
    if pieces is not None and pieces < count:
        every = sorted({round(place * (count - 1) / max(1, pieces - 1)) for place in range(pieces)})
    return [place * PIECE_S for place in every]


def _choose(kept: list[list[float]], pieces: int) -> int:
    """The demo's rule between its two lists: the second when 0 < p2 <= p1 or p1 is 0."""
    if len(kept) == 1:
        return 0
    first, second = (len(one) / pieces for one in kept)
    return 1 if 0 < second <= first or first == 0 else 0


def _cut_piece(path: Path, fps: float, start_s: float, target: Path) -> Path:
    """ffmpeg -i VIDEO -ss START -t 10 -c:v libx264 -preset ultrafast: decode from zero, encode 10 s."""
    rate = Fraction(fps).limit_denominator(1001)
    with opened(path, "video") as (container, stream), av.open(str(target), "w") as piece:
        coded: Any = piece.add_stream("libx264", rate=rate, options=ULTRAFAST)
        coded.width, coded.height, coded.pix_fmt = stream.width // 2 * 2, stream.height // 2 * 2, "yuv420p"
        first_s, number = None, 0
        for frame in decoded(container, stream):
            first_s = frame.time if first_s is None else first_s
            if frame.time - first_s >= start_s + PIECE_S:
                break
            if frame.time - first_s >= start_s:
                shown = frame.reformat(coded.width, coded.height, "yuv420p")
                shown.pts, shown.time_base = number, 1 / rate
                shown.pict_type = 0
                piece.mux(coded.encode(shown))
                number += 1
        piece.mux(coded.encode(None))
    return target
