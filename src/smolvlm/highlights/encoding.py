"""A reel encoded anew: the frames and the sound of some segments, decoded and coded once, cut where they were asked.

Frames go from decoder to encoder as they are: no trip over RGB, colours keep their tags. They are turned upright,
brought to 8 bits and an even size, which every player takes. Sound is cut to the sample, and silence stands where the
source has none.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import PictureType

from ..errors import VideoError
from .cuts import Cut
from .footage import Footage, decoded, opened

CLOCK = Fraction(1, 60_000)  # fine enough for all usual rates, and coarse enough for every encoder
# Encoders by the reel's suffix, the first that this build of FFmpeg has; and how they are set.
PICTURE_ENCODERS: dict[str, dict[str, dict[str, str]]] = {
    ".mp4": {
        "libx264": {"crf": "19", "preset": "veryfast"},
        "libopenh264": {"b": "6000000"},
        "mpeg4": {"qscale": "3"},
    },
    ".webm": {"libvpx-vp9": {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}},
}
PICTURE_ENCODERS[".mkv"] = PICTURE_ENCODERS[".mp4"]
SOUND_ENCODERS = {".mp4": "aac", ".mkv": "aac", ".webm": "libopus"}
SOUND_RATES = {"aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)}
USUAL_RATE = 48000
BITS_A_CHANNEL = 80_000
_LIMITED, _RGB = 1, 0  # AVColorRange and AVColorSpace as FFmpeg numbers them
_TURNS = {90: ("cclock",), 180: ("clock", "clock"), 270: ("clock",)}  # the directions of FFmpeg's transpose
_EPSILON_S = 1e-6
_PREROLL_S = 0.1  # sound decoders need some packets before they are right
_DRIFT_S = (
    0.02  # by which a sound frame's time may differ from the count of samples: containers round to 1 ms and worse
)
_SILENCE = 4096  # samples written at once


class _Shown(NamedTuple):
    time_s: float
    frame: Any


def encoded_tracks(
    container: Any, footage: Footage, cuts: Sequence[Cut], suffix: str, progress: Callable[[int], None]
) -> list[Iterator[Any]]:
    """The reel's tracks in a container that was opened for writing: the packets of each, made when asked for."""
    pictures = _add_pictures(container, footage, suffix)
    tracks = [_encoded_pictures(footage, cuts, pictures, progress)]
    if footage.sound_codec:
        tracks.append(_encoded_sound(footage, cuts, _add_sound(container, footage, suffix)))
    return tracks


def _add_pictures(container: Any, footage: Footage, suffix: str) -> Any:
    """The reel's picture track, for frames as `_encoded_pictures` makes them."""
    encoders = PICTURE_ENCODERS[suffix]
    name = next((name for name in encoders if name in av.codecs_available and _can_encode(name)), None)
    if name is None:
        raise VideoError(
            f"This build of PyAV has none of {', '.join(encoders)} to write {suffix} with. Choose another."
        )
    with opened(footage.path, "video") as (_, source):
        rate = Fraction(footage.info.fps).limit_denominator(1001)
        stream = container.add_stream(name, rate=max(rate, Fraction(1, 1001)), options=dict(encoders[name]))
        stream.width, stream.height = _even_size(footage)
        stream.pix_fmt = "yuv420p"
        ratio = source.sample_aspect_ratio
        if ratio:
            stream.codec_context.sample_aspect_ratio = 1 / ratio if footage.turn in (90, 270) else ratio
        if source.codec_context.colorspace != _RGB:
            for tag in ("colorspace", "color_primaries", "color_trc"):
                setattr(stream.codec_context, tag, getattr(source.codec_context, tag))
        stream.codec_context.color_range = _LIMITED
        stream.codec_context.time_base = CLOCK
    return stream


