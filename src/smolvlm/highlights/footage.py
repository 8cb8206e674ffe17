"""A film as the reel's two writers need it: when each of its frames is shown, where decoding can start, and its sound.

media/container.py looks at a file first and refuses what can't be used, so this file may trust what it opens. Seconds
are those of every `Video`: they start at the first frame's time, for the sound as well.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import av

from ..errors import VideoError
from ..media.video import VideoLimits, locate_video, open_video
from ..types import VideoInfo

HOURS = VideoLimits(max_seconds=24 * 3600.0, max_frames=24 * 3600 * 120, decode_s=7 * 24 * 3600.0)
# The containers that media/container.py accepts, by FFmpeg's names; of the first two, jumps to a key frame are exact.
_JUMPABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_DEMUXERS = (*_JUMPABLE, "avi", "flv", "ogg", "asf", "mpeg", "mpegvideo", "mpegts")


class CodedFrame(NamedTuple):
    """A frame in its file, not decoded. Times are in the picture track's time base."""

    pts: int
    dts: int | None
    key: bool


@dataclass(frozen=True)
class Footage:
    """A film that was looked through once, nothing decoded.

    coded: its frames in the order of the file; empty when the file doesn't say all their times. first: the time of the
    one that is shown first, in time_base. times_s: when each is shown, ascending. end_s: when the last one's time is
    over. turn: counter-clockwise degrees to upright. whole: an edit list hides no frames. sound_codec: empty where
    there is no sound that can be decoded.
    """

    path: Path
    name: str
    info: VideoInfo
    demuxer: str
    time_base: Fraction
    first: int
    coded: tuple[CodedFrame, ...]
    times_s: tuple[float, ...]
    end_s: float
    turn: int
    whole: bool
    picture_codec: str
    sound_codec: str

    @property
    def jumpable(self) -> bool:
        return self.demuxer in _JUMPABLE and bool(self.coded)

    @property
    def offset_s(self) -> float:
        """What the file's own clock says when the first frame is shown."""
        return float(self.first * self.time_base)

    def seconds(self, pts: int) -> float:
        return _seconds(pts - self.first, self.time_base)

    def border_near(self, second: float, within_s: float) -> float:
        """The nearest time at which a frame begins or the film ends, where one is near enough; else `second` itself."""
        index = bisect.bisect_left(self.times_s, second)
        around = [*self.times_s[max(0, index - 1) : index + 1], self.end_s]
        nearest = min(around, key=lambda time: abs(time - second))
        return nearest if abs(nearest - second) <= within_s else second


def survey(path: Path) -> Footage:
    """Look through a file. Raises VideoError for one that is no video or can't be read."""
    video = open_video(path, limits=HOURS)
    with opened(path, "video") as (container, stream):
        frame = next(decoded(container, stream))
        turn = round(frame.rotation / 90) * 90 % 360
    coded: list[CodedFrame] = []
    exact = True
    with opened(path, "video") as (container, stream):
        time_base = stream.time_base or Fraction(1, 1000)
        for packet in coded_packets(container, stream):
            exact &= packet.pts is not None
            coded.append(CodedFrame(packet.pts or 0, packet.dts, packet.is_keyframe))
        whole = not any(entry.is_discard for entry in stream.index_entries)
        picture_codec = stream.codec_context.name
        heard = _sound_track(container)
        sound_codec = heard.codec_context.name if heard else ""
        demuxer = container.format.name
    exact &= len({one.pts for one in coded}) == len(coded)
    first = min((one.pts for one in coded), default=0) if exact else stream.start_time or 0
    if exact:
        times_s = tuple(_seconds(pts - first, time_base) for pts in sorted(one.pts for one in coded))
    else:
        times_s = tuple(video.timestamp_s(index) for index in range(video.info.num_frames))
    gaps = [later - earlier for earlier, later in zip(times_s, times_s[1:], strict=False)]
    return Footage(
        path=path,
        name=video.name,
        info=video.info,
        demuxer=demuxer,
        time_base=time_base,
        first=first,
        coded=tuple(coded) if exact else (),
        times_s=times_s,
        end_s=times_s[-1] + (median(gaps) if gaps else 1 / video.info.fps),
        turn=turn,
        whole=whole,
        picture_codec=picture_codec,
        sound_codec=sound_codec,
    )


def has_sound(path: Path) -> bool:
    """Whether there is a sound track that can be decoded."""
    with opened(path, "video") as (container, _):
        return _sound_track(container) is not None


@contextmanager
def opened(path: Path, kind: Literal["video", "audio"]) -> Iterator[tuple[Any, Any]]:
    """The container and its picture track (the largest, as media/container.py picks it) or its first sound track."""
    located = locate_video(path, False, VideoLimits())
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.absolute()}", mode="r", options=options)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{located.name} can't be opened any more: {error}. Was it moved or written to?") from error
    with container:
        if container.format.name not in _DEMUXERS:
            raise VideoError(f"{located.name} is not what it begins like ({container.format.name}). Convert it to MP4.")
        stream = _picture_track(container) if kind == "video" else _sound_track(container)
        assert stream is not None, "whoever asks for sound has seen that there is some"
        stream.thread_type = "AUTO"
        yield container, stream


def coded_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a track that hold something to show, to where reading breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        if packet.size and not packet.is_discard and not packet.is_corrupt:
            yield packet


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a track from where the container stands; what can't be decoded is passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            break
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue
    try:  # where reading broke off, the decoder still holds frames back
        yield from stream.decode(None)
    except av.FFmpegError:
        return


def _seconds(ticks: int, time_base: Fraction) -> float:
    return ticks * time_base.numerator / time_base.denominator


def _picture_track(container: Any) -> Any:
    from av.stream import Disposition

    pictures = [one for one in container.streams.video if not int(one.disposition) & int(Disposition.attached_pic)]
    return max((one for one in pictures if one.codec_context), key=lambda one: one.width * one.height)


def _sound_track(container: Any) -> Any | None:
    return next((one for one in container.streams.audio if one.codec_context and one.codec_context.sample_rate), None)
