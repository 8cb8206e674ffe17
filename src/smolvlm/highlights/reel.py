"""Write a highlight reel: some segments of a video as a film of their own, with its sound.

The coded frames are copied where that is possible without long lead-ins (copying.py), else everything is encoded once
(encoding.py). The result says which of the two happened, and where each segment really begins and ends.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from ..errors import InputError, VideoError
from . import copying, encoding
from .cuts import Cut, copied_cuts, encoded_cuts, in_order
from .footage import Footage, survey
from .segments import Segment
from .writing import whole_file

SUFFIXES = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm"}  # and FFmpeg's names of these containers
MAX_LEAD_S = 2.0  # more than this of what nobody asked for before a segment, and the reel is rather encoded

Progress = Callable[[int, int], None]  # (frames written, frames in all)


@dataclass(frozen=True)
class Reel:
    """A reel that was written. encoded_because: why it was not copied; empty when it was. sound: there is a track."""

    path: Path
    copied: bool
    encoded_because: str
    cuts: tuple[Cut, ...]
    duration_s: float
    sound: bool

    def segments(self) -> tuple[Segment, ...]:
        """The segments with times of the reel instead of the source: for chapters that go with it."""
        return tuple(
            Segment(cut.reel_start_s, cut.reel_start_s + cut.end_s - cut.start_s, cut.segment.score, cut.segment.title)
            for cut in self.cuts
            if cut.end_s > cut.start_s
        )


def write_reel(
    video: Path,
    segments: Sequence[Segment],
    output: Path,
    *,
    copy: bool | None = None,
    on_progress: Progress | None = None,
) -> Reel:
    """Write the segments of a video, in the order of time, as one film.

    output: .mp4 or .mkv (H.264 and AAC when encoded) or .webm (VP9 and Opus); written under another name and renamed,
    so that there is either a whole reel or none. copy: True moves the coded frames, which is fast and loses nothing,
    but begins each segment at the key frame before it; False encodes, and each border is within a frame of what was
    asked; None copies where that is possible and no segment begins more than 2 s early. Sound is the first sound track;
    other tracks are left out.
    Raises InputError for segments or a name that can't be used, VideoError for a video that can't, or a full disk.
    """
    suffix = check_reel_name(video, output)
    footage = survey(video)
    wanted = in_order(segments, footage)
    because = "that was asked for" if copy is False else copying.obstacle(footage, suffix)
    if copy is True and because:
        raise InputError(
            f"{footage.name} can't be copied into a {suffix} reel: {because}. Let the reel be encoded, or choose "
            "another container."
        )
    runs = [] if because else copying.plan_runs(footage, wanted)
    cuts = copied_cuts(runs, wanted) if runs else encoded_cuts(footage, wanted)
    lead_s = max(cut.lead_s for cut in cuts)
    if runs and copy is None and lead_s > MAX_LEAD_S:
        because, runs = f"the key frame before a segment is {lead_s:.1f} s away", []
        cuts = encoded_cuts(footage, wanted)
    try:
        with whole_file(output) as part:
            _write(footage, suffix, runs, cuts, part, on_progress)
    except av.FFmpegError as error:
        raise VideoError(f"The reel {str(output)!r} can't be made: {error}. No half file was left.") from error
    duration_s = cuts[-1].reel_start_s + cuts[-1].end_s - cuts[-1].start_s
    return Reel(output, bool(runs), because, cuts, duration_s, bool(footage.sound_codec))


def _write(
    footage: Footage,
    suffix: str,
    runs: Sequence[copying.Run],
    cuts: Sequence[Cut],
    part: Path,
    on_progress: Progress | None,
) -> None:
    """Both tracks side by side, in the order of time, so that players need not jump and nothing piles up in memory."""
    total = _frames_in(footage, runs, cuts)
    done = 0

    def progress(frames: int) -> None:
        nonlocal done
        done += frames
        if on_progress is not None:
            on_progress(min(done, total), total)

    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    with av.open(f"file:{part.absolute()}", "w", format=SUFFIXES[suffix], options=options) as container:
        if runs:
            tracks = copying.copied_tracks(container, footage, runs, progress)
        else:
            tracks = encoding.encoded_tracks(container, footage, cuts, suffix, progress)
        for packet in heapq.merge(*tracks, key=_decode_second):
            container.mux(packet)


def check_reel_name(video: Path, output: Path) -> str:
    """The suffix of a reel. Raises InputError for a name that can be none."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"A reel can't be written as {output.suffix or 'a file without a suffix'}: name it {', '.join(SUFFIXES)}."
        )
    if output.is_dir():
        raise InputError(f"{str(output)!r} is a directory. Name a file in it, such as reel{suffix}.")
    if output.exists() and video.exists() and output.samefile(video):
        raise InputError(f"The reel would be written over its own source, {str(video)!r}. Give it another name.")
    return suffix


def _frames_in(footage: Footage, runs: Sequence[copying.Run], cuts: Sequence[Cut]) -> int:
    if runs:
        return sum(run.end - run.first for run in runs)
    times_s = footage.times_s
    return sum(bisect.bisect_left(times_s, cut.end_s) - bisect.bisect_left(times_s, cut.start_s) for cut in cuts)


def _decode_second(packet: Any) -> float:
    time = packet.dts if packet.dts is not None else packet.pts or 0
    return float(time * packet.time_base)
