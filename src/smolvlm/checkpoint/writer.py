"""Write tensors as one safetensors file or as shards with an index, one tensor in memory at a time."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .directory import INDEX_NAME, WEIGHTS_NAME, write_json
from .safetensors import NUMPY_TYPES

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_ALIGNMENT = 8
_NAME_OF = {dtype: name for name, dtype in NUMPY_TYPES.items() if name not in ("BF16", "F8_E4M3", "F8_E5M2")}


@dataclass(frozen=True)
class OutgoingTensor:
    """A tensor to be written. read: called once, when its turn comes; gives the values (bfloat16 as uint16 bits)."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * NUMPY_TYPES[self.dtype].itemsize


def write(
    directory: Path,
    tensors: Mapping[str, OutgoingTensor | np.ndarray],
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write model.safetensors, or shards and their index when it would exceed max_shard_bytes.

    Returns the names of the weight files. A tensor larger than max_shard_bytes gets a shard of its own. Files appear
    under their names when all of them are complete, so the directory the tensors are mapped from can be written to;
    weight files of an earlier save that are no longer part of the checkpoint are removed.
    """
    outgoing = {
        name: tensor if isinstance(tensor, OutgoingTensor) else _from_array(name, tensor)
        for name, tensor in tensors.items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    shards = _plan_shards(outgoing, max_shard_bytes)
    unfinished = {name: directory / f".{name}.{os.getpid()}" for name in shards}
    try:
        for file_name, names in shards.items():
            _write_file(unfinished[file_name], {name: outgoing[name] for name in names}, metadata or {"format": "pt"})
        for file_name, file in unfinished.items():
            file.replace(directory / file_name)
    finally:
        for file in unfinished.values():
            file.unlink(missing_ok=True)
    if list(shards) != [WEIGHTS_NAME]:
        weight_map = {name: file_name for file_name, names in shards.items() for name in names}
        total = sum(tensor.num_bytes for tensor in outgoing.values())
        write_json(directory / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _remove_earlier_weights(directory, kept=set(shards))
    return list(shards)


def write_file(file: Path, tensors: Mapping[str, OutgoingTensor]) -> None:
    """Write one safetensors file of any name, which appears when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        _write_file(unfinished, tensors, {"format": "pt"})
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def parse_size(size: int | str) -> int:
    """Bytes from 5000000000, "5GB" (10^9) or "5GiB" (2^30). Raises InputError for anything else."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", str(size), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise InputError(f"A size of {size!r} can't be used: give a number of bytes, or a text like '5GB' or '500MiB'.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _from_array(name: str, array: np.ndarray) -> OutgoingTensor:
    if array.dtype not in _NAME_OF:
        raise InputError(f"Tensor {name!r} is of numpy type {array.dtype}, which safetensors can't hold.")
    return OutgoingTensor(_NAME_OF[array.dtype], array.shape, lambda: array)


def _plan_shards(tensors: Mapping[str, OutgoingTensor], max_shard_bytes: int | None) -> dict[str, list[str]]:
    """File name -> names of its tensors, in the order in which they are written."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        if max_shard_bytes is not None and shards[-1] and used + tensor.num_bytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += tensor.num_bytes
    if len(shards) == 1:
        return {WEIGHTS_NAME: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": names for i, names in enumerate(shards, start=1)}


def _write_file(file: Path, tensors: Mapping[str, OutgoingTensor], metadata: Mapping[str, str]) -> None:
    # Widest types first: with a header of a multiple of 8 bytes, every tensor is aligned to its own type.
    ordered = sorted(tensors.items(), key=lambda item: (-NUMPY_TYPES[item[1].dtype].itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in ordered:
        end = position + tensor.num_bytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in ordered:
            values = np.ascontiguousarray(tensor.read(), dtype=NUMPY_TYPES[tensor.dtype])
            assert values.nbytes == tensor.num_bytes, f"{name} changed its size while it was written"
            stream.write(values.reshape(-1).view(np.uint8).data)


def _remove_earlier_weights(directory: Path, kept: set[str]) -> None:
    for file in directory.iterdir():
        is_weights = file.name in (WEIGHTS_NAME, INDEX_NAME) or _SHARD_NAME.fullmatch(file.name)
        still_needed = file.name in kept or (file.name == INDEX_NAME and WEIGHTS_NAME not in kept)
        if is_weights and not still_needed:
            file.unlink()
