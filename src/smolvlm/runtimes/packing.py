"""A checkpoint's tensors in the layout of the kernels, and the structures that point to them.

Where a tensor comes from is a shelf's business: Weights packs those of a checkpoint, overlay.py's Adapted takes them
from there but for what an adapter changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..checkpoint import TensorEntry, map_tensor
from ..checkpoint.quantised import read_values
from ..config import SmolVLMConfig
from .bindings import (
    BF16,
    F32,
    GROUP,
    INT4,
    INT8,
    PANEL,
    SOURCES,
    LayerStruct,
    LinearStruct,
    Pool,
    TextStruct,
    TowerStruct,
    VisionStruct,
    load_kernels,
)

Progress = Callable[[int, int], None]
QUANTISED = {"I8": INT8, "U8": INT4}  # types of a quantised checkpoint's tensors, and what they are packed as
LINE = 64  # bytes of a cache line: vectors that cross one are slower


@dataclass(frozen=True)
class Mode:
    """Formats of the weights. int8_inputs: the vision tower rounds its activations to 8 bits, too."""

    vision: int
    text: int
    int8_inputs: bool = False


MODES = {
    "float32": Mode(F32, F32),
    "bfloat16": Mode(BF16, BF16),
    "int8": Mode(BF16, INT8),
    "int8-vision": Mode(INT8, INT8, int8_inputs=True),
    "int4": Mode(BF16, INT4),
}


class Shelf(Protocol):
    """Where the towers take their weights from. kept: memory that the kernels point to."""

    kept: list[Any]

    def linear(
        self, names: Sequence[str], form: int, int8_inputs: bool = False, interleaved: bool = False
    ) -> LinearStruct:
        """One product for several matrices of the same inputs: their outputs one after another, or by turns of 32."""
        ...

    def vector(self, name: str) -> int:
        """The address of a tensor's values, float32."""
        ...


