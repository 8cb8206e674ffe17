"""Read video files with PyAV: exact frame numbers, true times, constant memory, and no trust in what a file claims.

The demuxer is chosen here, from the first bytes, out of a short list; FFmpeg's own guessing (playlists, scripts,
devices, hundreds of formats) is never asked, only codings of another list are decoded, and only the file itself may be
opened. PyAV is imported late: it costs
40 ms and 100 MB, and pictures don't need it.
"""

from __future__ import annotations

import bisect
import io
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import MissingDependencyError, VideoError
from ..types import VideoInfo
from .cutoff import is_cut_off
from .source import Source

if TYPE_CHECKING:
    from .video import Frame, VideoLimits

_ACCEPTED = "MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, WMV, GIF and WebP"
# Codings that cameras, phones, editors and the web write; each of FFmpeg's 300 others is one more way into a machine.
_CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg1video", "mpeg2video"),
    *("mpegvideo", "mjpeg", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "h261", "h263", "flv", "vp3", "theora", "vp6", "vp6a"),
    *("vp6f", "wmv1", "wmv2", "wmv3", "vc1", "prores", "dnxhd", "dvvideo", "cfhd", "ffv1", "huffyuv", "ffvhuff"),
    *("utvideo", "rawvideo", "v210", "png", "gif", "qtrle", "cinepak", "svq1", "svq3"),
)
_EBML, _ASF = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # how MP4 and QuickTime files begin
_TS_SYNC, _TS_PACKET = 0x47, 188
_INDEXED = ("mov", "avi")  # these containers hold a table of all their frames
_SEEKABLE = ("mov", "matroska")  # these say reliably which frames decoding can start at
_WORTH_SEEKING = 48  # frames between two chosen ones, below which decoding straight on is as fast
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class _Packets:
    """What one pass over the packets says, nothing decoded. times: sorted, in time_base units; empty if unknown."""

    count: int
    times: tuple[int, ...]
    keys: tuple[int, ...]
    broken: bool


