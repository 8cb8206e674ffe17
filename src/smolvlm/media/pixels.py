"""Decoded pictures of every kind -> 8-bit pixels: turning upright, transparency, 16 bits, floats, channel order.

Works on what is already in memory (PIL images, arrays, tensors); files and addresses are image.py's business.
Where the reference answers, the answer is the same, bit for bit; `quirks=True` also repeats what it gets wrong
(docs/internals.md lists both). Source: transformers' image_transforms.py and image_processing_backends.py (PIL path).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError

ChannelOrder = Literal["channels_first", "channels_last", "none"]

_ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_CHANNELS = (1, 3, 4)


def is_array(source: object) -> bool:
    """True for numpy arrays and torch tensors (told by what they can do, so that torch isn't imported)."""
    return isinstance(source, np.ndarray) or (hasattr(source, "detach") and hasattr(source, "numpy"))


def as_array(source: object) -> np.ndarray:
    """A numpy view of an array or a tensor of any device."""
    if isinstance(source, np.ndarray):
        return source
    tensor = source.detach().cpu()  # type: ignore[attr-defined]
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; the same object when there is nothing to turn."""
    return image if needs_turn(image) == 1 else ImageOps.exif_transpose(image)


def needs_turn(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; unknown numbers are taken as upright, as Pillow does."""
    orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own getexif decodes the whole picture
    return orientation if orientation in range(2, 9) else 1


def to_rgb(image: Image.Image, *, quirks: bool = False) -> Image.Image:
    """Any PIL mode -> RGB: transparency on white, 16 bits scaled down to 8 (quirks=True clips them instead)."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    try:
        if image.mode in _SIXTEEN_BIT_MODES and not quirks:
            return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, layer).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(
            f"The mode {image.mode!r} of the picture has no way to RGB ({error}). Convert it first."
        ) from error


def array_to_image(
    array: np.ndarray, *, order: ChannelOrder | None = None, rgb: bool = True, quirks: bool = False
) -> tuple[Image.Image, bool]:
    """An array -> (PIL image of 8 bits, whether its values were fractions of 1).

    array: (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels; uint8,
    other whole numbers 0..255, 16 bits, booleans, or floats 0..1 or 0..255. order: where the channels are; None looks
    for 1, 3 or 4, first in front. rgb: blend 4 channels on white and repeat 1 channel, as to_rgb does.
    Raises ImageError for other shapes and values. Fractions are cut, not rounded, to 8 bits, as in the reference.
    """
    pixels = _channels_last(array, order)
    if pixels.size == 0:
        raise ImageError(f"An array of shape {tuple(array.shape)} has no pixels.")
    if not quirks:
        pixels = _widen(pixels)
    if rgb and pixels.shape[-1] == 4:
        pixels = _blend_on_white(pixels)
    unit = _is_unit(pixels, quirks)
    if unit:
        pixels = (pixels.astype(np.float64) * 255).astype(np.float32)
    pixels = np.ascontiguousarray(pixels.astype(np.uint8, copy=False))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return (image.convert("RGB") if rgb else image), unit


def channel_order(shape: tuple[int, ...]) -> ChannelOrder:
    """Where the channels of an array of this shape are, by the reference's rule: the first fit of 1, 3 or 4 wins."""
    if len(shape) == 2:
        return "none"
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return "channels_first"
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return "channels_last"
    raise ImageError(
        f"An array of shape {shape} is no picture: it must be (height, width), (height, width, channels) or "
        "(channels, height, width) with 1, 3 or 4 channels."
    )


def _channels_last(array: np.ndarray, order: ChannelOrder | None) -> np.ndarray:
    order = order or channel_order(array.shape)
    if order == "none" or array.ndim == 2:
        if array.ndim != 2:
            raise ImageError(f"input_data_format='none' means (height, width), but the array has shape {array.shape}.")
        return array[..., None]
    if array.ndim != 3 or array.shape[0 if order == "channels_first" else 2] not in _CHANNELS:
        raise ImageError(f"An array of shape {array.shape} has no 1, 3 or 4 channels where {order!r} puts them.")
    return array.transpose(1, 2, 0) if order == "channels_first" else array


def _widen(pixels: np.ndarray) -> np.ndarray:
    """16-bit values -> 8 bits, booleans -> 0 and 255; everything else as it is."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint16 and pixels.max() > 255:
        return _eight_bits(pixels)
    return pixels


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of unknown depth -> uint8. 16 bits are divided by 257, so that 0 and 65535 become 0 and 255."""
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:
        raise ImageError(
            f"Grey values from {low:g} to {high:g} fit neither 0..1, 0..255 nor 0..65535. Scale them to 0..255 first."
        )
    if values.dtype.kind == "f" and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if values.dtype.kind == "f" and high <= 255:
        return np.rint(values).astype(np.uint8)
    if values.dtype == np.int32 and high <= 255:  # mode "I" holds 8-bit values too
        return values.astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _blend_on_white(pixels: np.ndarray) -> np.ndarray:
    whole = np.issubdtype(pixels.dtype, np.integer)
    if not whole and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ImageError(
            f"A float array with transparency must hold values from 0 to 1, got {pixels.min():g} to {pixels.max():g}."
        )
    white = 255 if whole else 1.0
    alpha = pixels[..., 3:4] / white
    blended = alpha * pixels[..., :3] + (1 - alpha) * white
    return (np.round(blended) if whole else blended).astype(pixels.dtype)


def _is_unit(pixels: np.ndarray, quirks: bool) -> bool:
    """True for fractions 0..1, False for 0..255; ImageError for anything else (NaN too)."""
    if pixels.dtype == np.uint8:
        return False
    low, high = float(pixels.min()), float(pixels.max())
    floats = np.issubdtype(pixels.dtype, np.floating)
    if floats and 0 <= low <= high <= 1 and not quirks:
        return True
    if low >= 0 and high <= 255 and (not floats or np.allclose(pixels, pixels.astype(np.int64))):
        return False
    if floats and 0 <= low <= high <= 1:
        return True
    raise ImageError(
        f"Pixel values from {low:g} to {high:g} can't be used: they must be whole numbers 0..255 or fractions 0..1."
    )
