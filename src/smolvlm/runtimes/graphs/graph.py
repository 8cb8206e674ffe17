"""Writing ONNX graphs: a node a call, weights as they come into files beside them. Knows no model.

Several graphs may share one file of weights, which is why weights never lie inside a graph, however small they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET = 20  # the lowest that has Gelu; browsers and ONNX Runtime have had it since 2023
MICROSOFT = "com.microsoft"  # operators of ONNX Runtime, in browsers too
CHUNK_BYTES = 2_000_000_000  # no browser reads a larger file at once
ALIGNMENT = 64
FLOAT, HALF, INT32, INT64, BOOL = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
)  # fmt: skip
Dimension = int | str


class WeightFile:
    """NAME.onnx_data and, where that would exceed CHUNK_BYTES, NAME.onnx_data_1, ...; a context manager."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = f"{name}.onnx_data"
        self._tensors: dict[str, TensorProto] = {}
        self._stream: BinaryIO | None = None
        self.chunks = 0

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def add(self, name: str, values: np.ndarray) -> None:
        """Write an array; it is referred to by its name from now on."""
        assert name not in self._tensors, f"{name} is there already"
        stream = self._room_for(values.nbytes)
        stream.write(bytes(-stream.tell() % ALIGNMENT))
        tensor = TensorProto(name=name, data_location=TensorProto.EXTERNAL, dims=values.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        place = {"location": Path(stream.name).name, "offset": stream.tell(), "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        stream.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self._tensors[name] = tensor

    def tensor(self, name: str) -> TensorProto:
        return self._tensors[name]

    def _room_for(self, num_bytes: int) -> BinaryIO:
        if self._stream is not None and self._stream.tell() + num_bytes + ALIGNMENT <= CHUNK_BYTES:
            return self._stream
        if self._stream is not None:
            self._stream.close()
        suffix = f"_{self.chunks}" if self.chunks else ""
        self._stream = (self._directory / f"{self._name}{suffix}").open("wb")
        self.chunks += 1
        return self._stream


class Graph:
    """Nodes in the order in which they are asked for; values are known by their names.

    half: matrices and what goes into them are float16; sums, norms and softmax stay float32.
    """

    def __init__(self, weights: WeightFile, *, half: bool) -> None:
        self.weights = weights
        self.half = half
        self.kind = HALF if half else FLOAT
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._used: dict[str, TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._renamed: dict[str, str] = {}
        self._known: dict[tuple[object, ...], list[str]] = {}

    def input(self, name: str, kind: int, *dimensions: Dimension) -> str:
        """Declare an input. dimensions: numbers, or names where they differ from call to call."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, dimensions))
        return name

    def rename(self, value: str, name: str) -> None:
        """Give a value the name under which others look for it."""
        self._renamed[value] = name

    def output(self, value: str, name: str, kind: int, *dimensions: Dimension) -> None:
        self.rename(value, name)
        self._outputs.append(helper.make_tensor_value_info(name, kind, dimensions))

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """A node with several outputs, or the one that is there already. An input "" is left out."""
        key = (kind, *inputs, outputs, domain, repr(attributes))
        if key not in self._known:
            names = [f"{kind}_{len(self._nodes)}_{number}" for number in range(outputs)]
            self._nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
            self._known[key] = names
        return list(self._known[key])

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, inputs, 1, domain, **attributes)[0]

    def weight(self, name: str) -> str:
        """A tensor of the file of weights."""
        self._used[name] = self.weights.tensor(name)
        return name

    def constant(self, values: Any, dtype: type = np.int64) -> str:
        """A small tensor that lies in the graph itself."""
        array: np.ndarray = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = name = f"constant_{len(self._constants)}"
            self._used[name] = onnx.numpy_helper.from_array(array, name)
        return self._constants[key]

    # ---- what several towers are made of ----

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a dimension, -1 takes what is left."""
        return self.op("Reshape", x, self.constant(shape))

    def split(self, x: str, *sizes: int, axis: int = -1) -> list[str]:
        return self.ops("Split", [x, self.constant(sizes)], len(sizes), axis=axis)

    def into_matrices(self, x: str) -> str:
        """float32 -> the type of the matrices."""
        return self.op("Cast", x, to=HALF) if self.half else x

    def out_of_matrices(self, x: str) -> str:
        return self.op("Cast", x, to=FLOAT) if self.half else x

    def activation(self, x: str, name: str) -> str:
        """hidden_act of a config."""
        if name in ("silu", "quick_gelu"):
            scaled = x if name == "silu" else self.op("Mul", x, self.constant(1.702, self.number))
            return self.op("Mul", x, self.op("Sigmoid", scaled))
        if name in ("relu", "selu"):
            return self.op(name.capitalize(), x)
        return self.op("Gelu", x, approximate="none" if name == "gelu" else "tanh")

    @property
    def number(self) -> type:
        """numpy's type of the matrices."""
        return np.float16 if self.half else np.float32

    def save(self, file: Path) -> None:
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(name, name) for name in names]
        graph = helper.make_graph(
            self._nodes, file.stem, self._inputs, self._outputs, initializer=list(self._used.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="smolvlm")
        model.ir_version = 9  # that of the opset's own time: readers refuse versions that they don't know
        file.write_bytes(model.SerializeToString())
