"""Moving GIF and WebP pictures as videos, read by Pillow, which lays transparent frames on the ones before them."""

from __future__ import annotations

import io
import itertools
import time
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
        self._max_pixels = limits.max_pixels
        self._broken = False
        with self._opened() as image:
            width, height = image.size
            self._check_pixels(image)
            lengths_ms = self._all_lengths(image, limits)
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
                if not self._seek(image, index):
                    break
                shown = to_rgb(image.convert("RGBA") if image.mode == "P" else image)
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

    def _all_lengths(self, image: Image.Image, limits: VideoLimits) -> list[int]:
        """Milliseconds of each frame. Raises VideoError for more frames or work than the limits allow."""
        deadline = time.monotonic() + limits.decode_s
        lengths_ms = []
        for length_ms in self._lengths(image):
            lengths_ms.append(length_ms)
            if len(lengths_ms) > limits.max_frames:
                raise VideoError(f"{self.name} has more than {limits.max_frames:,} frames. Cut it first.")
            if time.monotonic() > deadline:
                raise VideoError(
                    f"{self.name} takes more than {limits.decode_s:g} s to decode. Cut it or scale it down first."
                )
        return lengths_ms

    def _lengths(self, image: Image.Image) -> Iterator[int]:
        """Milliseconds of each frame that can be decoded."""
        for index in itertools.count():
            if not self._seek(image, index):
                return
            yield int(image.info.get("duration") or 0) or _DEFAULT_MS

    def _seek(self, image: Image.Image, index: int) -> bool:
        """Decode a frame. False behind the last one that can be; that is the end, or the file is broken there."""
        try:
            image.seek(index)
            self._check_pixels(image)  # a frame may be larger than the header says
            image.load()
        except EOFError:
            return False
        except VideoError:
            raise
        except Image.DecompressionBombError as error:
            raise VideoError(f"{self.name} has a frame of more pixels than are safe: {error}") from error
        except Exception:  # decoders raise OSError, SyntaxError, struct.error, ValueError and more
            self._broken = True
            return False
        return True

    def _check_pixels(self, image: Image.Image) -> None:
        width, height = image.size
        if width * height > self._max_pixels:
            raise VideoError(
                f"{self.name} has frames of {width} x {height} pixels, more than the limit of {self._max_pixels:,}. "
                "Scale it down first."
            )

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        content = self._source.content
        try:
            image = Image.open(content if isinstance(content, Path) else io.BytesIO(content), formats=["GIF", "WEBP"])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.name} is damaged or too large: {error}. Copy or download it again.") from error
        with image:
            yield image
