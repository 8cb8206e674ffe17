"""Keys and values of past tokens, in one slab a layer that is written in place.

Rows of a batch have one common length: batches are padded on the left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import SmolVLMTextConfig

LegacyCache = Sequence[tuple[Tensor, Tensor]]


class KVCache:
    """Slabs of (batch, kv_heads, capacity, head_dim) for keys and values of each layer.

    `length` tokens are filled. A cache made without capacity grows by doubling.
    """

    def __init__(self) -> None:
        self.length = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @classmethod
    def allocate(
        cls, config: SmolVLMTextConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> KVCache:
        """A static cache: no allocation happens until more than `capacity` tokens are stored."""
        cache = cls()
        shape = (batch, config.kv_heads, capacity, config.head_size)
        for _ in range(config.num_hidden_layers):
            cache.keys.append(torch.empty(shape, dtype=dtype, device=device))
            cache.values.append(torch.empty(shape, dtype=dtype, device=device))
        return cache

    @classmethod
    def from_legacy(cls, layers: LegacyCache) -> KVCache:
        """From per-layer (key, value) pairs of (batch, kv_heads, tokens, head_dim); the tensors are not copied."""
        cache = cls()
        cache.keys = [key for key, _ in layers]
        cache.values = [value for _, value in layers]
        cache.length = cache.keys[0].shape[2] if cache.keys else 0
        return cache

    def to_legacy(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Per-layer (key, value) views of (batch, kv_heads, length, head_dim)."""
        pairs = zip(self.keys, self.values, strict=True)
        return tuple((key[:, :, : self.length], value[:, :, : self.length]) for key, value in pairs)

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, kv_heads, new, head_dim) of one layer; return all filled keys and values of it.

        `length` moves only in `advance`, after the last layer.
        """
        end = self.length + key.shape[2]
        if layer == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
            return key, value
        if key.requires_grad:  # in-place writes would break the backward pass
            self.keys[layer] = torch.cat([self.keys[layer][:, :, : self.length], key], dim=2)
            self.values[layer] = torch.cat([self.values[layer][:, :, : self.length], value], dim=2)
            return self.keys[layer], self.values[layer]
        if end > self.keys[layer].shape[2]:
            self.keys[layer] = _grown(self.keys[layer], self.length, end)
            self.values[layer] = _grown(self.values[layer], self.length, end)
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def get_seq_length(self) -> int:
        """Tokens stored; the reference's name for `length`."""
        return self.length

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        assert 0 <= length <= self.length, f"can't truncate a cache of {self.length} tokens to {length}"
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may appear more than once."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.keys[layer][:, :, : self.length], self.values[layer][:, :, : self.length]


def _grown(slab: Tensor, filled: int, needed: int) -> Tensor:
    batch, heads, _, head_dim = slab.shape
    grown = slab.new_empty(batch, heads, max(needed, 2 * slab.shape[2]), head_dim)
    grown[:, :, :filled] = slab[:, :, :filled]
    return grown
