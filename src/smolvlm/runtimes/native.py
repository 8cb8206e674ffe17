"""The CPU motor: both towers as native code (kernels/), driven through ctypes. Needs neither torch nor a GPU.

Weights are copied once from the checkpoint into the kernels' layout, rounded to bf16 or to 8 or 4 bits where asked
for; the embedding table stays in the file, of which only the rows that are used come into memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..checkpoint import TensorEntry, map_tensor
from ..checkpoint.adapters import read_for_requests, seeing_fingerprint
from ..checkpoint.contents import Contents
from ..checkpoint.safetensors import as_floats
from ..checkpoint.shapes import EMBEDDINGS, HEAD
from ..config import SmolVLMConfig
from ..errors import ConfigError
from .bindings import PANEL, Pool, SpanStruct, TextStruct, VisionStruct, load_kernels
from .machine import usable_cores
from .motor import ArrayFeatures, LiveAdapter, Slot, Span, require_prefix, require_room, require_tiles
from .overlay import Adapted
from .packing import MODES, Progress, Shelf, Weights, aligned, pack_text, pack_vision

SAMPLED = 64  # values of each array that go into a fingerprint
LONGEST_HEAD = 512  # head_dim that the kernels have room for
# Tiles of so many patches a side have moved positions: the reference sorts float32 coordinates into float32 buckets,
# and rounding moves some of them. No released model is among them, and larger grids have not been looked at.
LARGEST_GRID = 64
MOVED_GRIDS = frozenset((19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50, 54, 55, 58, 59, 61, 62))


@dataclass(frozen=True)
class _Towers:
    """A model as the kernels take it, or the base with an adapter.

    shelf: has the memory that the structures point to. table: of embeddings, as it lies in a file, of type `stored`.
    """

    vision: VisionStruct
    text: TextStruct
    shelf: Shelf
    table: np.ndarray
    stored: str

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """(tokens,) -> (tokens, hidden) float32."""
        return as_floats(self.table[ids], self.stored)


class NativeMotor(ArrayFeatures):
    """See runtimes.motor.Motor. One thread at a time may use it; it uses all cores itself.

    dtype: a name in MODES. threads: the processor's cores by default. adapter: a directory, merged before packing.
    Raises CheckpointError, and ConfigError for a model that the kernels can't run.
    """

    name = "native"
    reads_together = True

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
        contents = Contents(directory, self.config, adapter)
        entries, scales = contents.tensors, contents.scales
        if self.config.tie_word_embeddings:
            entries = {**entries, HEAD: entries[EMBEDDINGS]}
        self._weights = Weights(entries, scales, self._pool, total=contents.num_bytes, progress=progress)
        vision = pack_vision(self.config, self._weights, MODES[dtype])
        self._seeing = [array for array in self._weights.kept if isinstance(array, np.ndarray)]  # of the vision tower
        self._base = self._towers(vision, self._weights, entries[EMBEDDINGS])

    def _towers(self, vision: VisionStruct, shelf: Shelf, table: TensorEntry) -> _Towers:
        text = pack_text(self.config, shelf, MODES[self.dtype])
        return _Towers(vision, text, shelf, map_tensor(table), table.dtype)

    def fingerprint(self) -> str:
        """A short name of the weights that look at pictures, and of their format: their packed bytes are hashed."""
        digest = blake2b(self.dtype.encode(), digest_size=8)
        for array in self._seeing:
            digest.update(array[:: max(1, len(array) // SAMPLED)].tobytes())
        return digest.hexdigest()

    def load_adapter(self, directory: Path) -> LiveAdapter:
        """An adapter for some requests, beside the base's weights. See runtimes.motor.Motor."""
        files = read_for_requests(directory, self.config)
        shelf = Adapted(self._weights, files)
        vision = pack_vision(self.config, shelf, MODES[self.dtype])
        towers = self._towers(vision, shelf, files.saved.get(EMBEDDINGS, self._weights.entries[EMBEDDINGS]))
        return LiveAdapter(shelf.num_bytes, seeing_fingerprint(directory), towers)

    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> np.ndarray:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden) float32. Raises InputError."""
        require_tiles(pixel_values, self.config)
        pixels = np.ascontiguousarray(pixel_values, np.float32)
        hidden = self.config.text_config.hidden_size
        features = np.empty((len(pixels), self.config.image_seq_len, hidden), np.float32)
        self._library.sm_see(
            self._pool.address, ctypes.byref(self._towers_of(adapter).vision), len(pixels), pixels.ctypes.data,
            features.ctypes.data,
        )  # fmt: skip
        return features

    def slot_bytes(self, tokens: int) -> int:
        return self._library.sm_cache_bytes(ctypes.byref(self._base.text), -(-tokens // PANEL) * PANEL)

    def open(self, tokens: int) -> Slot:
        """Room for a sequence of up to `tokens` tokens, empty. Memory is taken as it is filled."""
        return Slot(-(-tokens // PANEL) * PANEL, aligned(self.slot_bytes(tokens)))

    def copy_prefix(self, source: Slot, target: Slot, tokens: int) -> None:
        """Put the first `tokens` tokens of one slot into another, empty one. Raises InputError when they don't fit."""
        require_prefix(source, target, tokens)
        self._library.sm_copy(
            ctypes.byref(self._base.text), source.memory.ctypes.data, source.capacity, target.memory.ctypes.data,
            target.capacity, tokens,
        )  # fmt: skip
        target.length = tokens

    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans, ascending. Spans of all adapters are read in one
        pass over the weights that they share. Raises InputError when a slot is too small.
        """
        require_room(spans)
        x = np.concatenate([self._embed(span) for span in spans])  # (new tokens, hidden)
        described = (SpanStruct * len(spans))()
        for at, span in enumerate(spans):
            slot, model = span.slot, self._towers_of(span.adapter).text
            described[at] = SpanStruct(
                slot.memory.ctypes.data, slot.capacity, slot.length, len(span.ids), ctypes.pointer(model)
            )
        rows = np.asarray(wanted, np.int32)
        logits = np.empty((len(rows), self.config.text_config.vocab_size), np.float32)
        self._library.sm_read(
            self._pool.address, ctypes.byref(self._base.text), len(spans), described, x.ctypes.data,
            len(rows), rows.ctypes.data, logits.ctypes.data,
        )  # fmt: skip
        for span in spans:
            span.slot.length += len(span.ids)
        return logits

    def _towers_of(self, adapter: LiveAdapter | None) -> _Towers:
        return self._base if adapter is None else adapter.memory

    def _embed(self, span: Span) -> np.ndarray:
        """(tokens, hidden) float32: rows of the table, with the pictures in the places of image tokens."""
        x = self._towers_of(span.adapter).embed(span.ids)
        if span.pictures is not None:
            x[span.ids == self.config.image_token_id] = span.pictures
        return x


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
