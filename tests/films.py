"""Drawn films whose events are known to the frame: what reels are cut from in tests.

The upper part of a frame is a drawn scene in which something appears, disappears or turns; the strip below shows the
frame's number as videos.py's bars. Where there is sound, a short tone starts with each event, and all else is silent.
"""

from __future__ import annotations

import atexit
import heapq
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from smolvlm.scenes import plan_clip, render_plan
from tests.videos import numbered_frame, read_number

SIDE, STRIP = 128, 32
SUDDEN = {"appear", "disappear", "turn"}
TONE_HZ, TONE_S = 880, 0.25
SAMPLE_RATE = 48000

KEYS = {"g": "25", "bf": "2", "preset": "ultrafast", "crf": "12", "threads": "1"}
VP9 = {"g": "25", "crf": "12", "b": "0", "deadline": "realtime", "cpu-used": "8", "threads": "1"}
FILMS: dict[str, dict[str, Any]] = {
    "sound.mp4": {"options": KEYS},
    "silent.mp4": {"options": KEYS, "sound": None},
    "far_keys.mp4": {"options": {**KEYS, "g": "500", "keyint_min": "500", "sc_threshold": "0"}},
    "open_gop.mkv": {"options": {**KEYS, "x264-params": "open-gop=1"}},
    "sound.webm": {"codec": "libvpx-vp9", "options": VP9, "sound": "libopus"},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "keyint=25:crf=12:log-level=0:pools=none:frame-threads=1"},
    },
    "camera.avi": {"codec": "mjpeg", "options": {"qscale": "2"}, "sound": "pcm_s16le", "pix_fmt": "yuvj420p"},
    "broadcast.ts": {"options": KEYS},
    "varying.mp4": {"options": KEYS, "varying": True},
    "turned.mp4": {"options": KEYS, "rotation": 90},
    "wide_pixels.mp4": {"options": KEYS, "rotation": 90, "pixel_aspect": Fraction(4, 3), "seconds": 2, "sound": None},
    "upside_down.mp4": {"options": KEYS, "rotation": 180, "sound": None},
    "slides.mp4": {"options": KEYS, "fps": 1},
    "fast.mp4": {"options": KEYS, "fps": 240, "seconds": 2, "sound": None},
    "ntsc.mp4": {"options": KEYS, "fps": Fraction(30000, 1001)},
    "deep.mkv": {"options": KEYS, "pix_fmt": "yuv420p10le"},
    "odd.mkv": {"options": KEYS, "pix_fmt": "yuv444p", "size": (129, 161), "sound": None},
    "late_sound.mp4": {"options": KEYS, "sound_from_s": 4.0},
    "second.mp4": {"options": KEYS, "seconds": 1, "sound": None},
    "minute.mp4": {"options": {**KEYS, "g": "10"}, "seconds": 60, "fps": 5},
}


@dataclass(frozen=True)
class Film:
    """times_s: of each frame. events_s: when something happens; a frame that starts then or later shows it.

    tones_s: the events that have a tone.
    """

    path: Path
    times_s: tuple[float, ...]
    events_s: tuple[float, ...]
    clauses: tuple[str, ...]
    seconds: float
    tones_s: tuple[float, ...]

    @property
    def sound(self) -> bool:
        return bool(self.tones_s)


def film(name: str) -> Film:
    """One of FILMS, made once a test run; skips the test when this build of PyAV has no encoder for it."""
    settings = FILMS[name]
    for codec in (settings.get("codec", "libx264"), settings.get("sound", "aac")):
        if codec is not None and not can_encode(codec):
            pytest.skip(f"this build of PyAV has no encoder {codec}")
    return _made(name)


@cache
def _made(name: str) -> Film:
    return make_film(Path(_folder()) / name, **FILMS[name])


