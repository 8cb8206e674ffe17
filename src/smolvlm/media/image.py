"""The door for pictures: anything that stands for one -> an RGB picture in memory, or an ImageError that says why not.

Files are hostile until proven otherwise: only listed formats are opened, the header's size is checked before a pixel
is decoded, and Pillow's global switches stay as they are. Downloads go through fetch.py, conversions through pixels.py.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import ImageError, MissingDependencyError
from .pixels import array_to_image, as_array, channel_order, is_array, needs_turn, to_rgb, upright
from .source import Source, locate

# Format -> the Pillow module that reads it. HEIF is read by the package pi_heif when that is installed.
_FORMATS = {
    "PNG": "PIL.PngImagePlugin",
    "JPEG": "PIL.JpegImagePlugin",
    "MPO": "PIL.MpoImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "JPEG2000": "PIL.Jpeg2KImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}
_NAMES = "PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 and AVIF"
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class ImageLimits:
    """The most a picture may ask for. max_pixels: width x height, from the header. max_bytes: of a download, base64."""

    max_pixels: int = 178_956_970
    max_bytes: int = 64_000_000
    timeout_s: float = 30.0


def open_image(
    source: Any,
    *,
    allow_url: bool = False,
    limits: ImageLimits | None = None,
    rgb: bool = True,
    quirks: bool = False,
) -> Image.Image:
    """Open a picture and return it upright, in RGB, decoded.

    source: path, URL, data URI, base64, bytes, Source, PIL image, array or tensor. allow_url: fetch http(s) URLs, under
    guard.
    limits: see ImageLimits. Transparency is laid on white, 16 bits become 8, of an animation the first frame is taken.
    rgb=False leaves the mode of a PIL image or array as it is. quirks=True does what the reference does instead:
    transparency in files is dropped, PIL images aren't turned, 16 bits are clipped.
    Raises ImageError when the picture can't be used, FetchError when its URL can't.
    """
    limits = limits or ImageLimits()
    if is_array(source):
        return array_to_image(as_array(source), rgb=rgb, quirks=quirks)[0]
    if isinstance(source, Image.Image):
        return _from_pil(source, limits, rgb=rgb, quirks=quirks)
    located = _locate(source, allow_url, limits)
    with _opened(located, limits) as image, _decoding(located.name):
        image.load()
        turned = upright(image)
        result = turned.convert("RGB") if quirks else to_rgb(turned)
        return result.copy() if result is image else result  # a copy holds no open file


def load_image(image: Any, timeout: float | None = None) -> Image.Image:
    """open_image() under the reference's name: URLs are fetched, under guard. timeout: seconds for a download."""
    limits = ImageLimits() if timeout is None else ImageLimits(timeout_s=timeout)
    return open_image(image, allow_url=True, limits=limits)


def measure_image(source: Any, *, allow_url: bool = False, limits: ImageLimits | None = None) -> tuple[int, int]:
    """(width, height) in pixels of a picture as open_image would return it, from its header alone."""
    limits = limits or ImageLimits()
    if is_array(source):
        shape = tuple(source.shape)
        height, width = shape[1:] if channel_order(shape) == "channels_first" else shape[:2]
        return width, height
    if isinstance(source, Image.Image):
        return _upright_size(source)
    located = _locate(source, allow_url, limits)
    with _opened(located, limits) as image, _decoding(located.name):
        return _upright_size(image)


def _locate(source: Any, allow_url: bool, limits: ImageLimits) -> Source:
    return locate(
        source,
        kind="picture",
        error=ImageError,
        allow_url=allow_url,
        max_bytes=limits.max_bytes,
        timeout_s=limits.timeout_s,
    )


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if image.format == "TIFF":  # Pillow turns these itself
        return width, height
    return (height, width) if needs_turn(image) >= 5 else (width, height)  # 5 to 8 lie on their side


def _from_pil(image: Image.Image, limits: ImageLimits, *, rgb: bool, quirks: bool) -> Image.Image:
    name = repr(str(getattr(image, "filename", "") or "the PIL image"))
    if isinstance(image, ImageFile.ImageFile):  # opened, perhaps not decoded yet
        _check_pixels(name, image.size, limits)
    with _decoding(name):
        image.load()
        image = image if quirks else upright(image)
        if rgb:
            return to_rgb(image, quirks=quirks)
        if image.mode in ("L", "RGB", "RGBA"):
            return image
        return array_to_image(as_array(_array_of(image)), rgb=False, quirks=quirks)[0]


def _array_of(image: Image.Image) -> Any:
    import numpy as np

    return np.asarray(image)


@contextmanager
def _opened(source: Source, limits: ImageLimits) -> Iterator[Image.Image]:
    """The file, its header read and found acceptable, nothing decoded."""
    with _decoding(source.name):
        content = source.content if isinstance(source.content, Path) else io.BytesIO(source.content)
        try:
            image = Image.open(content, formats=_formats())
        except UnidentifiedImageError:
            raise ImageError(_why_not(source)) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(
                f"{source.name} unpacks to more pixels than are safe; nothing was decoded. Scale it down first. {error}"
            ) from error
    with image:
        _check_pixels(source.name, image.size, limits)
        yield image


def _check_pixels(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width} x {height} = {width * height:,} pixels, more than the limit of {limits.max_pixels:,}; "
            "nothing was decoded. Scale it down first."
        )
    if width * height == 0:
        raise ImageError(f"{name} is {width} x {height} pixels: there is nothing to see.")


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Pillow's many ways to fail on damaged files -> one ImageError that names the file."""
    try:
        yield
    except (ImageError, MissingDependencyError):
        raise
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is. Scale it down first.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ValueError and more
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or cut off: {reason}. Copy or download it again.") from error


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """The formats of the list that this Pillow can read; importing its modules makes them known to it."""
    for module in _FORMATS.values():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
    return [name for name in (*_FORMATS, "HEIF") if name in Image.OPEN]


def _why_not(source: Source) -> str:
    """Why a file is not accepted as a picture, from its first bytes."""
    head = source.head(_HEAD_BYTES)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    wanted = f"Accepted are {_NAMES}."
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!")) and b"<svg" in start):
        return f"{source.name} is an SVG drawing: it has no pixels and may run code, so it is refused. Save it as PNG."
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return f"{source.name} is an EPS or PostScript program, which is never run. Save it as PNG."
    if head.startswith(b"%PDF"):
        return f"{source.name} is a PDF document, not a picture. Save the page you mean as PNG."
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return f"{source.name} is a HEIC picture, which needs an extra decoder. Save it as JPEG or PNG."
    if head[4:8] == b"ftyp" or head.startswith((b"\x1a\x45\xdf\xa3", b"FLV", b"OggS")) or head[8:12] == b"AVI ":
        return f"{source.name} is a video, not a picture. Pass it as a video."
    if start.startswith((b"<!doctype html", b"<html")):
        return f"{source.name} is a web page, not a picture. Use the address of the picture itself."
    if _is_text(head):
        return f"{source.name} holds text, not a picture, whatever its name says. {wanted}"
    return f"{source.name} is no picture of a known format, or its beginning is damaged. {wanted}"


def _is_text(head: bytes) -> bool:
    try:
        text = head[: _HEAD_BYTES - 4].decode("utf-8", errors="strict" if len(head) < _HEAD_BYTES - 4 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
