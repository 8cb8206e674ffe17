"""The motor for any device that PyTorch has. Keys and values of many sequences lie in slabs that are written in place.

A slab holds the slots of one size, so that one forward reads a token for each of them, on an NVIDIA GPU as one recorded
graph; slots of a prompt that is still being read go through the model one by one. An adapter is a twin of the model,
with the same tensors but for its own; slots of each twin are read in a forward of their own.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.adapters import read_for_requests, seeing_fingerprint
from ..model import KVCache, SmolVLMForConditionalGeneration, cuda
from ..model.adapters import load_adapter, twin
from .machine import available_memory
from .memory import CPU_PATCHES_AT_ONCE, FIRST_ROWS, GPU_PATCHES_AT_ONCE, slab_row, slab_size
from .motor import LiveAdapter, Slot, Span, require_prefix, require_room

SAMPLED = 64  # values of each tensor that go into a fingerprint


class TorchMotor:
    """See runtimes.motor.Motor. Features stay tensors on the device."""

    name = "torch"
    reads_together = False

    def __init__(self, model: SmolVLMForConditionalGeneration) -> None:
        self.model = model
        self.config = model.config
        self._slabs: dict[int, _Slab] = {}
        self._on_cuda = model.device.type == "cuda"

    @property
    def device(self) -> str:
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def fingerprint(self) -> str:
        """A sample of every tensor is hashed."""
        model = self.model.model
        digest = blake2b(str(self.model.dtype).encode(), digest_size=8)
        for part in (model.vision_model, model.connector):
            for name, tensor in part.state_dict().items():
                sample = tensor.flatten()[:: max(1, tensor.numel() // SAMPLED)][:SAMPLED].float().cpu().numpy()
                digest.update(name.encode() + sample.tobytes())
        return digest.hexdigest()

    def load_adapter(self, directory: Path) -> LiveAdapter:
        """An adapter for some requests, in the model's dtype. See runtimes.motor.Motor."""
        read_for_requests(directory, self.config)
        model = twin(self.model)
        load_adapter(model, directory, dtype=self.model.dtype)
        shared = {one.data_ptr() for one in self.model.parameters()}
        num_bytes = sum(one.nbytes for one in model.parameters() if one.data_ptr() not in shared)
        return LiveAdapter(num_bytes, seeing_fingerprint(directory), model)

    @torch.inference_mode()
    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> Tensor:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden), a tensor on the device.

        Some tiles at a time, copies of pixels included, so that many take no more memory than a few.
        """
        most = GPU_PATCHES_AT_ONCE if self._on_cuda else CPU_PATCHES_AT_ONCE
        at_once = max(1, most // self.config.vision_config.patches_per_side**2)
        shape = (len(pixel_values), self.config.image_seq_len, self.config.text_config.hidden_size)
        features = torch.empty(shape, dtype=self.model.dtype, device=self.model.device)
        for start in range(0, len(pixel_values), at_once):
            pixels = torch.from_numpy(pixel_values[start : start + at_once])[None].to(self.model.device)
            features[start : start + at_once] = self._with(adapter).get_image_features(pixels)
        return features

    def join(self, features: Sequence[Tensor]) -> Tensor:
        return torch.cat([one.to(self.model.device) for one in features])

    def content(self, pictures: Tensor) -> np.ndarray:
        """The bytes of features, (image tokens, bytes) uint8."""
        return pictures.detach().cpu().contiguous().view(torch.uint8).numpy()

    def available_memory(self) -> int:
        """Free memory of a CUDA device, of the machine elsewhere."""
        return cuda.free_memory(self.model.device) if self._on_cuda else available_memory()

    def slot_bytes(self, tokens: int) -> int:
        return slab_row(self.config, self.model.dtype.itemsize, tokens)

    def open(self, tokens: int) -> Slot:
        size = slab_size(tokens)
        if size not in self._slabs:
            self._slabs[size] = _Slab(self.model, size)
        slab = self._slabs[size]
        row = slab.take_row()
        slot = Slot(size, _Place(slab, row))
        weakref.finalize(slot, slab.free_rows.append, row)
        return slot

    @torch.inference_mode()
    def copy_prefix(self, source: Slot, target: Slot, tokens: int) -> None:
        """Put the first `tokens` tokens of one slot into another, empty one. Raises InputError when they don't fit."""
        require_prefix(source, target, tokens)
        for own, other in zip(target.memory.slab.tensors, source.memory.slab.tensors, strict=True):
            own[target.memory.row, :, :tokens] = other[source.memory.row, :, :tokens]
        target.length = tokens

    @torch.inference_mode()
    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans. Raises InputError when a slot is too small.
        """
        require_room(spans)
        logits: list[Tensor | None] = [None] * len(spans)  # (wanted of the span, vocabulary) of each
        together: dict[tuple[_Slab, LiveAdapter | None], list[int]] = {}
        for number, (span, own) in enumerate(zip(spans, _wanted_of_each(spans, wanted), strict=True)):
            if len(span.ids) == 1 and span.pictures is None and own:
                together.setdefault((span.slot.memory.slab, span.adapter), []).append(number)
            else:
                logits[number] = self._read_one(span, own)
        for numbers in together.values():
            if len(numbers) == 1 and not self._on_cuda:
                logits[numbers[0]] = self._read_one(spans[numbers[0]], [0])
                continue
            for number, row in zip(numbers, self._read_rows([spans[at] for at in numbers]), strict=True):
                logits[number] = row[None]
        for span in spans:
            span.slot.length += len(span.ids)
        return torch.cat([one for one in logits if one is not None]).cpu().numpy()

    def _with(self, adapter: LiveAdapter | None) -> SmolVLMForConditionalGeneration:
        return self.model if adapter is None else adapter.memory

    def _read_one(self, span: Span, wanted: list[int]) -> Tensor:
        """The new tokens of one slot, causally. Returns logits (wanted, vocabulary) float32."""
        start, end = span.slot.length, span.slot.length + len(span.ids)
        x = self._embed(span)[None]  # (1, new tokens, hidden)
        positions = torch.arange(start, end, device=x.device)[None]
        cache = span.slot.memory.slab.row_cache(span.slot.memory.row, start)
        model = self._with(span.adapter)
        hidden = model.model.text_model(x, None, positions, cache, False, False)[0][0]  # (new tokens, hidden)
        return model.lm_head(hidden[wanted]).float()

    def _read_rows(self, spans: Sequence[Span]) -> Tensor:
        """One token for each of several slots of a slab, with one adapter. Returns (slots, vocabulary) float32.

        Idle rows are computed for nothing, because gathering the others would copy the slab: on a CPU up to the last
        one that is needed, on a GPU all of them, so that one graph serves every step.
        """
        slab, model = spans[0].slot.memory.slab, self._with(spans[0].adapter)
        rows = [span.slot.memory.row for span in spans]
        count = len(slab.keys[0]) if self._on_cuda else max(rows) + 1
        ids, lengths = torch.zeros(count, dtype=torch.long), torch.full((count,), slab.size)
        ids[rows] = torch.tensor([int(span.ids[0]) for span in spans])
        lengths[rows] = torch.tensor([span.slot.length for span in spans])
        ids, lengths = ids.to(self.model.device), lengths.to(self.model.device)
        if not self._on_cuda:
            return _step(model, slab, ids, lengths)[rows]
        if model not in slab.graphs:
            slab.graphs[model] = cuda.Graph(partial(_step, model, slab), ids, lengths)
        return slab.graphs[model](ids, lengths)[rows]

    def _embed(self, span: Span) -> Tensor:
        """(new tokens, hidden): rows of the table, with the pictures in the places of image tokens."""
        ids = torch.from_numpy(np.asarray(span.ids, np.int64)).to(self.model.device)
        x = self._with(span.adapter).get_input_embeddings()(ids)
        if span.pictures is not None:
            x[ids == self.config.image_token_id] = torch.as_tensor(span.pictures).to(x)
        return x


@dataclass(frozen=True)
class _Place:
    slab: _Slab
    row: int


class _Slab:
    """Slots of `size` tokens: (rows, kv_heads, size + 1, head_dim) for keys and values of each layer.

    The last place of a row takes what is written while the row is idle. graphs: recorded steps of these tensors, of the
    model and of each twin that is still there.
    """

    def __init__(self, model: SmolVLMForConditionalGeneration, size: int) -> None:
        self.size = size
        self.free_rows: list[int] = []
        self.graphs: weakref.WeakKeyDictionary[torch.nn.Module, cuda.Graph] = weakref.WeakKeyDictionary()
        cache = KVCache.allocate(model.config.text_config, 0, size + 1, model.dtype, model.device)
        self.keys, self.values = cache.keys, cache.values

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.keys, *self.values]

    def take_row(self) -> int:
        """The first free row; the slab grows by doubling."""
        if not self.free_rows:
            self.graphs.clear()  # the tensors move
            have = len(self.keys[0])
            more = max(FIRST_ROWS, have)
            with torch.inference_mode():
                self.keys = [torch.cat([one, one.new_zeros(more, *one.shape[1:])]) for one in self.keys]
                self.values = [torch.cat([one, one.new_zeros(more, *one.shape[1:])]) for one in self.values]
            self.free_rows += range(have, have + more)
        self.free_rows.sort()
        return self.free_rows.pop(0)

    def row_cache(self, row: int, length: int) -> KVCache:
        """One slot as the model takes it; what it writes goes into the slab."""
        cache = KVCache()
        cache.keys = [one[row : row + 1] for one in self.keys]
        cache.values = [one[row : row + 1] for one in self.values]
        cache.length = length
        return cache


class _RowsCache(KVCache):
    """The first rows of a slab, each with its own length, while one token is written to each."""

    def __init__(self, slab: _Slab, lengths: Tensor) -> None:
        """lengths: (rows,), where each row's token goes."""
        super().__init__()
        self.keys, self.values = slab.keys, slab.values
        self.length = slab.size  # with the new token as many as the mask covers
        self._rows, self._lengths = torch.arange(len(lengths), device=lengths.device), lengths

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """key, value: (rows, kv_heads, 1, head_dim). Returns (rows, kv_heads, size + 1, head_dim)."""
        count = len(self._rows)
        for slab, new in ((self.keys[layer], key), (self.values[layer], value)):
            slab[self._rows, :, self._lengths] = new[:, :, 0]
        return self.keys[layer][:count], self.values[layer][:count]


def _step(model: SmolVLMForConditionalGeneration, slab: _Slab, ids: Tensor, lengths: Tensor) -> Tensor:
    """A token of each of the first rows of a slab: (rows,) ids, lengths -> (rows, vocabulary) float32.

    The length of an idle row is the slab's size: what it writes goes where no token is ever read.
    """
    x = model.get_input_embeddings()(ids)[:, None]  # (rows, 1, hidden)
    visible = torch.arange(slab.size + 1, device=ids.device) <= lengths[:, None]  # (rows, size + 1)
    cache = _RowsCache(slab, lengths)
    hidden = model.model.text_model(x, visible[:, None, None], lengths[:, None], cache, False, False)[0]
    return model.lm_head(hidden[:, 0]).float()


def _wanted_of_each(spans: Sequence[Span], wanted: Sequence[int]) -> list[list[int]]:
    """Places in each span, from places that are counted through the spans in ascending order."""
    own: list[list[int]] = [[] for _ in spans]
    first = 0
    for span, places in zip(spans, own, strict=True):
        places += [place - first for place in wanted if first <= place < first + len(span.ids)]
        first += len(span.ids)
    return own