def _add_sound(container: Any, footage: Footage, suffix: str) -> Any:
    """The reel's sound track: mono or stereo, at the source's rate where the encoder takes it."""
    name = SOUND_ENCODERS[suffix]
    with opened(footage.path, "audio") as (_, source):
        rate = source.codec_context.sample_rate
        channels = 1 if source.codec_context.channels == 1 else 2
    stream = container.add_stream(name, rate=rate if rate in SOUND_RATES.get(name, ()) else USUAL_RATE)
    stream.codec_context.layout = "mono" if channels == 1 else "stereo"
    stream.codec_context.bit_rate = BITS_A_CHANNEL * channels
    return stream


# ---- pictures ----


def _encoded_pictures(
    footage: Footage, cuts: Sequence[Cut], stream: Any, progress: Callable[[int], None]
) -> Iterator[Any]:
    """The packets of the picture track."""
    fit = _Fitting(footage)
    durations: dict[int, int] = {}

    def finished(packets: Sequence[Any]) -> Iterator[Any]:
        for packet in packets:
            packet.duration = durations.pop(packet.pts, packet.duration)  # a reel's last frame has no next one
            yield packet

    with opened(footage.path, "video") as (container, source):
        shown = _Frames(footage, container, source)
        for cut in cuts:
            first = True
            for start_s, end_s, frame in shown.during(cut.start_s, cut.end_s):
                fitted = fit(frame)
                begin, end = (round((cut.reel_start_s + time - cut.start_s) / CLOCK) for time in (start_s, end_s))
                fitted.pts, fitted.time_base = begin, CLOCK
                # A key frame where a segment starts, so that players jump there; else the encoder's own choice.
                fitted.pict_type = PictureType.I if first else PictureType.NONE
                durations[begin] = max(1, end - begin)
                first = False
                progress(1)
                yield from finished(stream.encode(fitted))
            if first:
                raise VideoError(
                    f"{footage.name} is damaged: none of its frames from {cut.start_s:.1f} s to {cut.end_s:.1f} s can "
                    "be decoded. Leave this segment out, or copy the file again."
                )
        yield from finished(stream.encode(None))


class _Frames:
    """The frames of a film around a place in it that only moves on: the one being shown, and the next."""

    def __init__(self, footage: Footage, container: Any, stream: Any) -> None:
        self._footage = footage
        self._container = container
        self._stream = stream
        keys = sorted(one for one in footage.coded if one.key) if footage.jumpable else []
        self._keys = keys
        self._key_times_s = [footage.seconds(one.pts) for one in keys]
        self._now: _Shown | None = None
        self._frames = self._decode()
        self._next = next(self._frames, None)

    def during(self, start_s: float, end_s: float) -> Iterator[tuple[float, float, Any]]:
        """(from, to, frame) of all that is shown in this time; the first frame may have begun earlier."""
        self._approach(start_s)
        if self._now is None or self._now.time_s >= end_s:
            return
        begin = start_s
        while self._now is not None:
            over = self._next is None or self._next.time_s >= end_s - _EPSILON_S
            stop = end_s if over or self._next is None else self._next.time_s
            yield begin, stop, self._now.frame
            if over:
                return
            self._advance()
            begin = stop

    def _approach(self, start_s: float) -> None:
        """Make the frame that is shown at start_s the present one; the film's first if start_s lies before it."""
        place = bisect.bisect_right(self._key_times_s, start_s + _EPSILON_S) - 1
        position_s = self._now.time_s if self._now else -1.0
        if place >= 0 and self._key_times_s[place] > position_s + _EPSILON_S:
            key = self._keys[place]
            self._container.seek(key.pts if key.dts is None else key.dts, stream=self._stream)
            self._frames = self._decode()
            self._now, self._next = None, next(self._frames, None)
        while self._next is not None and (self._now is None or self._next.time_s <= start_s + _EPSILON_S):
            self._advance()

    def _advance(self) -> None:
        self._now, self._next = self._next, next(self._frames, None)

    def _decode(self) -> Iterator[_Shown]:
        footage = self._footage
        for count, frame in enumerate(decoded(self._container, self._stream)):
            if footage.coded and frame.pts is not None:
                yield _Shown(footage.seconds(frame.pts), frame)
            elif not footage.coded and count < len(footage.times_s):  # no times in the file: frames are counted
                yield _Shown(footage.times_s[count], frame)


