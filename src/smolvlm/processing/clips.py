"""What a caller means by `videos` and `video_metadata`: any nesting -> opened videos and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media.pixels import as_array, is_array
from ..media.video import Video, open_video
from ..types import FramesSeen

_REFERENCE_FPS = 24.0  # what the reference takes for frames without times
_KNOWN = ("total_num_frames", "fps", "width", "height", "duration", "frames_indices", "video_backend")


@dataclass(frozen=True)
class VideoMetadata:
    """What is known of a video and of the frames taken from it, under the reference's names.

    fps, duration: of the whole video, None when unknown. timestamps: seconds of the frames in frames_indices.
    """

    total_num_frames: int
    fps: float | None
    width: int
    height: int
    duration: float | None
    frames_indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    source: str = "the video"

    def seen(self) -> FramesSeen:
        """The same as answers report it."""
        duration_s = self.duration if self.duration is not None else self.timestamps[-1]
        return FramesSeen(self.source, self.frames_indices, self.timestamps, duration_s)


@dataclass(frozen=True)
class Clip:
    """One video of a call. listed: its frames came as a list or array. timed: their times are known. unit: they are
    fractions of 1. known: the caller's metadata."""

    video: Video
    listed: bool
    timed: bool
    unit: bool
    known: Mapping[str, Any]

    def describe(self, numbers: tuple[int, ...]) -> VideoMetadata:
        """Metadata with the frames that were taken."""
        info = self.video.info
        times = tuple(self.video.timestamp_s(number) for number in numbers)
        if not self.listed:
            return VideoMetadata(
                info.num_frames, info.fps, info.width, info.height, info.duration_s, numbers, times, self.video.name
            )
        indices = self.known.get("frames_indices")
        return VideoMetadata(
            total_num_frames=int(self.known.get("total_num_frames") or info.num_frames),
            fps=self.known.get("fps"),
            width=info.width,
            height=info.height,
            duration=self.known.get("duration"),
            frames_indices=numbers if indices is None else tuple(int(indices[number]) for number in numbers),
            timestamps=times,
            source=self.video.name,
        )


def open_clips(videos: Any, metadata: Any, *, quirks: bool, allow_url: bool) -> list[Clip]:
    """Open every video of a call. metadata: None, or one mapping (or VideoMetadata) a video, nested or not."""
    sources = nest_videos(videos)
    known = _flat_metadata(metadata) or [{}] * len(sources)
    if len(known) != len(sources):
        raise InputError(f"There are {len(sources)} videos but {len(known)} video_metadata: give one for each video.")
    return [_open(source, one, quirks, allow_url) for source, one in zip(sources, known, strict=True)]


def nest_videos(videos: Any) -> list[Any]:
    """One video or a batch -> a list of videos, each a file, a list of frames, or a 4-D array.

    Texts are files of videos, also one list deeper (a list a conversation); texts three lists deep are frames.
    """
    if is_array(videos):
        return list(videos) if videos.ndim == 5 else [videos if videos.ndim == 4 else videos[None]]
    if isinstance(videos, Image.Image):
        return [[videos]]
    if not isinstance(videos, list | tuple):
        return [videos]
    if not videos:
        raise InputError("The list of videos is empty: give at least one video.")
    if all(isinstance(one, Image.Image) or (is_array(one) and one.ndim == 3) for one in videos):
        return [list(videos)]
    if _depth_of_text(videos) == 3:
        return [list(frames) for sample in videos for frames in sample]
    found: list[Any] = []
    for one in videos:
        found += nest_videos(one)
    return found


def _depth_of_text(videos: Any) -> int:
    depth = 0
    while isinstance(videos, list | tuple) and videos:
        videos, depth = videos[0], depth + 1
    return depth if isinstance(videos, str | Path) else 0


def _open(source: Any, known: Mapping[str, Any], quirks: bool, allow_url: bool) -> Clip:
    listed = isinstance(source, list | tuple) or is_array(source)
    if not listed:
        return Clip(open_video(source, allow_url=allow_url), listed=False, timed=True, unit=False, known=known)
    fps, indices = known.get("fps"), known.get("frames_indices")
    if fps is None and quirks:
        fps = _REFERENCE_FPS
    if fps is not None and indices is not None:
        times = [index / fps for index in indices]
        video = open_video(source, timestamps_s=times, allow_url=allow_url)
    else:
        video = open_video(source, fps=fps, allow_url=allow_url)
    return Clip(video, listed=True, timed=known.get("fps") is not None, unit=_is_unit(source), known=known)


def _is_unit(source: Any) -> bool:
    """Whether frames are arrays of fractions of 1."""
    frames = source if is_array(source) else source[0]
    return is_array(frames) and as_array(frames).dtype.kind == "f" and float(np.max(as_array(frames))) <= 1


def _flat_metadata(metadata: Any) -> list[Mapping[str, Any]]:
    if metadata is None:
        return []
    if isinstance(metadata, list | tuple):
        return [one for entry in metadata for one in (_flat_metadata(entry) or [{}])]
    fields = dict(metadata) if hasattr(metadata, "keys") else dict(vars(metadata))
    unknown = [name for name in fields if name not in (*_KNOWN, "timestamps", "source")]
    if unknown:
        raise InputError(f"video_metadata has no entry {unknown[0]!r}. It has: {', '.join(_KNOWN)}.")
    return [fields]
