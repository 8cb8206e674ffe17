"""Small real videos for tests: every frame shows its own number as eight black or white bars (the lowest bit first)."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from smolvlm.media.video import Video

WIDTH, HEIGHT = 64, 48
_BARS = 8

B_FRAMES = {"g": "12", "bf": "2"}
FILMS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"rate": 10},
    "reordered.mp4": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "reordered.mkv": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "reordered.mov": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "open.mp4": {"rate": 25, "codec": "libx264", "options": {**B_FRAMES, "x264-params": "open-gop=1"}},
    "fragmented.mp4": {
        "rate": 30,
        "codec": "libx264",
        "options": B_FRAMES,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "ntsc.mp4": {"rate": Fraction(30000, 1001), "codec": "libx264"},
    "film.webm": {"rate": 24, "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "9"}},
    "camera.avi": {"rate": 25},
    "broadcast.ts": {"rate": 25, "codec": "libx264", "options": B_FRAMES},
    "old.mpg": {"rate": 25, "codec": "mpeg2video"},
    "web.flv": {"rate": 25, "codec": "flv"},
}
FRAMES = 40


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(height, width, 3) uint8 that read_number() reads back, also after lossy coding."""
    bits = (number >> np.arange(_BARS)) & 1
    row = np.repeat(bits * 255, width // _BARS).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, row.size, 3)).copy()


def read_number(frame: Any) -> int:
    """The number a frame shows; an upright frame of any size."""
    grey = np.asarray(Image.fromarray(np.asarray(frame)).convert("L"), dtype=np.float32)
    columns = (np.arange(_BARS) * 2 + 1) * grey.shape[1] // (2 * _BARS)
    middle = grey[grey.shape[0] // 3 : 2 * grey.shape[0] // 3, :]
    return int(sum(1 << bit for bit, column in enumerate(columns) if middle[:, column].mean() > 127))


def write_video(
    path: Path,
    frames: int = 30,
    rate: Fraction | int = 10,
    *,
    codec: str = "mpeg4",
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    time_base: Fraction | None = None,
) -> Path:
    """Write a numbered video. pts: time of each frame in time_base (default 1/1000 s) for a variable frame rate."""
    shown = [numbered_frame(number % 256) for number in range(frames)] if pictures is None else list(pictures)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = {"ffv1": "bgr0", "gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if pts is not None:
            stream.codec_context.time_base = time_base or Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if pts is None else pts[number]
            if pts is not None:
                frame.time_base = time_base or Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """Write a file with a sound track and nothing to see."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, int(seconds * 16000), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def film(name: str) -> Path:
    """One of FILMS, written once a test run."""
    path = Path(_folder()) / name
    return path if path.exists() else write_video(path, FRAMES, **FILMS[name])


@lru_cache(maxsize=1)
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="smolvlm-films-")
    atexit.register(folder.cleanup)
    return folder.name


def numbers_shown(video: Video, indices: Sequence[int]) -> list[tuple[int, int]]:
    """(number a frame comes under, number it shows) of each frame of a video."""
    return [(frame.number, read_number(frame.image)) for frame in video.frames(indices)]