class FileVideo:
    """A video file or its bytes. Nothing stays open between calls."""

    sampled = False

    def __init__(self, source: Source, limits: VideoLimits) -> None:
        self.name = source.name
        self._source = source
        self._limits = limits
        self._demuxer = _choose_demuxer(source)
        self._broken = is_cut_off(source, self._demuxer)
        self._packets: _Packets | None = None
        self._times: tuple[int, ...] = ()  # set when the frame rate may vary
        with self._opened() as (container, stream):
            self._time_base = stream.time_base or Fraction(1, 1000)
            rate = stream.average_rate or stream.guessed_rate
            claimed_s = float(stream.duration * self._time_base) if stream.duration else (container.duration or 0) / 1e6
            steady = rate is not None and stream.guessed_rate and abs(rate / stream.guessed_rate - 1) < 0.001
            there = self._listed_frames(stream) if steady else 0
            self._turn, width, height = self._look_at_first_frame(container, stream)
        if there:
            self.info = VideoInfo(claimed_s or there / float(rate), float(rate), there, width, height)
        else:
            self.info = self._info_from_packets(rate, claimed_s, width, height)
        self._check_length(claimed_s)

    def timestamp_s(self, index: int) -> float:
        """Seconds from the start: index / fps at a steady frame rate, as in the reference, else the file's own time."""
        if not self._times:
            return index / self.info.fps
        return float((self._times[index] - self._times[0]) * self._time_base)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        from .video import Frame, chosen

        wanted = chosen(indices, self.info.num_frames, self.name)
        missing = set(wanted)
        for index, image in self._read(wanted):
            missing.discard(index)
            yield Frame(index, self.timestamp_s(index), image)
        if missing and len(missing) == len(wanted):
            raise VideoError(f"{self.name} is damaged: none of its frames can be decoded. Copy or download it again.")
        if missing or self._broken:
            end_s = self.timestamp_s(max(set(wanted) - missing))
            warnings.warn(
                f"{self.name} is cut off or damaged: {len(wanted) - len(missing)} of {len(wanted)} chosen frames could "
                f"be decoded, the last at {end_s:.1f} s. The answer rests on those.",
                stacklevel=2,
            )

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, Image.Image]]:
        """The wanted frames, jumping where that is exact and saves work, else decoding from the beginning."""
        gaps = [later - earlier for earlier, later in zip([-1, *wanted], wanted, strict=False)]
        left = list(wanted)
        if max(gaps, default=0) > _WORTH_SEEKING and self._demuxer in _SEEKABLE:
            packets = self._scan()
            if len(packets.times) == self.info.num_frames and packets.keys:
                for index, image in self._read_jumping(wanted, packets):
                    left.remove(index)
                    yield index, image
        if left:
            yield from self._read_straight(left)

    def _read_straight(self, wanted: list[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decode from the beginning. Frames are counted, or told by their times where those are known."""
        numbers = self._numbers() if self._packets else {}
        left = set(wanted)
        with self._opened() as (container, stream):
            for count, frame in enumerate(self._decode(container, stream)):
                if frame is None:  # from here on, counting can be off
                    numbers = numbers or self._numbers()
                    continue
                index = numbers.get(frame.pts, -1) if numbers else count
                if index in left:
                    left.remove(index)
                    yield index, self._to_image(frame)
                if not left or index > wanted[-1]:
                    return

    def _numbers(self) -> dict[int, int]:
        """Time -> number of every frame; empty where the file doesn't say all times."""
        return {time: number for number, time in enumerate(self._scan().times)}

    def _read_jumping(self, wanted: list[int], packets: _Packets) -> Iterator[tuple[int, Image.Image]]:
        """Start each frame at the last key frame before it, unless decoding is past that already.

        Frames are recognised by their exact time, so an inexact jump can miss a frame but never mistake one.
        """
        with self._opened() as (container, stream):
            frames: Iterator[Any] = iter(())
            position: int | None = None
            for index in wanted:
                target = packets.times[index]
                key = packets.keys[max(bisect.bisect_right(packets.keys, target) - 1, 0)]
                if position is None or key > position:
                    container.seek(key, stream=stream)
                    frames = self._decode(container, stream)
                for frame in frames:
                    if frame is None or frame.pts is None:
                        continue
                    position = frame.pts
                    if position == target:
                        yield index, self._to_image(frame)
                    if position >= target:
                        break

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Every frame in the order of showing; None where a packet could not be decoded; ends at a broken tail."""
        import av

        deadline = time.monotonic() + self._limits.decode_s
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                break
            if time.monotonic() > deadline:
                raise VideoError(
                    f"{self.name} takes more than {self._limits.decode_s:g} s to decode. Cut it or scale it down first."
                )
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                decoded = [None]
            yield from decoded
        try:  # where reading broke off, the decoder still holds frames back
            yield from stream.decode(None)
        except av.FFmpegError:
            return

    def _to_image(self, frame: Any) -> Image.Image:
        self._check_pixels(frame.width, frame.height)
        image = frame.to_image()
        return image.transpose(_TURNS[self._turn]) if self._turn else image

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its picture track, within the limits."""
        av = _import_av()
        content = self._source.content
        file = f"file:{content.absolute()}" if isinstance(content, Path) else io.BytesIO(content)
        try:
            container = av.open(file, mode="r", format=self._demuxer, options=_open_options(content))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.name} can't be opened as a video: {_reason(error)}. It is cut off or damaged; copy or download "
                "it again."
            ) from error
        with container:
            yield container, self._pick_stream(container)

    def _pick_stream(self, container: Any) -> Any:
        streams = list(container.streams)
        if len(streams) > self._limits.max_streams:
            raise VideoError(
                f"{self.name} has {len(streams)} tracks, more than the limit of {self._limits.max_streams}. "
                "Keep the picture track alone."
            )
        pictures = [s for s in container.streams.video if not int(s.disposition) & _cover_flag()]
        if pictures and not any(stream.codec_context for stream in pictures):
            raise VideoError(
                f"{self.name} has a picture track in a coding that can't be read, or its header is damaged. Convert it "
                "to H.264 in MP4, or copy it again."
            )
        if not pictures:
            kinds = " and ".join(sorted({stream.type for stream in streams}))
            raise VideoError(
                f"{self.name} has no picture track, {f'only {kinds}' if kinds else 'nor any other'}. Give a file with "
                "pictures."
            )
        readable = [stream for stream in pictures if stream.codec_context]
        stream = max(readable, key=lambda s: (s.width or 0) * (s.height or 0))
        if stream.codec_context.name not in _CODECS:
            raise VideoError(
                f"{self.name} is coded as {stream.codec_context.name}, which is not on the list of codings that are "
                "decoded. Convert it to H.264 in MP4."
            )
        self._check_pixels(stream.width or 0, stream.height or 0)
        # Frames may grow after the header was read; FFmpeg then refuses before it sets memory aside for them.
        stream.codec_context.options = {"max_pixels": str(self._limits.max_pixels)}
        # Decoding several frames at once reports an error late, and the frames after it are lost.
        stream.thread_type = "SLICE" if self._broken else "AUTO"
        return stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise VideoError(
                f"{self.name} has frames of {width} x {height} pixels, more than the limit of "
                f"{self._limits.max_pixels:,}. Scale it down first."
            )

    def _check_length(self, claimed_s: float) -> None:
        longest_s = max(self.info.duration_s, claimed_s if not self._broken else 0)
        if longest_s > self._limits.max_seconds or self.info.num_frames > self._limits.max_frames:
            raise VideoError(
                f"{self.name} is {longest_s:,.0f} s long ({self.info.num_frames:,} frames); the limit is "
                f"{self._limits.max_seconds:,.0f} s and {self._limits.max_frames:,} frames. Cut it first."
            )

    def _look_at_first_frame(self, container: Any, stream: Any) -> tuple[int, int, int]:
        """(counter-clockwise turn in degrees, width, height) as shown."""
        frame = next((frame for frame in self._decode(container, stream) if frame is not None), None)
        if frame is None:
            codec = stream.codec_context.name
            raise VideoError(f"{self.name} holds no frame that can be decoded ({codec}). Copy it again, or convert it.")
        turn = round(frame.rotation / 90) * 90 % 360
        return (turn, frame.height, frame.width) if turn in (90, 270) else (turn, frame.width, frame.height)

    def _listed_frames(self, stream: Any) -> int:
        """The number of frames by the container's own table; 0 when there is none, or not all of it can be true."""
        entries = stream.index_entries
        if self._broken or self._demuxer not in _INDEXED or not stream.frames or len(entries) != stream.frames:
            return 0
        return sum(not entry.is_discard for entry in entries)

    def _info_from_packets(self, rate: Fraction | None, claimed_s: float, width: int, height: int) -> VideoInfo:
        packets = self._scan()
        self._broken |= packets.broken
        count = packets.count
        if not count:
            raise VideoError(f"{self.name} holds no frames. Copy or download it again.")
        duration_s = claimed_s or (count / float(rate) if rate else 0.0)
        if packets.times:
            gaps = [later - earlier for earlier, later in zip(packets.times, packets.times[1:], strict=False)]
            usual = statistics.median(gaps) if gaps else (1 / (rate or 1)) / self._time_base
            if any(not 0.5 * usual <= gap <= 1.5 * usual for gap in gaps):  # clocks round by less than that
                self._times = packets.times
            duration_s = float((packets.times[-1] - packets.times[0] + Fraction(usual)) * self._time_base)
        agrees = rate is not None and abs(float(rate) * duration_s - count) <= 1.5
        fps = float(rate) if rate is not None and agrees else count / duration_s if duration_s > 0 else 1.0
        if agrees:  # the container's clock rounds to milliseconds and worse
            duration_s = count / fps
        return VideoInfo(duration_s, fps, count, width, height)

    def _scan(self) -> _Packets:
        """Walk over the packets once, decoding nothing: how many frames, when, and where decoding can start."""
        if self._packets is not None:
            return self._packets
        import av

        times: list[int | None] = []
        keys: list[int] = []
        broken = False
        with self._opened() as (container, stream):
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    break
                except av.FFmpegError:
                    broken = True
                    break
                if not packet.size or packet.is_discard:
                    continue
                if packet.is_corrupt:
                    broken = True
                    continue
                times.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None:
                    keys.append(packet.pts)
                if len(times) > self._limits.max_frames:
                    raise VideoError(f"{self.name} has more than {self._limits.max_frames:,} frames. Cut it first.")
        known = [time for time in times if time is not None]
        exact = len(known) == len(times) == len(set(known))
        self._packets = _Packets(len(times), tuple(sorted(known)) if exact else (), tuple(sorted(keys)), broken)
        return self._packets