def make_film(
    path: Path,
    *,
    seconds: int = 8,
    fps: Fraction | int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: str | None = "aac",
    sound_from_s: float = 0.0,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (SIDE, SIDE + STRIP),
    varying: bool = False,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
) -> Film:
    """Write a film. varying: frames come at uneven times. size: width and height of what is coded, before turning."""
    pictures, events_s, clauses = _drawn(seconds)
    count = round(seconds * fps)
    ticks = [round(number * 60_000 / fps) for number in range(count)]
    if varying:  # up to 40 % late, and now and then three frames missing
        rng = Random(5)
        ticks = [tick + rng.randrange(round(24_000 / fps)) * (tick > 0) for tick in ticks]
        ticks = [tick for number, tick in enumerate(ticks) if number % 20 not in (11, 12, 13)]
    times_s = tuple(tick / 60_000 for tick in ticks)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        uneven = varying or codec.startswith("libx26")
        stream.codec_context.time_base = Fraction(1, 60_000) if uneven else 1 / Fraction(fps)
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        tracks = [_pictures(stream, pictures, ticks, size, rotation)]
        if sound:
            track: Any = container.add_stream(sound, rate=SAMPLE_RATE)
            track.codec_context.layout = "mono"
            tracks.append(_sound(track, events_s, seconds, sound_from_s))
        for packet in heapq.merge(*tracks, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    tones_s = tuple(time for time in events_s if time >= sound_from_s) if sound else ()
    return Film(path, times_s, events_s, clauses, float(seconds), tones_s)


def shown_number(image: Image.Image) -> int:
    """The frame number, up to 255, that an upright frame of a film shows."""
    top = round(image.height * SIDE / (SIDE + STRIP))
    return read_number(image.crop((0, top, image.width, image.height)))


def tone_onsets_s(path: Path) -> list[float]:
    """When tones begin in a file, in seconds from its first picture."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        heard = np.zeros(0, np.float32)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                place = round((float(piece.pts * piece.time_base) - first) * SAMPLE_RATE)
                samples = piece.to_ndarray()[0]
                if place < 0:
                    samples, place = samples[-place:], 0
                heard = np.concatenate([heard, np.zeros(max(0, place + len(samples) - len(heard)), np.float32)])
                heard[place : place + len(samples)] = samples
    step = SAMPLE_RATE // 1000
    loud = np.abs(heard[: len(heard) // step * step]).reshape(-1, step).max(axis=1) > 0.2
    quiet_before = np.array([not loud[max(0, place - 100) : place].any() for place in range(len(loud))], bool)
    return [float(place) / 1000 for place in np.flatnonzero(loud & quiet_before)]


def can_encode(codec: str) -> bool:
    try:
        return bool(av.Codec(codec, "w").is_encoder)
    except ValueError:
        return False


def _drawn(seconds: int) -> tuple[list[np.ndarray], tuple[float, ...], tuple[str, ...]]:
    """(pictures, one for each half second; events' times; what happens): clips with sudden events, end to end."""
    pictures: list[np.ndarray] = []
    events_s: list[float] = []
    clauses: list[str] = []
    seed = 0
    while len(pictures) < 2 * seconds:
        seed += 1
        plan = plan_clip(Random(seed), 0.3, False)
        if not plan.events or any(event.sort not in SUDDEN for event in plan.events):
            continue
        begin_s = len(pictures) / 2
        clip = render_plan(plan)[0]
        for second in range(plan.seconds):  # an event lies in the middle between two seconds
            pictures += [np.asarray(clip.frames[index]) for index in (second, min(second + 1, plan.seconds - 1))]
        events_s += [begin_s + (event.start_s + event.end_s) / 2 for event in plan.events]
        clauses += [event.clause for event in plan.events]
    inside = [index for index, time in enumerate(events_s) if time < seconds]
    return pictures[: 2 * seconds], tuple(events_s[index] for index in inside), tuple(clauses[i] for i in inside)


def _pictures(
    stream: Any, pictures: list[np.ndarray], ticks: list[int], size: tuple[int, int], rotation: int
) -> Iterator[Any]:
    for number, tick in enumerate(ticks):
        half_second = min(math.floor(tick / 30_000 + 1e-6), len(pictures) - 1)
        strip = numbered_frame(number % 256, SIDE, STRIP)
        shown = np.rot90(np.concatenate([pictures[half_second], strip]), -rotation // 90)
        coded = (size[1], size[0]) if rotation % 180 else size
        frame = av.VideoFrame.from_image(Image.fromarray(np.ascontiguousarray(shown)).resize(coded))
        frame = frame.reformat(format=stream.pix_fmt, threads=1)
        frame.pts, frame.time_base = tick, Fraction(1, 60_000)
        if stream.codec_context.time_base != frame.time_base:
            frame.pts, frame.time_base = number, stream.codec_context.time_base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _sound(stream: Any, events_s: tuple[float, ...], seconds: int, from_s: float) -> Iterator[Any]:
    times = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    wave = np.zeros(len(times), np.float32)
    for event_s in events_s:
        on = (times >= event_s) & (times < event_s + TONE_S)
        wave[on] = 0.8 * np.sin(2 * np.pi * TONE_HZ * (times[on] - event_s) + np.pi / 2)
    for start in range(round(from_s * SAMPLE_RATE), len(wave), 960):
        samples = (wave[None, start : start + 960] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


@lru_cache(maxsize=1)
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="smolvlm-films-")
    atexit.register(folder.cleanup)
    return folder.name
