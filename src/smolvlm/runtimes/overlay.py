"""An adapter beside packed weights: what it changes is its own, everything else is the base's.

Low-rank pairs are added to the base's products as these are computed, parts that were trained whole stand in place of
the base's. Files are checkpoint/adapters.py's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from ..checkpoint import TensorEntry, map_tensor
from ..checkpoint.adapters import AdapterFiles, LowRank
from ..checkpoint.quantised import STORED
from ..checkpoint.safetensors import as_floats, read_floats
from .bindings import BLOCK, F32, PANEL, LinearStruct, LowRankStruct
from .packing import LINE, Weights, aligned, arrange

HALF = PANEL // 2  # outputs of a block
ROWS_AT_ONCE = 1024  # of two matrices that are compared


class Adapted:
    """See packing.Shelf. base: everything of the model has been taken from it before."""

    def __init__(self, base: Weights, files: AdapterFiles) -> None:
        self._base, self._low_rank = base, files.low_rank
        self._replaced = {**files.saved, **_other_bases(files.low_rank, base.entries)}
        self._own = Weights({**base.entries, **self._replaced}, base.scales, base.pool)
        self.kept = self._own.kept

    @property
    def num_bytes(self) -> int:
        """Of its matrices and vectors."""
        return sum(one.nbytes for one in self.kept if isinstance(one, np.ndarray))

    def linear(
        self, names: Sequence[str], form: int, int8_inputs: bool = False, interleaved: bool = False
    ) -> LinearStruct:
        if any(f"{name}.{part}" in self._replaced for name in names for part in ("weight", "bias")):
            linear = self._own.linear(names, form, int8_inputs, interleaved)
        else:
            linear = LinearStruct.from_buffer_copy(self._base.linears[tuple(names)])
        if any(name in self._low_rank for name in names):
            linear.added = ctypes.pointer(self._pack_low_rank(names, form != F32, interleaved))
        return linear

    def vector(self, name: str) -> int:
        return self._own.vector(name) if name in self._replaced else self._base.vectors[name]

    def _pack_low_rank(self, names: Sequence[str], bf16: bool, interleaved: bool) -> LowRankStruct:
        """What the kernels add to a product: As side by side, Bs cut into blocks of 32 outputs."""
        counts = [self._base.entries[f"{name}.weight"].shape[0] for name in names]
        ends = np.cumsum(counts)
        numbers = [np.arange(end - count, end) + 1 for end, count in zip(ends, counts, strict=True)]
        places = arrange(numbers, interleaved).reshape(-1, HALF)  # which output each place has, counted from 1; 0: none
        parts: list[tuple[int, np.ndarray, np.ndarray]] = []  # first rank, its outputs' numbers, (ranks, outputs) of B
        a, b, ranks, size = [], [], 0, 0
        for name, own in zip(names, numbers, strict=True):
            low_rank = self._low_rank.get(name)
            if low_rank is not None:
                a.append(_typed(read_floats(low_rank.a), bf16))  # (ranks, inputs)
                parts.append((ranks, own, _typed(low_rank.scaling * read_floats(low_rank.b).T, bf16)))
                ranks += len(a[-1])
        blocks, first = [], [0]
        for half in places:
            for rank, own, columns in parts:
                is_own = (half >= own[0]) & (half <= own[-1])
                if is_own.any():
                    values = np.zeros((len(columns), HALF), columns.dtype)
                    values[:, is_own] = columns[:, half[is_own] - own[0]]
                    b.append(values.reshape(-1))
                    blocks.append((rank, len(columns), size))
                    size += values.size
            first.append(len(blocks))
        tables = np.array(blocks, BLOCK), np.array(first, np.int32)
        units = np.concatenate(a).view(np.uint32).T  # (units, ranks): a float, or two values of bf16
        addresses = [self._own.keep(_in_lines(values)) for values in (units, np.concatenate(b))]
        added = LowRankStruct(*addresses, *(table.ctypes.data for table in tables), ranks, int(bf16))
        self.kept.append((tables, added))
        return added


def _other_bases(low_rank: Mapping[str, LowRank], entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The matrices that an adapter brings for layers of its own, but for those that the model has, too."""
    bases = {f"{module}.weight": one.base for module, one in low_rank.items()}
    return {name: base for name, base in bases.items() if base is not None and not _is_same(base, entries[name])}


def _is_same(one: TensorEntry, other: TensorEntry) -> bool:
    if other.dtype in STORED:
        return False
    values, others = map_tensor(one), map_tensor(other)
    parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(values), ROWS_AT_ONCE)]
    return all(np.array_equal(as_floats(values[at], one.dtype), as_floats(others[at], other.dtype)) for at in parts)


def _typed(values: np.ndarray, bf16: bool) -> np.ndarray:
    """float32 as it is, or rounded to the bits of bf16."""
    if not bf16:
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _in_lines(values: np.ndarray) -> np.ndarray:
    """Their bytes from a cache line on, (bytes,) uint8; behind them is a line that may be read."""
    memory = aligned(values.nbytes + LINE)[: values.nbytes]
    memory[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return memory
