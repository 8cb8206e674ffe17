"""The settings image and video processors share: their names, defaults, checks and files.

Names and defaults are the reference's, so that a checkpoint's preprocessor_config.json reads as it is; what a file
says beyond them is kept and written back. Source: transformers' image_processing_smolvlm.py (5.23).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, InputError, ModelNotFoundError
from ..media.pixels import ChannelOrder

DEFAULTS: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"longest_edge": 4 * 364},
    "resample": 1,  # PIL's LANCZOS
    "do_image_splitting": True,
    "max_image_size": {"longest_edge": 364},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_pad": True,
}
# Arguments the reference's classes take from every caller and SmolVLM has no use for; only these values are harmless.
IDLE: dict[str, tuple[object, ...]] = {
    "do_center_crop": (None, False),
    "crop_size": (None,),
    "pad_size": (None,),
    "default_to_square": (None, True, False),
    "disable_grouping": (None, True, False),
    "device": (None, "cpu"),
}
# Keys of saved files that say who wrote them; kept, never interpreted here.
FILE_KEYS = ("image_processor_type", "video_processor_type", "processor_class", "feature_extractor_type", "auto_map")


@dataclass(frozen=True)
class PixelOptions:
    """Checked settings of one call. longest_edge or exact_size (width, height) is set when the first resize is on."""

    do_convert_rgb: bool
    do_resize: bool
    longest_edge: int | None
    exact_size: tuple[int, int] | None
    resample: int
    do_image_splitting: bool
    tile_size: int
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    do_pad: bool


def check_options(settings: Mapping[str, Any]) -> PixelOptions:
    """Named settings (all of DEFAULTS) -> PixelOptions. Raises InputError for a value that can't be used."""
    longest_edge, exact_size = parse_size(settings["size"])
    if not settings["do_resize"]:
        longest_edge = exact_size = None
    resample = settings["resample"]
    if isinstance(resample, bool) or not isinstance(resample, int) or not 0 <= resample <= 5:
        raise InputError(f"resample={resample!r} is no filter: it must be one of PIL's numbers 0 to 5 (1 is LANCZOS).")
    return PixelOptions(
        do_convert_rgb=bool(settings["do_convert_rgb"]),
        do_resize=bool(settings["do_resize"]),
        longest_edge=longest_edge,
        exact_size=exact_size,
        resample=int(resample),
        do_image_splitting=bool(settings["do_image_splitting"]),
        tile_size=parse_tile_size(settings["max_image_size"]),
        do_rescale=bool(settings["do_rescale"]),
        rescale_factor=float(settings["rescale_factor"]),
        do_normalize=bool(settings["do_normalize"]),
        image_mean=_channel_values("image_mean", settings["image_mean"]),
        image_std=_channel_values("image_std", settings["image_std"]),
        do_pad=bool(settings["do_pad"]),
    )


def parse_size(size: object) -> tuple[int | None, tuple[int, int] | None]:
    """(longest edge, None) or (None, (width, height)) of a `size` argument; a number is a square."""
    sides = _positive_sides(size)
    if sides is not None and "longest_edge" in sides:
        return sides["longest_edge"], None
    if sides is not None and set(sides) == {"height", "width"}:
        return None, (sides["width"], sides["height"])
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return None, (size, size)
    raise InputError(
        f"size={size!r} can't be used: it must be {{'longest_edge': pixels}}, {{'height': pixels, 'width': pixels}}, "
        "or one number of pixels for both sides."
    )


def parse_tile_size(max_image_size: object) -> int:
    """The side of a tile in pixels, of a `max_image_size` argument."""
    if isinstance(max_image_size, int) and not isinstance(max_image_size, bool) and max_image_size > 0:
        return max_image_size
    sides = _positive_sides(max_image_size)
    if sides is not None and "longest_edge" in sides:
        return sides["longest_edge"]
    if sides is not None and set(sides) == {"height", "width"} and sides["height"] == sides["width"]:
        return sides["height"]
    raise InputError(
        f"max_image_size={max_image_size!r} can't be used: tiles are square, so it must be a number of pixels, "
        "{'longest_edge': pixels}, or {'height': pixels, 'width': pixels} with both the same."
    )


def parse_order(name: str, order: object) -> ChannelOrder | None:
    """A data format: "channels_first", "channels_last", "none" or None (also the reference's enumeration)."""
    value = getattr(order, "value", order)
    if value in (None, "channels_first", "channels_last", "none"):
        return value
    raise InputError(f"{name}={order!r} is unknown: it must be 'channels_first', 'channels_last' or 'none'.")


def refuse_unknown(kind: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise InputError for a keyword that isn't allowed, or an idle one with a value that asks for something."""
    for name, value in given.items():
        if name in IDLE and value not in IDLE[name]:
            raise InputError(f"{name}={value!r} is not something the {kind} does; leave it out.")
        if name not in IDLE and name not in allowed:
            raise InputError(f"The {kind} has no argument {name!r}. It has: {', '.join(sorted(allowed))}.")


def read_settings(directory: str | Path, section: str, files: tuple[str, ...]) -> dict[str, Any]:
    """Settings of a processor from a checkpoint directory: the first of `files`, or `section` of processor_config.json.

    Raises ModelNotFoundError when none is there, CheckpointError when one is no JSON object.
    """
    root = Path(directory)
    nested = _read_json(root / "processor_config.json").get(section)
    if isinstance(nested, dict):
        return nested
    for name in files:
        if (root / name).is_file():
            return _read_json(root / name)
    raise ModelNotFoundError(
        f"{root} holds no processor settings: neither {' nor '.join(files)} nor a processor_config.json with "
        f"{section!r}. Give the directory of a checkpoint."
    )


def write_settings(directory: str | Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Write settings as sorted, readable JSON, as the reference does. Returns the file."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}). Download or save the checkpoint again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(content).__name__}.")
    return content


def _positive_sides(value: object) -> dict[str, int] | None:
    """The set entries of a size dictionary (None entries left out), or None when it isn't one of whole pixels."""
    if not hasattr(value, "keys"):
        return None
    sides = {name: side for name, side in dict(cast(Mapping[str, Any], value)).items() if side is not None}
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides.values())
    return sides if whole else None


def _channel_values(name: str, value: object) -> tuple[float, ...]:
    try:
        values = (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in cast(Any, value))
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (1, 3, 4) or (name == "image_std" and 0.0 in values):
        raise InputError(f"{name}={value!r} can't be used: it must be a number, or one number for each channel.")
    return values
