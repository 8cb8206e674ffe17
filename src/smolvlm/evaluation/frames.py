"""Which frames of a video a benchmark shows, and how they are made ready. What is written about them is left to
video_wrapper.py, decoding to media.video.

Three rules: VLMEvalKit's for most sets (e8e78f0, dataset/video_base.py), its MVBench's (dataset/mvbench.py), and that
of the family's own demonstration, which CinePile was measured with.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import VideoError
from ..media.folder import open_folder
from ..media.image import open_image
from ..media.video import Video, open_video
from ..types import VideoInfo
from .task import Protocol

Rule = Literal["even", "segments", "steps"]
State = tuple[int, int]
FOLDER_FPS = 3.0  # of MVBench's folders of frames, which are numbered from 1


@dataclass(frozen=True)
class Choice:
    """Frames chosen from a video. numbers: from 0, ascending; one may come twice. fps: of the video."""

    numbers: tuple[int, ...]
    fps: float

    def thinned(self, most: int) -> list[int]:
        """Places in `numbers` that are kept when there are more than `most`: evenly spread, first and last included."""
        count = len(self.numbers)
        return np.linspace(0, count - 1, most, dtype=int).tolist() if count > most else list(range(count))


@dataclass(frozen=True)
class Shown:
    """Frames as they are shown. pictures: JPEG files or pictures. places: in the list that they were chosen from."""

    pictures: tuple[bytes | Image.Image, ...]
    places: tuple[int, ...]
    seconds: tuple[float, ...]


def choose(path: Path, protocol: Protocol, rule: Rule = "even", bound: tuple[float, float] | None = None) -> Choice:
    """Choose frames of a file or a folder of frames by protocol.fps, or protocol.frames of them when that is None.

    rule: "even" is VLMEvalKit's, "segments" its MVBench's, "steps" the family's demonstration's. bound: start and end
    of the part that matters, in seconds; of "segments" alone.
    Raises VideoError when the video can't be opened or ends before its bound starts.
    """
    return _choose(path, _state(path), protocol, rule, bound)


@lru_cache(maxsize=8)
def _choose(path: Path, _: State, protocol: Protocol, rule: Rule, bound: tuple[float, float] | None) -> Choice:
    info = open_clip(path).info
    if rule == "steps":
        numbers = steps(info, protocol.fps, protocol.frames)
    elif rule == "segments":
        first = 1 if path.is_dir() else 0
        numbers = [number - first for number in segments(info, protocol.fps, protocol.frames, bound, first)]
        if not numbers:
            raise VideoError(f"{path} is {info.duration_s:.1f} s long; its question is on {bound} s. Get it again.")
    else:
        numbers = at_rate(info, protocol.fps) if protocol.fps else even(info.num_frames, protocol.frames)
    return Choice(tuple(numbers), info.fps)


def show(path: Path, protocol: Protocol, rule: Rule = "even", bound: tuple[float, float] | None = None) -> Shown:
    """Decode the chosen frames, at most protocol.frames of them, and make each ready as the protocol does.

    Frames that a damaged video lacks are left out, with a warning. Raises VideoError as choose does.
    """
    return _show(path, _state(path), protocol, rule, bound)


@lru_cache(maxsize=2)  # the questions on one video follow one another
def _show(path: Path, _: State, protocol: Protocol, rule: Rule, bound: tuple[float, float] | None) -> Shown:
    choice = choose(path, protocol, rule, bound)
    places = choice.thinned(protocol.frames)
    ready, seconds = {}, {}
    for frame in open_clip(path).frames([choice.numbers[place] for place in places]):
        ready[frame.number] = make_ready(frame.image, protocol, rule)
        seconds[frame.number] = frame.timestamp_s
    places = [place for place in places if choice.numbers[place] in ready]
    numbers = [choice.numbers[place] for place in places]
    return Shown(tuple(ready[n] for n in numbers), tuple(places), tuple(seconds[n] for n in numbers))


def open_clip(path: Path) -> Video:
    """A video file, or a folder of frames in the order of their names."""
    return open_folder(path, fps=FOLDER_FPS) if path.is_dir() else open_video(path)


def _state(path: Path) -> State:
    """Bytes and time of writing: another video may come in the place of one that was remembered."""
    try:
        found = [file.stat() for file in (path, *(path.iterdir() if path.is_dir() else ()))]
    except OSError:  # whoever opens it says what is wrong
        return (0, 0)
    return (sum(one.st_size for one in found), max(one.st_mtime_ns for one in found))


# ---- rules ----------------------------------------------------------------------------------------------------------


def even(count: int, frames: int) -> list[int]:
    """Evenly spread with a gap at either end; of a short video some come twice."""
    step = count / (frames + 1)
    return [int(number * step) for number in range(1, frames + 1)]


def at_rate(info: VideoInfo, fps: float) -> list[int]:
    """So many a second from the first frame on; one of a video that is too short for any, where the harness fails."""
    step = info.fps / fps
    return [int(number * step) for number in range(int(info.num_frames / info.fps * fps))] or [0]


def segments(
    info: VideoInfo, fps: float | None, frames: int, bound: tuple[float, float] | None, first: int
) -> list[int]:
    """The middles of equal segments between the bounds; so many a second when fps is given, from the start bound on.

    first: the number of the first frame. The harness has fps for cut clips alone; between bounds it is ours.
    Empty when nothing of the video is between the bounds.
    """
    start, end = first, first + info.num_frames - 1
    if bound is not None:
        start, end = max(start, round(bound[0] * info.fps)), min(end, round(bound[1] * info.fps))
    if start > end:
        return []
    if fps is not None:
        part = VideoInfo(0.0, info.fps, end - start + 1, info.width, info.height)
        return [start + number for number in at_rate(part, fps)]
    size = (end - start) / frames
    return [int(start + size / 2 + round(size * number)) for number in range(frames)]


def steps(info: VideoInfo, fps: float | None, frames: int) -> list[int]:
    """Every so many-th frame, the rate rounded down; thinned evenly, also when fps is None."""
    step = max(int(info.fps / fps), 1) if fps else 1
    return list(range(0, info.num_frames, step))


# ---- pixels ---------------------------------------------------------------------------------------------------------


def make_ready(image: Image.Image, protocol: Protocol, rule: Rule) -> bytes | Image.Image:
    """A frame as the protocol's wrapper hands it to the image processor, or small enough to be kept for a chat."""
    if rule == "steps":
        return centre_square(image, protocol.frame_side)
    if protocol.wrapper == "smolvlm":
        return as_saved(image)
    if protocol.wrapper == "smolvlm2":
        return fit_longest_edge(open_image(as_saved(image)), protocol.frame_side)
    return fit_longest_edge(image, protocol.frame_side) if max(image.size) > protocol.frame_side else image


def as_saved(image: Image.Image) -> bytes:
    """A frame as VLMEvalKit keeps it on disk before it shows it: a JPEG of Pillow's quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def fit_longest_edge(image: Image.Image, side: int) -> Image.Image:
    """The first resize of transformers' image processor: the long side to `side`, the short one even, upwards.

    Its second one, to a square tile, is what detail="low" does; the two give its pixels for do_image_splitting=False.
    """
    width, height = image.size
    if width >= height:
        size = side, _even(int(side / (width / height)))
    else:
        size = _even(int(side * (width / height))), side
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The short edge to `side`, then the middle square: the frame resizing that the demonstration does itself."""
    width, height = image.size
    if width < height:
        size = side, int(height * (side / width))
    else:
        size = int(width * (side / height)), side
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + side, top + side))


def _even(side: int) -> int:
    return max(side + side % 2, 1)
