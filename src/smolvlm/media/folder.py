"""A folder of pictures as a video: its frames in the order of their names, and when they were taken.

Names are ordered as people count, so that frame10 comes after frame9. A file timestamps.txt among the pictures gives
the seconds of each, one a line.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, VideoError
from .source import shown
from .video import FrameList

TIMES = "timestamps.txt"
PICTURES = (".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


def is_folder(source: Any) -> bool:
    return isinstance(source, str | Path) and os.path.isdir(source)


def open_folder(folder: Path, *, fps: float | None = None, timestamps_s: Sequence[float] | None = None) -> FrameList:
    """A folder's pictures as a list of frames. fps, timestamps_s: when they were taken; one a second by default.

    Raises VideoError for a folder without pictures, InputError for times that can't be used.
    """
    pictures = pictures_in(folder)
    frames = FrameList(pictures, **times_of(folder, fps=fps, timestamps_s=timestamps_s))
    frames.name = shown(str(folder))
    return frames


def times_of(folder: Path, *, fps: float | None = None, timestamps_s: Sequence[float] | None = None) -> dict[str, Any]:
    """fps or timestamps_s of a list of frames, from the folder's own file where it has one."""
    given: dict[str, Any] = {"fps": fps, "timestamps_s": timestamps_s}
    given = {name: value for name, value in given.items() if value is not None}
    own = _listed_times(folder / TIMES)
    if own is not None and given:
        raise InputError(
            f"{shown(str(folder))} has times of its own in {TIMES}: say nothing else of when its frames were taken, or "
            "remove the file."
        )
    return given if own is None else {"timestamps_s": own}


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself, by their names. Raises VideoError when there is none."""
    names = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    pictures = [entry for entry in names if entry.suffix.lower() in PICTURES]
    if not pictures:
        videos = any(entry.suffix.lower() in _VIDEOS for entry in names)
        cure = "Name the videos in it one by one." if videos else f"Frames must end in {', '.join(PICTURES)}."
        raise VideoError(f"The folder {shown(str(folder))} holds no pictures. {cure}")
    return sorted(pictures, key=lambda entry: _in_order(entry.name))


def _listed_times(file: Path) -> list[float] | None:
    if not file.exists():
        return None
    times = []
    for line in file.read_text(encoding="utf-8", errors="replace").split():
        try:
            times.append(float(line))
        except ValueError:
            times.append(math.nan)
        if not math.isfinite(times[-1]):
            raise InputError(
                f"{shown(str(file))} holds {line[:40]!r} where seconds belong, one a line: mend or remove it."
            )
    return times


def _in_order(name: str) -> list[tuple[int, str]]:
    """Numbers by their value, all else by its letters."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)]
