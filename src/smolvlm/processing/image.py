"""Pictures -> tiles -> the float arrays the vision tower takes. Knows no text; see chat.py for the tags of tiles.

plan() decides, tile() cuts, normalise() scales; SmolVLMImageProcessor joins them under the reference's names.
Source: transformers' image_processing_pil_smolvlm.py (5.23); bit-equal to it, see tests/reference/test_image.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media.image import open_image
from ..media.pixels import ChannelOrder, array_to_image, as_array, channel_order, is_array, to_rgb
from ..types import Detail
from .batch import BatchFeature, tensor_kind, to_tensors
from .options import (
    DEFAULTS,
    FILE_KEYS,
    PixelOptions,
    check_options,
    parse_order,
    read_settings,
    refuse_unknown,
    write_settings,
)
from .scale import normalise
from .tiles import TilePlan, plan

__all__ = ["SmolVLMImageProcessor", "TilePlan", "TiledImage", "normalise", "plan", "tile"]

_CALL_ARGUMENTS = (*DEFAULTS, "return_tensors", "return_row_col_info", "data_format", "input_data_format")
_EXTRA_ARGUMENTS = ("reference_quirks", "allow_url", "image_seq_length")
_UNSET: Any = object()  # for arguments whose None means something


@dataclass(frozen=True)
class TiledImage:
    """The tiles of one picture, row by row, then the whole picture as the last one. 0 x 0: one unsplit tile.

    tiles: (tiles, tile_size, tile_size, channels) uint8. unit: the values were fractions of 1 before.
    """

    tiles: np.ndarray
    rows: int
    cols: int
    unit: bool = False


def tile(
    image: Image.Image,
    processor: SmolVLMImageProcessor,
    detail: Detail | None = None,
    max_tiles: int | None = None,
) -> TiledImage:
    """Resize a picture and cut it into tiles by the processor's settings.

    detail None follows the processor's do_image_splitting; see plan() for the others and for max_tiles.
    """
    options = processor.options
    image = to_rgb(image)
    return _cut(image, plan_for(options, image.width, image.height, detail, max_tiles), options.resample)


def plan_for(
    options: PixelOptions, width: int, height: int, detail: Detail | None = None, max_tiles: int | None = None
) -> TilePlan:
    """plan() with the sizes of checked settings."""
    return plan(
        width,
        height,
        longest_edge=options.longest_edge,
        exact_size=options.exact_size,
        tile_size=options.tile_size,
        detail=detail or "high",
        max_tiles=max_tiles,
        split=detail is not None or options.do_image_splitting,
    )


class SmolVLMImageProcessor:
    """Pictures -> pixel_values and pixel_attention_mask, with the documented arguments of the reference.

    do_convert_rgb: any mode to RGB first. do_resize, size: the first resize, {"longest_edge": pixels} or
    {"height": pixels, "width": pixels}. resample: PIL's filter number. do_image_splitting: cut into tiles of
    max_image_size (a number, or {"longest_edge": pixels}); off, a picture is one tile. do_rescale, rescale_factor,
    do_normalize, image_mean, image_std: the scale of the values. do_pad: equal numbers of tiles in a batch, by zero
    tiles, and the mask. return_row_col_info: `rows` and `cols` too. reference_quirks: repeat what the reference gets
    wrong (docs/internals.md). Every argument is an attribute that may be changed, and an argument of the call.
    """

    model_input_names = ("pixel_values", "pixel_attention_mask")

    def __init__(
        self,
        do_convert_rgb: bool = True,
        do_resize: bool = True,
        size: Mapping[str, int] | int | None = None,
        resample: int = 1,
        do_image_splitting: bool = True,
        max_image_size: Mapping[str, int] | int | None = None,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
        do_pad: bool = True,
        return_row_col_info: bool = False,
        reference_quirks: bool = False,
        **extra: Any,
    ) -> None:
        refuse_unknown("image processor", extra, (*_CALL_ARGUMENTS, *_EXTRA_ARGUMENTS, *FILE_KEYS))
        self.do_convert_rgb = do_convert_rgb
        self.do_resize = do_resize
        self.size = _own(size, "size")
        self.resample = resample
        self.do_image_splitting = do_image_splitting
        self.max_image_size = _own(max_image_size, "max_image_size")
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = _own(image_mean, "image_mean")
        self.image_std = _own(image_std, "image_std")
        self.do_pad = do_pad
        self.return_row_col_info = return_row_col_info
        self.reference_quirks = reference_quirks
        self.extra = extra
        check_options(self._settings())

    @property
    def options(self) -> PixelOptions:
        """The settings as they stand, checked."""
        return check_options(self._settings())

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """The same as preprocess()."""
        return self.preprocess(images, **kwargs)

    def preprocess(
        self,
        images: Any,
        *,
        return_tensors: str | None = None,
        return_row_col_info: bool | None = None,
        data_format: ChannelOrder | None = "channels_first",
        input_data_format: ChannelOrder | None = None,
        reference_quirks: bool | None = None,
        allow_url: bool = False,
        **overrides: Any,
    ) -> BatchFeature:
        """Pictures -> pixel_values (batch, tiles, 3, tile_size, tile_size) float32, pixel_attention_mask int64.

        images: one picture, a list (one sample), or a list of lists (a batch); each a path, URL (with allow_url),
        data URI, base64, bytes, PIL image, array or tensor; a 4-D array is a list. return_tensors: "np", "pt", "tf",
        "jax", or None for a list with one array a sample. data_format: where the channels go; None or "none" follows
        the input. input_data_format: where they are in arrays. Other arguments override the processor's own.
        Raises InputError for an unknown argument, ImageError for a picture that can't be used.
        """
        refuse_unknown("image processor", overrides, (*_CALL_ARGUMENTS, *_EXTRA_ARGUMENTS))
        options = check_options({**self._settings(), **{k: v for k, v in overrides.items() if v is not None}})
        quirks = self.reference_quirks if reference_quirks is None else reference_quirks
        source_order = parse_order("input_data_format", input_data_format)
        samples = nest_images(images)
        last = _goes_last(data_format, source_order, samples)
        tiled = [
            [_tile_source(source, options, source_order, quirks=quirks, allow_url=allow_url) for source in sample]
            for sample in samples
        ]
        batch = _join(tiled, options, last=last, quirks=quirks, return_tensors=return_tensors)
        if self.return_row_col_info if return_row_col_info is None else return_row_col_info:
            batch["rows"] = [[image.rows for image in sample] for sample in tiled]
            batch["cols"] = [[image.cols for image in sample] for sample in tiled]
        return batch

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: Mapping[str, Any] | None = None
    ) -> tuple[int, int, int]:
        """(tiles, rows, cols) of a picture, without pixels. One unsplit tile counts as 1 here (0 in the reference)."""
        changed = {name: value for name, value in (images_kwargs or {}).items() if name in DEFAULTS}
        planned = plan_for(check_options({**self._settings(), **changed}), width, height)
        if self.reference_quirks and not planned.rows:
            return 0, 0, 0
        return planned.tiles, planned.rows, planned.cols

    def to_dict(self) -> dict[str, Any]:
        """The settings as a checkpoint file holds them, unknown keys of the file they came from included."""
        own = {"image_processor_type": type(self).__name__, **self.extra, **self._settings()}
        return {**own, "reference_quirks": True} if self.reference_quirks else own

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **overrides: Any) -> SmolVLMImageProcessor:
        """A processor from the content of preprocessor_config.json; keys it doesn't know are kept and written back."""
        known = (*DEFAULTS, "return_row_col_info", "reference_quirks")
        chosen = {name: settings[name] for name in known if settings.get(name) is not None}
        processor = cls(**{**chosen, **overrides})
        rest = {name: value for name, value in settings.items() if name not in known}
        processor.extra = {**rest, **processor.extra}
        return processor

    @classmethod
    def from_pretrained(cls, directory: str | Path, **overrides: Any) -> SmolVLMImageProcessor:
        """A processor from a local checkpoint directory."""
        return cls.from_dict(read_settings(directory, "image_processor", ("preprocessor_config.json",)), **overrides)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write preprocessor_config.json. Returns the file."""
        return write_settings(directory, "preprocessor_config.json", self.to_dict())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DEFAULTS}


def nest_images(images: Any) -> list[list[Any]]:
    """One picture, a list, a list of lists, a 4-D array -> a list of samples, each a list of single pictures."""
    if not isinstance(images, list | tuple):
        return [_singles(images)]
    if not any(isinstance(image, list | tuple) for image in images):
        if len(images) > 1 and all(is_array(image) and image.ndim == 4 for image in images):
            return [_singles(image) for image in images]
        samples = [[single for image in images for single in _singles(image)]]
    elif all(isinstance(image, list | tuple) for image in images):
        samples = [[single for image in sample for single in _singles(image)] for sample in images]
    else:
        raise InputError("A list of images mixes single pictures with lists of pictures: nest all of them, or none.")
    if not any(samples):
        raise InputError("The list of images is empty: give at least one picture.")
    return samples


def _singles(image: Any) -> list[Any]:
    if is_array(image) and image.ndim == 4:
        return list(image)
    if image is None or isinstance(image, list | tuple):
        raise InputError(
            f"images holds {type(image).__name__!r} where a picture should be: a path, URL, PIL image, array or tensor."
        )
    return [image]


def _tile_source(
    source: Any, options: PixelOptions, order: ChannelOrder | None, *, quirks: bool, allow_url: bool
) -> TiledImage:
    """One picture of any kind -> its tiles, following the reference's road for what it takes itself."""
    if is_array(source):
        image, unit = array_to_image(as_array(source), order=order, rgb=options.do_convert_rgb, quirks=quirks)
    else:
        image, unit = open_image(source, allow_url=allow_url, rgb=options.do_convert_rgb, quirks=quirks), False
    tiled = _cut(image, plan_for(options, image.width, image.height), options.resample)
    return TiledImage(tiled.tiles, tiled.rows, tiled.cols, unit=unit)


