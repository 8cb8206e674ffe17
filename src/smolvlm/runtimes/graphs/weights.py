"""A checkpoint's tensors in the forms that graphs hold: float32, float16, or blocks of 8 or 4 bits.

Blocks are those of ONNX Runtime's MatMulNBits: 32 inputs of one output share a scale; value = scale * (number - half).
A checkpoint that `smolvlm quantize` wrote in as many bits keeps its numbers exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...checkpoint import map_tensor
from ...checkpoint.contents import Contents
from ...checkpoint.quantised import GROUP, STORED, logical_shape
from ...checkpoint.safetensors import widen
from ...config import SmolVLMConfig
from .graph import MICROSOFT, Graph

ROWS = 2048  # of a matrix, quantised at a time
SHRUNK = (1.0, 0.94, 0.88, 0.82)  # scales that are tried for 4 bits, as shares of what holds the largest value
INT8_ACTIVATIONS = 4  # accuracy_level of MatMulNBits: inputs may be rounded to 8 bits, a scale for every 32


class Source:
    """The tensors of a checkpoint directory, with an adapter merged into them where one is given.

    Raises CheckpointError when they don't fit its config, or the adapter doesn't.
    """

    def __init__(
        self,
        directory: Path,
        adapter: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._progress, self._read = progress, 0
        self.config = SmolVLMConfig.from_file(directory / "config.json")
        self._contents = Contents(directory, self.config, adapter)

    def __contains__(self, name: str) -> bool:
        return name in self._contents.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return logical_shape(name, self._contents.tensors[name])

    def floats(self, name: str) -> np.ndarray:
        """float32, of the model's shape."""
        self._count(name)
        return self._contents.floats(name)

    def blocks(self, name: str, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """A matrix as MatMulNBits takes it: (outputs, blocks, bytes) uint8 and scales (outputs, blocks) float32."""
        entry = self._contents.tensors[name]
        if STORED.get(entry.dtype) != f"int{bits}":
            matrix = self.floats(name)
            parts = [quantise(matrix[start : start + ROWS], bits) for start in range(0, len(matrix), ROWS)]
            return np.concatenate([packed for packed, _ in parts]), np.concatenate([scales for _, scales in parts])
        self._count(name)
        values, scale = map_tensor(entry), map_tensor(self._contents.scales[name])
        if entry.dtype == "I8":
            scales = np.repeat(scale[:, None], values.shape[1] // GROUP, axis=1)
            return pack(values.reshape(len(values), -1, GROUP), bits), scales
        halves = values.reshape(len(values), -1, GROUP // 2)
        numbers = np.concatenate([halves & 15, halves >> 4], axis=2).astype(np.int8) - 8
        return pack(numbers, bits), widen(scale)

    def _count(self, name: str) -> None:
        total = self._contents.num_bytes
        self._read += self._contents.tensors[name].num_bytes
        if self._progress is not None:
            self._progress(min(self._read, total), total)  # tied embeddings are read twice


def quantise(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, inputs) float32 -> (outputs, blocks, bytes) uint8 and scales (outputs, blocks) float32."""
    inputs = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % GROUP)))
    groups = inputs.reshape(len(matrix), -1, GROUP)  # (outputs, blocks, 32)
    if bits == 8:
        scale = np.abs(groups).max(axis=2, keepdims=True) / 127
        return pack(_rounded(groups, scale, 127), bits), scale[..., 0]
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2, keepdims=True), axis=2)
    best, best_error = np.zeros_like(largest), np.full_like(largest, np.inf)
    for share in SHRUNK:  # the largest value becomes -8, or is cut where the others gain more than it loses
        scale = largest / -8 * np.float32(share)
        error = np.square(groups - _rounded(groups, scale, 7) * scale).sum(axis=2, keepdims=True)
        best, best_error = np.where(error < best_error, scale, best), np.minimum(error, best_error)
    return pack(_rounded(groups, best, 7), bits), best[..., 0]


def _rounded(groups: np.ndarray, scale: np.ndarray, most: int) -> np.ndarray:
    """Whole numbers from -most - 1 to most."""
    steps = np.divide(groups, scale, out=np.zeros_like(groups), where=scale != 0)
    return np.clip(np.rint(steps), -most - 1, most)


def pack(numbers: np.ndarray, bits: int) -> np.ndarray:
    """(outputs, blocks, 32) whole numbers around 0 -> bytes; of two of 4 bits the first is the low half."""
    unsigned = (numbers.astype(np.int16) + (1 << bits - 1)).astype(np.uint8)
    return unsigned if bits == 8 else unsigned[..., ::2] | unsigned[..., 1::2] << 4


def linear(graph: Graph, source: Source, x: str, names: Sequence[str], bits: int) -> str:
    """x times one or several matrices of the same inputs, their outputs side by side, and their biases."""
    name = names[0] if len(names) == 1 else "+".join([names[0], *(one.rsplit(".", 1)[1] for one in names[1:])])
    weights = graph.weights
    if bits:
        if f"{name}.blocks" not in weights:
            parts = [source.blocks(f"{one}.weight", bits) for one in names]
            weights.add(f"{name}.blocks", np.concatenate([packed for packed, _ in parts]))
            weights.add(f"{name}.scales", np.concatenate([scales for _, scales in parts]).astype(graph.number))
        outputs, inputs = weights.tensor(f"{name}.scales").dims[0], source.shape(f"{names[0]}.weight")[1]
        x = graph.op(
            "MatMulNBits", x, graph.weight(f"{name}.blocks"), graph.weight(f"{name}.scales"), domain=MICROSOFT,
            K=inputs, N=outputs, bits=bits, block_size=GROUP, accuracy_level=INT8_ACTIVATIONS,
        )  # fmt: skip
    else:
        if f"{name}.weight" not in weights:
            matrix = np.concatenate([source.floats(f"{one}.weight") for one in names])
            weights.add(f"{name}.weight", matrix.T.astype(graph.number))
        x = graph.op("MatMul", x, graph.weight(f"{name}.weight"))
    if f"{names[0]}.bias" not in source:
        return x
    if f"{name}.bias" not in weights:
        bias = np.concatenate([source.floats(f"{one}.bias") for one in names])
        weights.add(f"{name}.bias", bias.astype(graph.number))
    return graph.op("Add", x, graph.weight(f"{name}.bias"))


def vector(graph: Graph, source: Source, name: str) -> str:
    """A tensor that stays float32 and keeps its shape."""
    if name not in graph.weights:
        graph.weights.add(name, source.floats(name))
    return graph.weight(name)
