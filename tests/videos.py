"""Small real videos for tests: every frame shows its own number as eight black or white bars (the lowest bit first)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
_BARS = 8


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
