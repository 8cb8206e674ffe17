"""Read one safetensors file: its header, checked against the file's size, and its tensors as views of a memory map.

The file comes from strangers, so nothing in the header is believed before it is checked.
Source: the format's description at github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import CheckpointError

# Format's name -> numpy type of the same width. bfloat16 and float8 are kept as bits.
NUMPY_TYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": np.dtype(np.uint8),
    "F8_E5M2": np.dtype(np.uint8),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F64": np.dtype("<f8"),
}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies. offset: bytes from the start of the file. dtype: the format's name, such as "BF16".

    computed: gives the values where they aren't those of the file, because an adapter changes them.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    computed: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * NUMPY_TYPES[self.dtype].itemsize


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Name -> place of every tensor in one file, in the order of the header.

    Raises CheckpointError, naming file and tensor, when the header doesn't describe this very file: every byte
    after the header belongs to exactly one tensor.
    """
    entries: dict[str, TensorEntry] = {}
    header, data_start, data_bytes = _parse_header(file)
    for name, description in header.items():
        if name == "__metadata__":
            continue
        entries[name] = _check_tensor(file, name, description, data_start, data_bytes)
    _check_no_gaps(file, entries, data_start, data_bytes)
    return entries


def map_tensor(entry: TensorEntry, mapped: np.ndarray | None = None) -> np.ndarray:
    """The tensor as a view of the file, copy-on-write: changing it never changes the file.

    mapped: the whole file from `map_file`, when several of its tensors are kept: each mapping holds a file open.
    Without it the tensor has a mapping of its own, and what was read of it leaves the process's memory with it.
    """
    if entry.computed is not None:
        return entry.computed()
    if mapped is None:
        mapped = map_file(entry.file)
    view = mapped[entry.offset : entry.offset + entry.num_bytes].view(NUMPY_TYPES[entry.dtype])
    # A header of odd length leaves its tensors between the machine's words, which torch can't use as they are.
    return np.require(view.reshape(entry.shape), requirements=["A"])


def read_floats(entry: TensorEntry) -> np.ndarray:
    """A tensor of floats as float32."""
    return as_floats(map_tensor(entry), entry.dtype)


def as_floats(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 of values as they lie in a file. dtype: the format's name of their type."""
    return widen(values) if dtype == "BF16" else values.astype(np.float32, copy=False)


def widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 as float32. bits: uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 as the bits of bfloat16, uint16; what doesn't fit is cut off."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def map_file(file: Path) -> np.ndarray:
    """All bytes of a file as a copy-on-write memory map, (bytes,) uint8."""
    try:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="c"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be mapped into memory: {error}.") from error


def _parse_header(file: Path) -> tuple[dict[str, object], int, int]:
    """(header, where the tensors start, how many bytes they take)."""
    try:
        file_bytes = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(_LENGTH_BYTES)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == _LENGTH_BYTES else 0
            room = file_bytes - _LENGTH_BYTES
            if len(prefix) < _LENGTH_BYTES or not 2 <= length <= min(room, MAX_HEADER_BYTES):
                raise CheckpointError(_explain_no_header(file, prefix, length, file_bytes))
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error.strerror or error}.") from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=lambda pairs: _refuse_duplicates(file, pairs))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not a safetensors file: its header is not valid JSON ({error}).") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file} is not a safetensors file: its header is not a JSON object.")
    return header, _LENGTH_BYTES + length, file_bytes - _LENGTH_BYTES - length


def _explain_no_header(file: Path, prefix: bytes, length: int, file_bytes: int) -> str:
    if prefix.startswith(b"version "):
        return f"{file} is a Git LFS pointer, not the weights. Run `git lfs pull` where it was cloned."
    if file_bytes < _LENGTH_BYTES + 2:
        return f"{file} is not a safetensors file: it has only {file_bytes} bytes. Download or copy it again."
    return (
        f"{file} is damaged or not a safetensors file: it announces a header of {length} bytes, but the file has "
        f"{file_bytes} and a header takes 2 to {MAX_HEADER_BYTES}. Download or copy it again."
    )


def _refuse_duplicates(file: Path, pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"{file} is damaged: its header names {twice!r} twice.")
    return unique


def _check_tensor(file: Path, name: str, description: object, data_start: int, data_bytes: int) -> TensorEntry:
    fault = f"{file} is damaged at tensor {name!r}:"
    if not isinstance(description, dict) or not {"dtype", "shape", "data_offsets"} <= description.keys():
        raise CheckpointError(f"{fault} it needs dtype, shape and data_offsets, and has {description!r:.100}.")
    dtype, shape, offsets = description["dtype"], description["shape"], description["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY_TYPES:
        raise CheckpointError(f"{fault} dtype {dtype!r:.40} is not known; {', '.join(NUMPY_TYPES)} are.")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{fault} shape {shape!r:.60} and data_offsets {offsets!r:.60} must be lists of whole numbers from 0."
        )
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise CheckpointError(
            f"{fault} it lies at bytes {begin} to {end}, but the file holds {data_bytes} bytes of tensors. "
            "If the download was cut, download it again."
        )
    entry = TensorEntry(file, data_start + begin, tuple(shape), dtype)
    if entry.num_bytes != end - begin:
        raise CheckpointError(f"{fault} {dtype} of shape {shape} takes {entry.num_bytes} bytes, not {end - begin}.")
    return entry


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_no_gaps(file: Path, entries: dict[str, TensorEntry], data_start: int, data_bytes: int) -> None:
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        if entry.offset != position:
            what = "overlaps the one before it" if entry.offset < position else "leaves a gap before it"
            raise CheckpointError(f"{file} is damaged: tensor {name!r} {what}.")
        position += entry.num_bytes
    if position != data_start + data_bytes:
        raise CheckpointError(
            f"{file} is damaged: {data_start + data_bytes - position} bytes at its end belong to no tensor."
        )