def _choose_demuxer(source: Source) -> str:
    """FFmpeg's name for the container, from the first bytes. Raises VideoError for anything off the list."""
    head = source.head(2 * _TS_PACKET + 8)
    if head[4:8] in _BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    for start, name in ((b"FLV", "flv"), (b"OggS", "ogg"), (_ASF, "asf"), (b"\0\0\x01\xba", "mpeg")):
        if head.startswith(start):
            return name
    if head.startswith(b"\0\0\x01\xb3"):
        return "mpegvideo"
    for offset in (0, 4):  # M2TS files put four bytes before each packet
        if head[offset : offset + 1] == b"G" and head[offset + _TS_PACKET + offset :][:1] == bytes([_TS_SYNC]):
            return "mpegts"
    raise VideoError(_why_not(source, head))


def _why_not(source: Source, head: bytes) -> str:
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        return f"{source.name} is a picture, not a video. Pass it as an image, or pass a list of frames."
    if head.startswith((b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf1")) or head[8:12] == b"WAVE":
        return f"{source.name} is a sound file: it has no picture track. Give a file with pictures."
    if head.lstrip().startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"[playlist]", b"v=0")):
        return f"{source.name} is a playlist, which is never followed. Give the video itself."
    return f"{source.name} is no video of a known format, or its beginning is damaged. Accepted are {_ACCEPTED}."


def _open_options(content: Path | bytes) -> dict[str, str]:
    """Nothing but the given file or bytes may be opened, and nothing off the list decoded, also while probing."""
    return {"protocol_whitelist": "file" if isinstance(content, Path) else "none", "codec_whitelist": ",".join(_CODECS)}


def _cover_flag() -> int:
    """The mark of a track that is the cover picture of a sound file."""
    from av.stream import Disposition

    return int(Disposition.attached_pic)


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "Videos are read with PyAV, which isn't installed. Run `pip install av`."
        ) from error
    return av


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