class _Fitting:
    """Make a decoded frame what the encoder takes: upright, 8 bits, of an even size, of the limited range."""

    def __init__(self, footage: Footage) -> None:
        turned = footage.turn in (90, 270)
        width, height = footage.info.width, footage.info.height
        self._coded = (height, width) if turned else (width, height)
        turns, even = _TURNS.get(footage.turn, ()), _even_size(footage)
        if not turns and even == (width, height):
            self._graph = None
            return
        self._graph = av.filter.Graph()
        nodes = [
            self._graph.add_buffer(
                width=self._coded[0], height=self._coded[1], format=av.VideoFormat("yuv420p"), time_base=CLOCK
            )
        ]
        nodes += [self._graph.add("transpose", direction) for direction in turns]
        nodes += [self._graph.add("crop", f"{even[0]}:{even[1]}:0:0"), self._graph.add("buffersink")]
        self._graph.link_nodes(*nodes).configure()

    def __call__(self, frame: Any) -> Any:
        full = frame.color_range or _LIMITED
        fitted = frame.reformat(*self._coded, "yuv420p", src_color_range=full, dst_color_range=_LIMITED)
        if self._graph is None:
            return fitted
        self._graph.vpush(fitted)
        return self._graph.vpull()


def _even_size(footage: Footage) -> tuple[int, int]:
    """H.264 and VP9 with halved colours need even sides; an odd row or column is cut off."""
    return footage.info.width // 2 * 2, footage.info.height // 2 * 2


def _can_encode(name: str) -> bool:
    try:
        return bool(av.Codec(name, "w").is_encoder)
    except (ValueError, LookupError):
        return False


# ---- sound ----


def _encoded_sound(footage: Footage, cuts: Sequence[Cut], stream: Any) -> Iterator[Any]:
    """The packets of the sound track."""
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
    channels = stream.codec_context.channels
    position = 0
    with opened(footage.path, "audio") as (container, source):
        for cut in cuts:
            end = round((cut.reel_start_s + cut.end_s - cut.start_s) * rate)
            pieces = _pieces(footage, cut, container, source, rate, layout)
            for samples in _continuous(pieces, position, end, channels, round(_DRIFT_S * rate)):
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
                position += samples.shape[1]
                yield from stream.encode(frame)
    yield from stream.encode(None)


def _pieces(
    footage: Footage, cut: Cut, container: Any, source: Any, rate: int, layout: str
) -> Iterator[tuple[int, np.ndarray]]:
    """(place in the reel, samples) as they are decoded around a cut; places are counted in samples."""
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    begin_s = footage.offset_s + cut.start_s
    if source.time_base:
        container.seek(max(0, int((begin_s - _PREROLL_S) / source.time_base)), stream=source)
    for frame in decoded(container, source):
        if frame.pts is None:
            continue
        if frame.time - begin_s > cut.end_s - cut.start_s:
            break
        for piece in resampler.resample(frame):
            if piece.time is not None:
                yield round((piece.time - begin_s + cut.reel_start_s) * rate), piece.to_ndarray()


def _continuous(
    pieces: Iterator[tuple[int, np.ndarray]], position: int, end: int, channels: int, drift: int
) -> Iterator[np.ndarray]:
    """Exactly the samples from position to end: what lies outside is cut off, gaps are silent, overlaps dropped.

    drift: a piece whose time is off by no more follows the one before without a seam.
    """
    expected: int | None = None
    for place, samples in pieces:
        if expected is not None and abs(place - expected) <= drift:
            place = expected
        expected = place + samples.shape[1]
        samples = samples[:, max(0, position - place) : max(0, end - place)]
        if samples.shape[1]:
            yield from _silence(channels, place - position)
            yield samples
            position = max(place, position) + samples.shape[1]
    yield from _silence(channels, end - position)


def _silence(channels: int, samples: int) -> Iterator[np.ndarray]:
    while samples > 0:
        yield np.zeros((channels, min(samples, _SILENCE)), np.float32)
        samples -= _SILENCE
