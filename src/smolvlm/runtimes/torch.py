"""The motor for any device that PyTorch has. Keys and values of many sequences lie in slabs that are written in place.

A slab holds the slots of one size, so that one forward reads a token for each of them; slots of a prompt that is still
being read go through the model one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..model import KVCache, SmolVLMForConditionalGeneration
from .machine import available_memory
from .motor import Slot, Span

SAMPLED = 64  # values of each tensor that go into a fingerprint
SMALLEST_SLOT = 256  # tokens; larger slots are powers of two, so that requests of like lengths share a slab
FIRST_ROWS = 2


class TorchMotor:
    """See runtimes.motor.Motor. Features stay tensors on the device."""

    name = "torch"

    def __init__(self, model: SmolVLMForConditionalGeneration) -> None:
        self.model = model
        self.config = model.config
        self._slabs: dict[int, _Slab] = {}

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

    @torch.inference_mode()
    def encode(self, pixel_values: np.ndarray) -> Tensor:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden), a tensor on the device."""
        pixels = torch.from_numpy(pixel_values)[None].to(self.model.device)
        return self.model.model.get_image_features(pixels)

    def join(self, features: Sequence[Tensor]) -> Tensor:
        return torch.cat([one.to(self.model.device) for one in features])

    def content(self, pictures: Tensor) -> np.ndarray:
        """The bytes of features, (image tokens, bytes) uint8."""
        return pictures.detach().cpu().contiguous().view(torch.uint8).numpy()

    def available_memory(self) -> int:
        """Free memory of a CUDA device, of the machine elsewhere."""
        if self.model.device.type == "cuda":
            return torch.cuda.mem_get_info(self.model.device)[0]
        return available_memory()

    def slot_bytes(self, tokens: int) -> int:
        text = self.config.text_config
        each = 2 * text.num_hidden_layers * text.kv_heads * text.head_size * self.model.dtype.itemsize
        return _size(tokens) * each

    def open(self, tokens: int) -> Slot:
        size = _size(tokens)
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
        if tokens > min(source.length, target.capacity) or target.length:
            raise InputError(
                f"{tokens} tokens of a slot with {source.length} can't be copied into one of {target.capacity} with "
                f"{target.length}."
            )
        for own, other in zip(target.memory.slab.tensors, source.memory.slab.tensors, strict=True):
            own[target.memory.row, :, :tokens] = other[source.memory.row, :, :tokens]
        target.length = tokens

    @torch.inference_mode()
    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans. Raises InputError when a slot is too small.
        """
        for span in spans:
            if span.slot.length + len(span.ids) > span.slot.capacity:
                raise InputError(
                    f"{span.slot.length} + {len(span.ids)} tokens don't fit into a slot of {span.slot.capacity}."
                )
        hidden: list[Tensor | None] = [None] * len(spans)  # (new tokens, hidden) of each
        together: dict[_Slab, list[int]] = {}
        for number, span in enumerate(spans):
            if len(span.ids) == 1 and span.pictures is None:
                together.setdefault(span.slot.memory.slab, []).append(number)
            else:
                hidden[number] = self._read_one(span)
        for slab, numbers in together.items():
            if len(numbers) == 1:
                hidden[numbers[0]] = self._read_one(spans[numbers[0]])
                continue
            for number, row in zip(numbers, self._read_rows(slab, [spans[at] for at in numbers]), strict=True):
                hidden[number] = row
        for span in spans:
            span.slot.length += len(span.ids)
        if not len(wanted):
            return np.empty((0, self.config.text_config.vocab_size), np.float32)
        x = torch.cat([one for one in hidden if one is not None])[list(wanted)]  # (wanted, hidden)
        return self.model.lm_head(x).float().cpu().numpy()

    def _read_one(self, span: Span) -> Tensor:
        """The new tokens of one slot, causally. Returns (new tokens, hidden)."""
        start, end = span.slot.length, span.slot.length + len(span.ids)
        x = self._embed(span)[None]  # (1, new tokens, hidden)
        positions = torch.arange(start, end, device=x.device)[None]
        cache = span.slot.memory.slab.row_cache(span.slot.memory.row, start)
        return self.model.model.text_model(x, None, positions, cache, False, False)[0][0]

    def _read_rows(self, slab: _Slab, spans: Sequence[Span]) -> Tensor:
        """One token for each of several slots of a slab. Returns (slots, 1, hidden).

        All rows up to the last one are computed, idle ones for nothing: gathering the others would copy the slab.
        """
        rows = [span.slot.memory.row for span in spans]
        count, device = max(rows) + 1, self.model.device
        ids = torch.zeros(count, dtype=torch.long)
        lengths = torch.zeros(count, dtype=torch.long)
        ids[rows] = torch.tensor([int(span.ids[0]) for span in spans])
        lengths[rows] = torch.tensor([span.slot.length for span in spans])
        ids, lengths = ids.to(device), lengths.to(device)
        active = torch.zeros(count, dtype=torch.bool)
        active[rows] = True
        x = self.model.model.text_model.embed_tokens(ids)[:, None]  # (rows, 1, hidden)
        visible = torch.arange(slab.size, device=device) <= lengths[:, None]  # (rows, size)
        cache = _RowsCache(slab, count, lengths, active.to(device))
        out = self.model.model.text_model(x, visible[:, None, None], lengths[:, None], cache, False, False)[0]
        return out[rows]

    def _embed(self, span: Span) -> Tensor:
        """(new tokens, hidden): rows of the table, with the pictures in the places of image tokens."""
        ids = torch.from_numpy(np.asarray(span.ids, np.int64)).to(self.model.device)
        x = self.model.model.text_model.embed_tokens(ids)
        if span.pictures is not None:
            x[ids == self.config.image_token_id] = torch.as_tensor(span.pictures).to(x)
        return x


@dataclass(frozen=True)
class _Place:
    slab: _Slab
    row: int


class _Slab:
    """Slots of `size` tokens: (rows, kv_heads, size, head_dim) for keys and values of each layer."""

    def __init__(self, model: SmolVLMForConditionalGeneration, size: int) -> None:
        self.size = size
        self.free_rows: list[int] = []
        cache = KVCache.allocate(model.config.text_config, 0, size, model.dtype, model.device)
        self.keys, self.values = cache.keys, cache.values

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.keys, *self.values]

    def take_row(self) -> int:
        """The first free row; the slab grows by doubling."""
        if not self.free_rows:
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

    def __init__(self, slab: _Slab, count: int, lengths: Tensor, active: Tensor) -> None:
        """lengths, active: (rows,); rows that are not active keep what they hold."""
        super().__init__()
        self.keys, self.values = slab.keys, slab.values
        self.length = slab.size - 1  # with the new token as many as the mask covers
        self._count = count
        self._at = (torch.arange(count, device=lengths.device)[active], slice(None), lengths[active])
        self._active = active

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """key, value: (rows, kv_heads, 1, head_dim). Returns (rows, kv_heads, size, head_dim)."""
        for slab, new in ((self.keys[layer], key), (self.values[layer], value)):
            slab[self._at] = new[self._active, :, 0]
        return self.keys[layer][: self._count], self.values[layer][: self._count]


def _size(tokens: int) -> int:
    return max(SMALLEST_SLOT, 1 << (tokens - 1).bit_length())
