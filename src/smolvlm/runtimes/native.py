"""The CPU motor: both towers as native code (kernels/), driven through ctypes. Needs neither torch nor a GPU.

Weights are copied once from the checkpoint into the kernels' layout, rounded to bf16 or to 8 or 4 bits where asked
for; the embedding table stays in the file, of which only the rows that are used come into memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import map_tensor
from ..checkpoint.contents import Contents
from ..checkpoint.safetensors import as_floats
from ..checkpoint.shapes import EMBEDDINGS, HEAD
from ..config import SmolVLMConfig
from ..errors import ConfigError
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
    SpanStruct,
    TextStruct,
    TowerStruct,
    VisionStruct,
    load_kernels,
)
from .machine import usable_cores
from .motor import ArrayFeatures, Slot, Span, require_prefix, require_room, require_tiles

Progress = Callable[[int, int], None]
SAMPLED = 64  # values of each array that go into a fingerprint
LONGEST_HEAD = 512  # head_dim that the kernels have room for
# Tiles of so many patches a side have moved positions: the reference sorts float32 coordinates into float32 buckets,
# and rounding moves some of them. No released model is among them, and larger grids have not been looked at.
LARGEST_GRID = 64
MOVED_GRIDS = frozenset((19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50, 54, 55, 58, 59, 61, 62))
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


class NativeMotor(ArrayFeatures):
    """Encodes tiles and reads tokens. One thread at a time may use it; it uses all cores itself.

    dtype: a name in MODES. threads: the processor's cores by default. adapter: a directory, merged before packing.
    Raises CheckpointError, and ConfigError for a model that the kernels can't run.
    """

    name = "native"

    def __init__(
        self,
        directory: Path,
        dtype: str,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
        adapter: Path | None = None,
    ) -> None:
        if dtype not in MODES:
            raise ConfigError(f"dtype={dtype!r} is not known to the native runtime; use one of {', '.join(MODES)}.")
        self.dtype = dtype
        self.config = SmolVLMConfig.from_file(directory / "config.json")
        unusual = unusual_parts(self.config)
        if unusual:
            raise ConfigError(f"The native runtime can't run this model ({', '.join(unusual)}): use runtime='torch'.")
        self._library = load_kernels()
        self._library.sm_choose(None)
        self._pool = Pool(threads or usable_cores())
        self._kept: list[Any] = []  # memory that the kernels point to
        packing = _Packing(self, Contents(directory, self.config, adapter), progress)
        self._vision = packing.vision(MODES[dtype])
        self._seeing = [array for array in self._kept if isinstance(array, np.ndarray)]  # of the vision tower
        self._text = packing.text(MODES[dtype])
        self._embeddings, self._embedding_source = packing.embeddings()

    def fingerprint(self) -> str:
        """A short name of the weights that look at pictures, and of their format: their packed bytes are hashed."""
        digest = blake2b(self.dtype.encode(), digest_size=8)
        for array in self._seeing:
            digest.update(array[:: max(1, len(array) // SAMPLED)].tobytes())
        return digest.hexdigest()

    def encode(self, pixel_values: np.ndarray) -> np.ndarray:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden) float32. Raises InputError."""
        require_tiles(pixel_values, self.config)
        pixels = np.ascontiguousarray(pixel_values, np.float32)
        hidden = self.config.text_config.hidden_size
        features = np.empty((len(pixels), self.config.image_seq_len, hidden), np.float32)
        self._library.sm_see(
            self._pool.address, ctypes.byref(self._vision), len(pixels), pixels.ctypes.data, features.ctypes.data
        )
        return features

    def slot_bytes(self, tokens: int) -> int:
        return self._library.sm_cache_bytes(ctypes.byref(self._text), -(-tokens // PANEL) * PANEL)

    def open(self, tokens: int) -> Slot:
        """Room for a sequence of up to `tokens` tokens, empty. Memory is taken as it is filled."""
        return Slot(-(-tokens // PANEL) * PANEL, _aligned(self.slot_bytes(tokens)))

    def copy_prefix(self, source: Slot, target: Slot, tokens: int) -> None:
        """Put the first `tokens` tokens of one slot into another, empty one. Raises InputError when they don't fit."""
        require_prefix(source, target, tokens)
        self._library.sm_copy(
            ctypes.byref(self._text), source.memory.ctypes.data, source.capacity, target.memory.ctypes.data,
            target.capacity, tokens,
        )  # fmt: skip
        target.length = tokens

    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans. Raises InputError when a slot is too small.
        """
        require_room(spans)
        x = np.concatenate([self._embed(span) for span in spans])  # (new tokens, hidden)
        described = (SpanStruct * len(spans))()
        for at, span in enumerate(spans):
            slot, count = span.slot, len(span.ids)
            described[at] = SpanStruct(slot.memory.ctypes.data, slot.capacity, slot.length, count)
        rows = np.asarray(wanted, np.int32)
        logits = np.empty((len(rows), self.config.text_config.vocab_size), np.float32)
        self._library.sm_read(
            self._pool.address, ctypes.byref(self._text), len(spans), described, x.ctypes.data,
            len(rows), rows.ctypes.data, logits.ctypes.data,
        )  # fmt: skip
        for span in spans:
            span.slot.length += len(span.ids)
        return logits

    def _embed(self, span: Span) -> np.ndarray:
        """(tokens, hidden) float32: rows of the table, with the pictures in the places of image tokens."""
        x = as_floats(self._embeddings[span.ids], self._embedding_source)
        if span.pictures is not None:
            x[span.ids == self.config.image_token_id] = span.pictures
        return x


class _Packing:
    """A checkpoint's tensors, one by one, into the kernels' structures."""

    def __init__(self, motor: NativeMotor, contents: Contents, progress: Progress | None) -> None:
        self._motor = motor
        self._contents, self._entries = contents, contents.tensors
        self._total = contents.num_bytes
        self._done = 0
        self._progress = progress

    def vision(self, mode: Mode) -> VisionStruct:
        config, root = self._motor.config.vision_config, "model.vision_model"
        layers = (LayerStruct * config.num_hidden_layers)()
        for index in range(config.num_hidden_layers):
            at = f"{root}.encoder.layers.{index}"
            attention = [f"{at}.self_attn.{part}_proj" for part in ("q", "k", "v")]
            linear = [attention, [f"{at}.self_attn.out_proj"], [f"{at}.mlp.fc1"], [f"{at}.mlp.fc2"]]
            packed = [self._linear(names, mode.vision, mode.int8_inputs) for names in linear]
            norms = [self._vector(f"{at}.layer_norm{n}.{part}") for n in (1, 2) for part in ("weight", "bias")]
            layers[index] = LayerStruct(*packed, *norms)
        plain = F32 if mode.vision == F32 else BF16  # the first and the last step are small and touchy
        heads = config.num_attention_heads
        tower = TowerStruct(
            config.num_hidden_layers, config.hidden_size, heads, heads, config.hidden_size // heads,
            config.intermediate_size, int(mode.vision == F32), config.layer_norm_eps, 0.0, self._keep(layers),
            self._vector(f"{root}.post_layernorm.weight"), self._vector(f"{root}.post_layernorm.bias"),
        )  # fmt: skip
        return VisionStruct(
            tower,
            self._linear([f"{root}.embeddings.patch_embedding"], plain),
            self._linear(["model.connector.modality_projection.proj"], plain),
            self._vector(f"{root}.embeddings.position_embedding.weight"),
            config.image_size, config.patch_size, config.patches_per_side, self._motor.config.scale_factor,
        )  # fmt: skip

    def text(self, mode: Mode) -> TextStruct:
        config, root = self._motor.config.text_config, "model.text_model"
        layers = (LayerStruct * config.num_hidden_layers)()
        for index in range(config.num_hidden_layers):
            at = f"{root}.layers.{index}"
            packed = (
                self._linear([f"{at}.self_attn.{part}_proj" for part in ("q", "k", "v")], mode.text),
                self._linear([f"{at}.self_attn.o_proj"], mode.text),
                self._linear([f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"], mode.text, interleaved=True),
                self._linear([f"{at}.mlp.down_proj"], mode.text),
            )
            norms = (self._vector(f"{at}.{norm}.weight") for norm in ("input_layernorm", "post_attention_layernorm"))
            first, second = norms
            layers[index] = LayerStruct(*packed, first, None, second, None)
        tower = TowerStruct(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.kv_heads,
            config.head_size, config.intermediate_size, int(mode.text == F32), config.rms_norm_eps,
            config.rope_theta, self._keep(layers), self._vector(f"{root}.norm.weight"), None,
        )  # fmt: skip
        head = EMBEDDINGS if self._motor.config.tie_word_embeddings else HEAD
        return TextStruct(tower, self._linear([head.removesuffix(".weight")], mode.text), config.vocab_size)

    def embeddings(self) -> tuple[np.ndarray, str]:
        """The table as it lies in the file, and the type of its values."""
        return map_tensor(self._entries[EMBEDDINGS]), self._entries[EMBEDDINGS].dtype

    def _linear(
        self, names: Sequence[str], form: int, int8_inputs: bool = False, interleaved: bool = False
    ) -> LinearStruct:
        """One product for several matrices of the same inputs: their outputs one after another, or by turns of 32."""
        # Mapped one by one: pages of a tensor that is packed don't stay beside its packed copy.
        weights = [map_tensor(self._entries[f"{name}.weight"]) for name in names]
        weights = [weight.reshape(len(weight), -1) for weight in weights]  # a patch's pixels are one row
        sources = {self._entries[f"{name}.weight"].dtype for name in names}
        source = sources.pop()
        inputs = weights[0].shape[1] * (2 if source == "U8" else 1)
        form = packed_format(form, inputs, int8_inputs)
        if sources or source not in SOURCES or QUANTISED.get(source, form) != form:
            weights, source = [self._contents.floats(f"{name}.weight").reshape(-1, inputs) for name in names], "F32"
        rows, scales = [_rows(weight) for weight in weights], None
        if source in QUANTISED:
            given = [map_tensor(self._contents.scales[f"{name}.weight"]) for name in names]
            scales = arrange([_rows(scale) for scale in given], interleaved)
        addresses = arrange(rows, interleaved)
        panels = len(addresses) // PANEL
        packed = self._keep_array(_aligned(panels * PANEL * inputs * {F32: 8, BF16: 4, INT8: 2, INT4: 1}[form] // 2))
        scale = None
        if form == INT8:
            scale = self._keep_array(_aligned(panels * PANEL * 4))
        elif form == INT4:
            scale = self._keep_array(_aligned(panels * PANEL * inputs // GROUP * 2))
        self._motor._library.sm_pack(
            self._motor._pool.address, form, SOURCES[source], panels, inputs, addresses.ctypes.data,
            None if scales is None else scales.ctypes.data, packed, scale,
        )  # fmt: skip
        bias = None
        if f"{names[0]}.bias" in self._entries:
            bias = self._bias(names)
        self._count(names)
        return LinearStruct(
            packed, scale, bias, inputs, sum(map(len, weights)), form, int(int8_inputs and form == INT8)
        )

    def _bias(self, names: Sequence[str]) -> int:
        values = [self._contents.floats(f"{name}.bias") for name in names]
        return self._keep_array(_padded(np.concatenate(values), PANEL))

    def _vector(self, name: str) -> int:
        self._done += self._entries[name].num_bytes
        return self._keep_array(np.array(self._contents.floats(name)))  # a copy, so that no file stays open for it

    def _keep_array(self, array: np.ndarray) -> int:
        self._motor._kept.append(array)
        return array.ctypes.data

    def _keep(self, layers: Any) -> Any:
        self._motor._kept.append(layers)
        return layers

    def _count(self, names: Sequence[str]) -> None:
        self._done += sum(self._entries[f"{name}.weight"].num_bytes for name in names)
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def packed_format(wanted: int, inputs: int, int8_inputs: bool) -> int:
    """The format of a matrix: bf16 where its rows don't fill whole groups."""
    ragged = wanted == INT4 and inputs % GROUP or wanted == INT8 and inputs % (4 if int8_inputs else GROUP)
    return BF16 if ragged else wanted


def unusual_parts(config: SmolVLMConfig) -> list[str]:
    """What of a model the kernels can't run: they hold what released checkpoints have, and no more."""
    vision, text = config.vision_config, config.text_config
    head_dim, grid = vision.hidden_size // vision.num_attention_heads, vision.patches_per_side
    # two bf16 values are one unit of the kernels
    sizes = (text.hidden_size, text.intermediate_size, vision.intermediate_size, vision.patch_size)
    unusual = [
        (vision.hidden_act != "gelu_pytorch_tanh", f"vision hidden_act {vision.hidden_act!r}"),
        (text.hidden_act != "silu", f"text hidden_act {text.hidden_act!r}"),
        (text.attention_bias or text.mlp_bias, "biases in the text model"),
        (max(text.head_size, head_dim) > LONGEST_HEAD or head_dim % 2, f"head_dim {text.head_size} or {head_dim}"),
        (vision.num_channels != 3, f"{vision.num_channels} colour channels"),
        (grid % config.scale_factor != 0 or grid > LARGEST_GRID or grid in MOVED_GRIDS, f"{grid} patches a side"),
        (any(size % 2 for size in sizes), f"odd sizes ({', '.join(map(str, sizes))})"),
    ]
    return [what for is_so, what in unusual if is_so]


def arrange(rows: Sequence[np.ndarray], interleaved: bool) -> np.ndarray:
    """Addresses of several matrices' rows, in the order of panels: one matrix after another, or by turns of 32."""
    if interleaved:
        padded = [_padded(addresses, PANEL // 2).reshape(-1, PANEL // 2) for addresses in rows]
        rows = [np.stack(padded, axis=1).reshape(-1)]
    return _padded(np.concatenate(rows), PANEL)


def _rows(values: np.ndarray) -> np.ndarray:
    """Where each row lies, (outputs,) uint64."""
    assert values.flags.c_contiguous, "rows are read from where they lie"
    return values.ctypes.data + np.arange(len(values), dtype=np.uint64) * np.uint64(values.strides[0])


def _padded(values: np.ndarray, multiple: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(-len(values) % multiple, values.dtype)])


def _aligned(num_bytes: int) -> np.ndarray:
    """Zeros that start at a cache line; the system gives the memory as it is first written."""
    memory = np.zeros(num_bytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + num_bytes]
