"""A checkpoint -> the same one with the text model's matrices in 8 or 4 bits, as checkpoint/quantised.py describes it.

The values are those that the native runtime makes when it loads a plain checkpoint in that mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .. import hub
from ..checkpoint import OutgoingTensor, TensorEntry, map_tensor, read_index, read_json, write, write_json
from ..checkpoint.quantised import GROUP, METHOD, MODES, SCALE, STORED
from ..checkpoint.shapes import HEAD
from ..errors import CheckpointError, ConfigError, InputError
from .bindings import INT4, INT8, SOURCES, Pool, load_kernels
from .machine import usable_cores

LAYERS = "model.text_model.layers."
FORMATS = {"int8": INT8, "int4": INT4}


def quantise(source: Path, target: Path, mode: str, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write `target`, a checkpoint directory. mode: "int8" (a scale a row) or "int4" (a scale for 32 values).

    progress: called with (bytes done, bytes in all) of the source. Raises ConfigError for another mode, or without the
    native kernels; InputError when target is the source; CheckpointError when the source is quantised or damaged.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r} is not known; use one of {', '.join(MODES)}.")
    if target.exists() and (not target.is_dir() or target.samefile(source)):
        raise InputError(f"{target} can't be written to: give the name of a new directory.")
    config = read_json(source / "config.json")
    entries = read_index(source)
    if "quantization_config" in config or any(entry.dtype in STORED for entry in entries.values()):
        raise CheckpointError(f"{source} is quantised already: take the original checkpoint.")
    pool = Pool(usable_cores())
    total, done = sum(entry.num_bytes for entry in entries.values()), 0
    outgoing: dict[str, OutgoingTensor] = {}

    def read(entry: TensorEntry, part: int | None) -> np.ndarray:
        """The tensor as it is, or its values (0) or scales (1): made twice, as keeping them takes a model's memory."""
        nonlocal done
        array = map_tensor(entry) if part is None else _quantised(pool, FORMATS[mode], entry)[part]
        done += 0 if part == 1 else entry.num_bytes
        if progress is not None:
            progress(done, total)
        return array

    for name, entry in entries.items():
        if not _is_quantised(name, entry):
            outgoing[name] = OutgoingTensor(entry.dtype, entry.shape, partial(read, entry, None))
            continue
        outputs, inputs = entry.shape
        values, scales = ("I8", "F32") if mode == "int8" else ("U8", "BF16")
        width = inputs if mode == "int8" else inputs // 2
        groups = (outputs,) if mode == "int8" else (outputs, inputs // GROUP)
        outgoing[name] = OutgoingTensor(values, (outputs, width), partial(read, entry, 0))
        outgoing[name + SCALE] = OutgoingTensor(scales, groups, partial(read, entry, 1))
    write(target, outgoing)
    hub.copy_processor_files(source, target)
    config["quantization_config"] = {"quant_method": METHOD, "mode": mode, "group_size": GROUP}
    write_json(target / "config.json", config)
    return target


def _is_quantised(name: str, entry: TensorEntry) -> bool:
    """Matrices of the text model that fill whole groups. The table of embeddings stays: few rows of it are read."""
    is_matrix = name == HEAD or (name.startswith(LAYERS) and name.endswith("_proj.weight"))
    return is_matrix and entry.dtype in ("F32", "BF16", "F16") and entry.shape[1] % GROUP == 0


def _quantised(pool: Pool, form: int, entry: TensorEntry) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of a matrix as they are stored."""
    outputs, inputs = entry.shape
    given = np.ascontiguousarray(map_tensor(entry))
    if form == INT8:
        values, scale = np.empty((outputs, inputs), np.int8), np.empty(outputs, np.float32)
    else:
        values, scale = np.empty((outputs, inputs // 2), np.uint8), np.empty((outputs, inputs // GROUP), np.uint16)
    load_kernels().sm_quantise(
        pool.address, form, SOURCES[entry.dtype], outputs, inputs, given.ctypes.data, values.ctypes.data,
        scale.ctypes.data,
    )  # fmt: skip
    return values, scale