class Weights:
    """The shelf of a checkpoint. entries, scales: where its tensors lie, the head's included, see checkpoint.Contents.

    linears, vectors: what was packed so far. progress: called with (bytes done, total) after each matrix.
    """

    def __init__(
        self,
        entries: Mapping[str, TensorEntry],
        scales: Mapping[str, TensorEntry],
        pool: Pool,
        *,
        total: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.entries, self.scales, self.pool = entries, scales, pool
        self.kept: list[Any] = []
        self.linears: dict[tuple[str, ...], LinearStruct] = {}
        self.vectors: dict[str, int] = {}
        self._done, self._total, self._progress = 0, total, progress

    def linear(
        self, names: Sequence[str], form: int, int8_inputs: bool = False, interleaved: bool = False
    ) -> LinearStruct:
        # Mapped one by one: pages of a tensor that is packed don't stay beside its packed copy.
        weights = [map_tensor(self.entries[f"{name}.weight"]) for name in names]
        weights = [weight.reshape(len(weight), -1) for weight in weights]  # a patch's pixels are one row
        source, *others = (self.entries[f"{name}.weight"].dtype for name in names)
        inputs = weights[0].shape[1] * (2 if source == "U8" else 1)
        form = packed_format(form, inputs, int8_inputs)
        if set(others) - {source} or source not in SOURCES or QUANTISED.get(source, form) != form:
            weights, source = [self.floats(f"{name}.weight").reshape(-1, inputs) for name in names], "F32"
        rows, scales = [_rows(weight) for weight in weights], None
        if source in QUANTISED:
            given = [map_tensor(self.scales[f"{name}.weight"]) for name in names]
            scales = arrange([_rows(scale) for scale in given], interleaved)
        addresses = arrange(rows, interleaved)
        panels = len(addresses) // PANEL
        packed = self.keep(aligned(panels * PANEL * inputs * {F32: 8, BF16: 4, INT8: 2, INT4: 1}[form] // 2))
        scale = None
        if form == INT8:
            scale = self.keep(aligned(panels * PANEL * 4))
        elif form == INT4:
            scale = self.keep(aligned(panels * PANEL * inputs // GROUP * 2))
        load_kernels().sm_pack(
            self.pool.address, form, SOURCES[source], panels, inputs, addresses.ctypes.data,
            None if scales is None else scales.ctypes.data, packed, scale,
        )  # fmt: skip
        bias = None
        if f"{names[0]}.bias" in self.entries:
            values = [self.floats(f"{name}.bias") for name in names]
            bias = self.keep(_padded(np.concatenate(values), PANEL))
        self._count(names)
        outputs = sum(map(len, weights))
        linear = LinearStruct(packed, scale, bias, inputs, outputs, form, int(int8_inputs and form == INT8))
        self.linears[tuple(names)] = linear
        return linear

    def vector(self, name: str) -> int:
        self._done += self.entries[name].num_bytes
        self.vectors[name] = self.keep(np.array(self.floats(name)))  # a copy, so that no file stays open for it
        return self.vectors[name]

    def floats(self, name: str) -> np.ndarray:
        """A tensor as float32, of the model's shape."""
        return read_values(self.entries[name], self.scales.get(name))

    def keep(self, array: np.ndarray) -> int:
        """Its address, valid as long as this object."""
        self.kept.append(array)
        return array.ctypes.data

    def _count(self, names: Sequence[str]) -> None:
        self._done += sum(self.entries[f"{name}.weight"].num_bytes for name in names)
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def pack_vision(config: SmolVLMConfig, shelf: Shelf, mode: Mode) -> VisionStruct:
    """The vision tower and the connector."""
    vision, root = config.vision_config, "model.vision_model"
    layers = (LayerStruct * vision.num_hidden_layers)()
    for index in range(vision.num_hidden_layers):
        at = f"{root}.encoder.layers.{index}"
        attention = [f"{at}.self_attn.{part}_proj" for part in ("q", "k", "v")]
        linear = [attention, [f"{at}.self_attn.out_proj"], [f"{at}.mlp.fc1"], [f"{at}.mlp.fc2"]]
        packed = [shelf.linear(names, mode.vision, mode.int8_inputs) for names in linear]
        norms = [shelf.vector(f"{at}.layer_norm{n}.{part}") for n in (1, 2) for part in ("weight", "bias")]
        layers[index] = LayerStruct(*packed, *norms)
    shelf.kept.append(layers)
    plain = F32 if mode.vision == F32 else BF16  # the first and the last step are small and touchy
    heads = vision.num_attention_heads
    tower = TowerStruct(
        vision.num_hidden_layers, vision.hidden_size, heads, heads, vision.hidden_size // heads,
        vision.intermediate_size, int(mode.vision == F32), vision.layer_norm_eps, 0.0, layers,
        shelf.vector(f"{root}.post_layernorm.weight"), shelf.vector(f"{root}.post_layernorm.bias"),
    )  # fmt: skip
    return VisionStruct(
        tower,
        shelf.linear([f"{root}.embeddings.patch_embedding"], plain),
        shelf.linear(["model.connector.modality_projection.proj"], plain),
        shelf.vector(f"{root}.embeddings.position_embedding.weight"),
        vision.image_size, vision.patch_size, vision.patches_per_side, config.scale_factor,
    )  # fmt: skip


def pack_text(config: SmolVLMConfig, shelf: Shelf, mode: Mode) -> TextStruct:
    """The text model and the head."""
    text, root = config.text_config, "model.text_model"
    layers = (LayerStruct * text.num_hidden_layers)()
    for index in range(text.num_hidden_layers):
        at = f"{root}.layers.{index}"
        packed = (
            shelf.linear([f"{at}.self_attn.{part}_proj" for part in ("q", "k", "v")], mode.text),
            shelf.linear([f"{at}.self_attn.o_proj"], mode.text),
            shelf.linear([f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"], mode.text, interleaved=True),
            shelf.linear([f"{at}.mlp.down_proj"], mode.text),
        )
        first, second = (
            shelf.vector(f"{at}.{norm}.weight") for norm in ("input_layernorm", "post_attention_layernorm")
        )
        layers[index] = LayerStruct(*packed, first, None, second, None)
    shelf.kept.append(layers)
    tower = TowerStruct(
        text.num_hidden_layers, text.hidden_size, text.num_attention_heads, text.kv_heads, text.head_size,
        text.intermediate_size, int(mode.text == F32), text.rms_norm_eps, text.rope_theta, layers,
        shelf.vector(f"{root}.norm.weight"), None,
    )  # fmt: skip
    return TextStruct(tower, shelf.linear(["lm_head"], mode.text), text.vocab_size)


def packed_format(wanted: int, inputs: int, int8_inputs: bool) -> int:
    """The format of a matrix: bf16 where its rows don't fill whole groups."""
    ragged = wanted == INT4 and inputs % GROUP or wanted == INT8 and inputs % (4 if int8_inputs else GROUP)
    return BF16 if ragged else wanted


def arrange(rows: Sequence[np.ndarray], interleaved: bool) -> np.ndarray:
    """What several matrices have a row each, in the order of panels: one after another, or by turns of 32.

    Places that no row fills are 0.
    """
    if interleaved:
        padded = [_padded(each, PANEL // 2).reshape(-1, PANEL // 2) for each in rows]
        rows = [np.stack(padded, axis=1).reshape(-1)]
    return _padded(np.concatenate(rows), PANEL)


def aligned(num_bytes: int) -> np.ndarray:
    """Zeros that start at a cache line; the system gives the memory as it is first written."""
    memory = np.zeros(num_bytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + num_bytes]


def _rows(values: np.ndarray) -> np.ndarray:
    """Where each row lies, (outputs,) uint64."""
    assert values.flags.c_contiguous, "rows are read from where they lie"
    return values.ctypes.data + np.arange(len(values), dtype=np.uint64) * np.uint64(values.strides[0])


def _padded(values: np.ndarray, multiple: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(-len(values) % multiple, values.dtype)])
