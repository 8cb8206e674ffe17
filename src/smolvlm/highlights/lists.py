"""Segments as other programs read them: WebVTT and YouTube chapters, an XSPF playlist for VLC, a CMX3600 edit list.

Pure functions from segments to text; what is written where is the caller's business, and the JSON record of a result
is record.py's. Times are seconds of the video that the list is for: pass segments with the reel's times for the reel.

Sources: W3C WebVTT; YouTube help, "Video chapters"; xspf.org version 1 and VLC's extension of it (modules/demux/
playlist/xspf.c); the CMX 3600 edit decision list as SMPTE 258M describes it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from ..errors import InputError
from .segments import Segment

YOUTUBE_SHORTEST_S = 10.0
MOST_EDITS = 999  # an event's number has three digits
LONGEST_TITLE = 70  # letters
MOST_FRAMES_A_SECOND = 60  # a timecode has two digits for frames, and editors know rates up to this


def webvtt(segments: Sequence[Segment]) -> str:
    """Chapters as a WebVTT file, which <track kind="chapters"> and most players read."""
    cues = [
        f"{number}\n{clock(one.start_s)} --> {clock(one.end_s)}\n{escape(title_of(one, number))}\n"
        for number, one in enumerate(segments, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def youtube_chapters(segments: Sequence[Segment]) -> str:
    """Chapters as the lines of a description on YouTube.

    The first is at 0:00 (added when none starts there), and one that starts less than 10 s after the one before is
    left out: YouTube takes no chapters at all otherwise. It also wants three of them; that is the caller's business.
    """
    lines = [] if segments and segments[0].start_s < 1 else ["0:00 Start"]
    last_s = -math.inf if not lines else 0.0
    hours = bool(segments) and segments[-1].start_s >= 3600
    for number, one in enumerate(segments, 1):
        start_s = math.floor(one.start_s)
        if start_s - last_s >= YOUTUBE_SHORTEST_S:
            minutes, seconds = divmod(start_s, 60)
            shown = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
            lines.append(f"{shown} {title_of(one, number)}")
            last_s = start_s
    return "\n".join(lines) + "\n"


def xspf(segments: Sequence[Segment], location: str, title: str) -> str:
    """A playlist for VLC that plays the segments out of the whole video, without a reel.

    location: the video's address as relative_uri() gives it. Other players play the whole video once per segment.
    """
    tracks = "".join(
        f"""    <track>
      <location>{escape(location)}</location>
      <title>{escape(title_of(one, number))}</title>
      <duration>{round(one.duration_s * 1000)}</duration>
      <extension application="http://www.videolan.org/vlc/playlist/0">
        <vlc:id>{number - 1}</vlc:id>
        <vlc:option>start-time={one.start_s:.3f}</vlc:option>
        <vlc:option>stop-time={one.end_s:.3f}</vlc:option>
      </extension>
    </track>
"""
        for number, one in enumerate(segments, 1)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<playlist version="1" xmlns="http://xspf.org/ns/0/" xmlns:vlc="http://www.videolan.org/vlc/playlist/ns/0/">
  <title>{escape(one_line(title))}</title>
  <trackList>
{tracks}  </trackList>
</playlist>
"""


def edl(segments: Sequence[Segment], clip: str, title: str, *, fps: float, sound: bool) -> str:
    """An edit list that a video editor rebuilds the reel with. clip: the source's file name. fps: the source's.

    Timecodes count the source's frames at the nearest whole rate, without drop frames; rates over 60 are halved until
    they fit. Raises InputError for more than 999 segments.
    """
    if len(segments) > MOST_EDITS:
        raise InputError(
            f"An edit list holds {MOST_EDITS} edits at most, and these are {len(segments):,} segments. Ask for fewer, "
            "by a higher threshold or by their number."
        )
    while fps > MOST_FRAMES_A_SECOND + 0.5:
        fps /= 2
    nominal = max(1, round(fps))
    lines = [f"TITLE: {one_line(title)[:LONGEST_TITLE]}", "FCM: NON-DROP FRAME", ""]
    position = 0
    for number, one in enumerate(segments, 1):
        start = round(one.start_s * fps)
        length = max(1, round(one.end_s * fps) - start)
        codes = (start, start + length, position, position + length)
        tracks = "B" if sound else "V"
        lines.append(
            f"{number:03}  AX       {tracks}     C        " + " ".join(timecode(one, nominal) for one in codes)
        )
        lines += [f"* FROM CLIP NAME: {one_line(clip)}", f"* COMMENT: {title_of(one, number)}", ""]
        position += length
    return "\n".join(lines)


def relative_uri(file: Path, folder: Path) -> str:
    """How a list in `folder` names `file`: relative, so that both can move together; else as an absolute file URI."""
    try:
        return quote(Path(os.path.relpath(file.absolute(), folder.absolute())).as_posix())
    except ValueError:  # on another drive of Windows
        return file.absolute().as_uri()


def clock(seconds: float) -> str:
    """Seconds as WebVTT writes them: 01:02:03.450."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def short_clock(seconds: float) -> str:
    """Seconds as people read them: 1:05.3 or 1:02:03."""
    if seconds >= 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths // 10:02}.{tenths % 10}"


def timecode(frames: int, rate: int) -> str:
    seconds, frame = divmod(frames, rate)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{frame:02}"


def title_of(segment: Segment, number: int) -> str:
    return one_line(segment.title) or f"Highlight {number}"


def one_line(text: str) -> str:
    """A text that comes from a model as one line, without the control characters that no format here may hold."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