def _cut(image: Image.Image, planned: TilePlan, resample: int) -> TiledImage:
    for size in planned.sizes:
        if image.size != size:
            image = image.resize(size, resample)
    pixels = _pixels_of(image)  # (height, width, channels)
    if not planned.rows:
        return TiledImage(pixels[None], 0, 0)
    rows, cols, side = planned.rows, planned.cols, planned.tile_size
    tiles = np.empty((rows * cols + 1, side, side, pixels.shape[-1]), np.uint8)
    grid = tiles[:-1].reshape(rows, cols, side, side, -1)
    grid[...] = pixels.reshape(rows, side, cols, side, -1).swapaxes(1, 2)
    tiles[-1] = _pixels_of(image.resize((side, side), resample))
    return TiledImage(tiles, rows, cols)


def _pixels_of(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _join(
    tiled: list[list[TiledImage]], options: PixelOptions, *, last: bool, quirks: bool, return_tensors: str | None
) -> BatchFeature:
    """Samples of tiles -> one batch, with zero tiles where a sample has fewer than the longest."""
    counts = [sum(len(image.tiles) for image in sample) for sample in tiled]
    first = next(image for sample in tiled for image in sample)
    side, channels = options.tile_size, first.tiles.shape[-1]
    if not options.do_pad and len(set(counts)) > 1:
        if return_tensors is not None:
            raise InputError(
                f"The samples have {counts} tiles, which is no single array. Set do_pad=True, or leave "
                "return_tensors out to get a list."
            )
        samples = [_scale(sample, options, channels, quirks=quirks) for sample in tiled]
        return BatchFeature(pixel_values=[_reorder(sample, last) for sample in samples])

    scaled = options.do_rescale or options.do_normalize or len(set(counts)) > 1 or first.unit
    values = np.zeros((len(tiled), max(counts), channels, side, side), np.float32 if scaled else np.uint8)
    mask = np.zeros((len(tiled), max(counts), side, side), np.int64)
    for sample, count, row, present in zip(tiled, counts, values, mask, strict=True):
        _scale(sample, options, channels, quirks=quirks, out=row[:count])
        present[:count] = 1
    batch = BatchFeature(pixel_values=_reorder(values, last))
    if options.do_pad:
        batch["pixel_attention_mask"] = mask
    kind = tensor_kind(return_tensors)
    for name, array in batch.items():
        batch[name] = list(array) if kind is None else to_tensors(array, kind, name)
    return batch


def _scale(
    sample: list[TiledImage], options: PixelOptions, channels: int, *, quirks: bool, out: np.ndarray | None = None
) -> np.ndarray:
    """The tiles of one sample -> (tiles, channels, side, side) float32."""
    if any(image.tiles.shape[-1] != channels for image in sample):
        raise InputError("The pictures have different numbers of channels. Leave do_convert_rgb on to make them equal.")
    side, total = options.tile_size, sum(len(image.tiles) for image in sample)
    values = np.empty((total, channels, side, side), np.float32) if out is None else out
    start = 0
    for image in sample:
        part = values[start : start + len(image.tiles)]
        normalise(image.tiles, options, unit=image.unit, twice=quirks, out=part)
        start += len(image.tiles)
    return values


def _goes_last(data_format: ChannelOrder | None, source: ChannelOrder | None, samples: list[list[Any]]) -> bool:
    """Whether the channels of the result come last."""
    order = parse_order("data_format", data_format)
    if order in ("channels_first", "channels_last"):
        return order == "channels_last"
    first = next(image for sample in samples for image in sample)
    if not is_array(first):
        return True  # PIL pictures and files hold their channels last
    return (source or channel_order(tuple(first.shape))) == "channels_last"


def _reorder(values: np.ndarray, last: bool) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, -3, -1)) if last else values


def _own(value: Any, name: str) -> Any:
    """An argument or its default, as a copy the caller can't change behind our back."""
    chosen = DEFAULTS[name] if value is None else value
    if hasattr(chosen, "keys"):
        return {key: side for key, side in dict(chosen).items() if side is not None}
    return list(chosen) if isinstance(chosen, list | tuple) else chosen
