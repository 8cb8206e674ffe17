"""Moving GIF and WebP pictures as videos, read by Pillow, which lays transparent frames on the ones before them."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..errors import VideoError
from ..types import VideoInfo
from .pixels import to_rgb
from .source import Source

if TYPE_CHECKING:
    from .video import Frame, VideoLimits

_DEFAULT_MS = 100  # what browsers show a frame for that names no time


class Animation:
    """A moving picture. Its frames last differently long; times are exact, the frame rate is the mean."""

    sampled = False

    def __init__(self, source: Source, limits: VideoLimits) -> None:
        self.name = source.name
        self._source = source
        self._broken = False
        with self._opened() as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise VideoError(
                    f"{self.name} has frames of {width} x {height} pixels, more than the limit of "
                    f"{limits.max_pixels:,}. Scale it down first."
                )
            lengths_ms = list(itertools.islice(self._lengths(image), limits.max_frames))
        if not lengths_ms:
            raise VideoError(f"{self.name} holds no frame that can be decoded. Copy or download it again.")
        self._starts_s = [0.0, *(total / 1000 for total in itertools.accumulate(lengths_ms))]
        duration_s = self._starts_s.pop()
        self.info = VideoInfo(duration_s, len(lengths_ms) / duration_s, len(lengths_ms), width, height)
        if duration_s > limits.max_seconds:
            raise VideoError(f"{self.name} is {duration_s:,.0f} s long; the limit is {limits.max_seconds:,.0f} s.")

    def timestamp_s(self, index: int) -> float:
        return self._starts_s[index]

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        from .video import Frame, chosen

        wanted = chosen(indices, self.info.num_frames, self.name)
        found = 0
        with self._opened() as image:
            for index in wanted:
                try:
                    image.seek(index)
                    shown = to_rgb(image.convert("RGBA") if image.mode == "P" else image)
                except (EOFError, OSError, SyntaxError, ValueError):
                    break
                found += 1
                yield Frame(index, self.timestamp_s(index), shown.copy() if shown is image else shown)
        if wanted and not found:
            raise VideoError(f"{self.name} is damaged: none of its frames can be decoded. Copy or download it again.")
        if found < len(wanted) or self._broken:
            warnings.warn(
                f"{self.name} is cut off or damaged: {found} of {len(wanted)} chosen frames could be decoded. "
                "The answer rests on those.",
                stacklevel=2,
            )

    def _lengths(self, image: Image.Image) -> Iterator[int]:
        """Milliseconds of each frame that can be decoded."""
        for index in itertools.count():
            try:
                image.seek(index)
                image.load()
            except EOFError:
                return
            except (OSError, SyntaxError, ValueError):
                self._broken = True
                return
            yield int(image.info.get("duration") or 0) or _DEFAULT_MS

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        content = self._source.content
        try:
            image = Image.open(content if isinstance(content, Path) else io.BytesIO(content), formats=["GIF", "WEBP"])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.name} is damaged or too large: {error}. Copy or download it again.") from error
        with image:
            yield image
