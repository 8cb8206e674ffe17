"""The door for videos: a file, its bytes, an animation or a list of frames -> chosen frames with their seconds.

A video is never in memory as a whole: frames come one by one, as they are decoded. Files are read by container.py
(PyAV), moving GIF and WebP pictures by animation.py (Pillow). Which frames to choose is processing/video.py's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from ..errors import ImageError, InputError, VideoError
from ..types import VideoInfo
from .image import ImageLimits, measure_image, open_image
from .pixels import as_array, is_array
from .source import Source, locate

FRAMES_PER_SECOND = 1.0  # of a list of frames that comes without times


@dataclass(frozen=True)
class VideoLimits:
    """The most a video may ask for. max_pixels: of one frame. decode_s: seconds of work on reading frames once."""

    max_seconds: float = 6 * 3600.0
    max_pixels: int = 36_000_000
    max_streams: int = 64
    max_frames: int = 2_000_000
    max_bytes: int = 256_000_000
    timeout_s: float = 60.0
    decode_s: float = 1800.0


class Frame(NamedTuple):
    """One frame, upright and RGB. number: its place in the video, from 0, in the order of showing."""

    number: int
    timestamp_s: float
    image: Image.Image


class Video(Protocol):
    """An opened video. sampled: its frames were chosen by the caller already. name: how messages call it."""

    name: str
    sampled: bool

    @property
    def info(self) -> VideoInfo: ...

    def timestamp_s(self, index: int) -> float:
        """When frame `index` is shown, in seconds from the start."""

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames of these numbers, ascending, each decoded when asked for. Warns when some can't be had."""


def open_video(
    source: Any,
    *,
    fps: float | None = None,
    timestamps_s: Sequence[float] | None = None,
    allow_url: bool = False,
    limits: VideoLimits | None = None,
    frame_limits: ImageLimits | None = None,
) -> Video:
    """Open a video: look at its container and first frame, decode no more than that.

    source: path, URL, data URI, base64, bytes or Source of a video file or a moving GIF or WebP; or a list of frames
    (PIL, arrays, paths), or an array (frames, height, width, 3) or (frames, 3, height, width). fps, timestamps_s: when
    the frames of a list or array were taken, one a second by default. frame_limits: of each frame of a list, which is a
    picture of its own. Raises VideoError, FetchError.
    """
    limits = limits or VideoLimits()
    if isinstance(source, list | tuple) or is_array(source):
        return FrameList(source, fps=fps, timestamps_s=timestamps_s, allow_url=allow_url, limits=frame_limits)
    if fps is not None or timestamps_s is not None:
        raise InputError(
            "fps and timestamps_s describe a list of frames; a video file says itself when frames are shown."
        )
    located = locate_video(source, allow_url, limits)
    head = located.head(16)
    if head.startswith((b"GIF87a", b"GIF89a")) or head[8:12] == b"WEBP":
        from .animation import Animation

        return Animation(located, limits)
    from .container import FileVideo

    return FileVideo(located, limits)


def probe(source: Any, *, allow_url: bool = False, limits: VideoLimits | None = None) -> VideoInfo:
    """Duration, frame rate, number of frames and size of a video."""
    return open_video(source, allow_url=allow_url, limits=limits).info


def read_frames(
    source: Any, indices: Sequence[int], *, allow_url: bool = False, limits: VideoLimits | None = None
) -> Iterator[Frame]:
    """(index, timestamp_s, image) of the chosen frames, ascending, one by one."""
    yield from open_video(source, allow_url=allow_url, limits=limits).frames(indices)


def locate_video(source: Any, allow_url: bool, limits: VideoLimits) -> Source:
    """Find what `source` means, as a file or its bytes."""
    return locate(
        source,
        kind="video",
        error=VideoError,
        allow_url=allow_url,
        max_bytes=limits.max_bytes,
        timeout_s=limits.timeout_s,
    )


class FrameList:
    """Frames that are at hand already, as pictures, arrays or paths; each is opened when it is asked for."""

    sampled = True

    def __init__(
        self,
        frames: Any,
        *,
        fps: float | None = None,
        timestamps_s: Sequence[float] | None = None,
        allow_url: bool = False,
        limits: ImageLimits | None = None,
    ) -> None:
        self.name = "the list of frames"
        self._limits = limits or ImageLimits()
        self._frames = _single_frames(frames)
        self._allow_url = allow_url
        if timestamps_s is not None:
            _check_times(timestamps_s, len(self._frames))
            if fps is not None:
                raise InputError("Give fps or timestamps_s of the frames, not both.")
        if fps is not None and not fps > 0:
            raise InputError(f"fps={fps!r} can't be used: frames are taken at more than 0 a second.")
        self._times = None if timestamps_s is None else [float(time) for time in timestamps_s]
        self._fps = float(fps or FRAMES_PER_SECOND)

    @property
    def info(self) -> VideoInfo:
        width, height = self._measure()
        count = len(self._frames)
        if self._times is None:
            return VideoInfo(count / self._fps, self._fps, count, width, height)
        span = self._times[-1] - self._times[0]
        return VideoInfo(self._times[-1], (count - 1) / span if span else self._fps, count, width, height)

    def timestamp_s(self, index: int) -> float:
        return index / self._fps if self._times is None else self._times[index]

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        for index in chosen(indices, len(self._frames), self.name):
            yield Frame(index, self.timestamp_s(index), self._open(index))

    def _measure(self) -> tuple[int, int]:
        with _naming_frame(0):
            return measure_image(self._frames[0], allow_url=self._allow_url, limits=self._limits)

    def _open(self, index: int) -> Image.Image:
        with _naming_frame(index):
            return open_image(self._frames[index], allow_url=self._allow_url, limits=self._limits)


class _naming_frame:
    """Say which frame of a list can't be opened."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, ImageError):
            raise VideoError(f"Frame {self._index} of the list of frames: {error}") from error


def chosen(indices: Sequence[int], count: int, name: str) -> list[int]:
    """Indices as ascending numbers without repeats. Raises InputError for one outside the video."""
    wanted = sorted({int(index) for index in indices})
    if wanted and (wanted[0] < 0 or wanted[-1] >= count):
        wrong = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise InputError(f"{name} has frames 0 to {count - 1}; there is no frame {wrong}.")
    return wanted


def _single_frames(frames: Any) -> list[Any]:
    if is_array(frames):
        array = as_array(frames)
        if array.ndim != 4:
            raise VideoError(
                f"An array of shape {array.shape} is no video: it must be (frames, height, width, 3) or "
                "(frames, 3, height, width)."
            )
        frames = list(array)
    if not frames:
        raise VideoError("The list of frames is empty: give at least one frame.")
    for index, frame in enumerate(frames):
        file = isinstance(frame, str | Path | bytes | Source | Image.Image)
        if not file and not (is_array(frame) and frame.ndim in (2, 3)):
            raise VideoError(
                f"Frame {index} of the list is a {type(frame).__name__}: give PIL images, arrays or paths of pictures."
            )
    return list(frames)


def _check_times(times: Sequence[float], count: int) -> None:
    if len(times) != count:
        raise InputError(f"There are {count} frames but {len(times)} timestamps_s: give one for each frame.")
    if any(later < earlier for earlier, later in zip(times, times[1:], strict=False)) or not times[0] >= 0:
        raise InputError("timestamps_s must ascend and start at 0 or later.")
