"""Checkpoints whose matrices are held in 8 or 4 bits, and what each of their tensors means.

config.json says so: "quantization_config": {"quant_method": "smolvlm", "mode": "int8" | "int4", "group_size": 32}.
Beside each quantised NAME.weight lies NAME.weight_scale; everything else is as in any checkpoint.

    int8   weight I8 (outputs, inputs), scale F32 (outputs,): value = scale * whole number from -127 to 127
    int4   weight U8 (outputs, inputs / 2), scale BF16 (outputs, inputs / 32), one for a group of 32 inputs:
           value = scale * (half - 8); of a group's 16 bytes, byte i has input i in its low half and i + 16 in its high
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..config import SmolVLMConfig, SmolVLMVisionConfig
from ..errors import CheckpointError
from .safetensors import TensorEntry, map_tensor, read_floats, widen

METHOD, GROUP = "smolvlm", 32
MODES = ("int8", "int4")
SCALE = "_scale"
STORED = {"I8": "int8", "U8": "int4"}  # type of a quantised tensor -> its mode


def quantised_mode(config: SmolVLMConfig | SmolVLMVisionConfig, directory: Path) -> str | None:
    """ "int8" or "int4", None for a plain checkpoint. Raises CheckpointError for quantisation by somebody else."""
    found = config.extra.get("quantization_config")
    if found is None:
        return None
    given = found if isinstance(found, dict) else {}
    method, mode = given.get("quant_method"), given.get("mode")
    if method == METHOD and mode in MODES and given.get("group_size", GROUP) == GROUP:
        return str(mode)
    raise CheckpointError(
        f"{directory} is quantised in a way that can't be read (quant_method {method!r}): take the original "
        "checkpoint, and quantise it with `smolvlm quantize`."
    )


def logical_shape(name: str, entry: TensorEntry) -> tuple[int, ...]:
    """The shape of the matrix that a tensor stands for."""
    if entry.dtype == "U8" and len(entry.shape) == 2:
        return entry.shape[0], 2 * entry.shape[1]
    return entry.shape


def split_scales(
    entries: Mapping[str, TensorEntry],
) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """Tensors and, by the names of the tensors that they belong to, scales. Raises CheckpointError when they differ."""
    scales = {name.removesuffix(SCALE): entry for name, entry in entries.items() if name.endswith(".weight" + SCALE)}
    tensors = {name: entry for name, entry in entries.items() if not name.endswith(".weight" + SCALE)}
    for name, entry in tensors.items():
        if entry.dtype not in STORED:
            continue
        outputs, inputs = logical_shape(name, entry)[0], logical_shape(name, entry)[-1]
        wanted = ("F32", (outputs,)) if entry.dtype == "I8" else ("BF16", (outputs, inputs // GROUP))
        scale = scales.get(name)
        if scale is None or (scale.dtype, scale.shape) != wanted or len(entry.shape) != 2 or inputs % GROUP:
            given = "none" if scale is None else f"{scale.dtype} {scale.shape}"
            raise CheckpointError(
                f"{entry.file}: {name!r} is stored as {entry.dtype} and needs a scale {wanted}; there is {given}. "
                "If another tool quantised the checkpoint, take the original one."
            )
    return tensors, scales


def read_values(entry: TensorEntry, scale: TensorEntry | None) -> np.ndarray:
    """A tensor as float32, of floats or quantised. scale: of a quantised one."""
    if entry.dtype not in STORED:
        return read_floats(entry)
    assert scale is not None, f"split_scales lets no {entry.dtype} pass without a scale"
    return dequantise(map_tensor(entry), map_tensor(scale))


def dequantise(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(outputs, inputs) float32. values, scale: as they lie in the file."""
    if values.dtype == np.int8:
        return values * scale[:, None]
    outputs = len(values)
    halves = values.reshape(outputs, -1, GROUP // 2)  # (outputs, groups, 16)
    whole = np.concatenate([halves & 15, halves >> 4], axis=2).astype(np.float32) - 8  # (outputs, groups, 32)
    factor = widen(scale)[:, :, None]
    return (whole * factor).reshape(outputs, -1)
