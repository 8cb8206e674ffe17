"""Softmax attention, one function for both towers: eager, sdpa, or FlashAttention 2.

Knows nothing of layers, caches or positions. Masks are boolean, True = may look.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, MissingDependencyError
from .place import on_cpu

WEIGHTS_AT_ONCE = 4 * 2**20  # of the products for training: four heads of 1,024 patches
IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # of query, key and value as attend takes them, to query's shape


def check_implementation(name: str | None) -> str:
    """Name of an attention implementation that can run here; None chooses sdpa.

    Raises ConfigError for an unknown name, MissingDependencyError when flash-attn isn't installed.
    """
    if name is None:
        return "sdpa"
    if name not in IMPLEMENTATIONS:
        raise ConfigError(f"attn_implementation={name!r} is not known; use one of {', '.join(IMPLEMENTATIONS)}.")
    if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise MissingDependencyError(
            "attn_implementation='flash_attention_2' needs the package flash-attn and an NVIDIA GPU: "
            "pip install flash-attn, or use attn_implementation='sdpa', which is exact and runs everywhere."
        )
    return name


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    implementation: str | Attention,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of (batch, heads, queries, head_dim) over (batch, kv_heads, keys, head_dim).

    mask: bool, broadcastable to (batch, heads, queries, keys), or None; where no CPU learns also numbers, which are
    added to the scores. causal: only without a mask, queries == keys.
    implementation: a name, or a causal attention of its own that sees more keys than these (training/sequence.py).
    Returns (batch, queries, heads * head_dim) and, when asked for, weights (batch, heads, queries, keys): asking
    computes them eagerly, whatever the implementation.
    """
    if not isinstance(implementation, str):
        assert causal and mask is None and not dropout and not need_weights, "an attention of its own has none of these"
        return implementation(query, key, value).transpose(1, 2).flatten(2), None
    groups = query.shape[1] // key.shape[1]
    if not need_weights and not dropout and _learns_on_cpu(query):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
        out = Products.apply(query, key, value, mask, causal)
        return out.transpose(1, 2).flatten(2), None
    if need_weights or implementation == "eager":
        out, weights = _eager(query, _repeat(key, groups), _repeat(value, groups), mask, causal, dropout)
    elif implementation == "flash_attention_2" and mask is None and query.is_cuda:
        out, weights = _flash(query, key, value, causal, dropout), None
    elif groups > 1 and query.shape[2] == 1 and (mask is None or mask.shape[1] == 1):
        out, weights = _one_query(query, key, value, mask, groups, dropout), None
    else:
        out = F.scaled_dot_product_attention(
            query, _repeat(key, groups), _repeat(value, groups), mask, dropout, is_causal=causal
        )
        weights = None
    return out.transpose(1, 2).flatten(2), weights


def _repeat(x: Tensor, groups: int) -> Tensor:
    """Each key/value head serves `groups` consecutive query heads."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, groups: int, dropout: float) -> Tensor:
    """A decode step: the heads of a group become queries of their shared key head, so nothing is repeated."""
    batch, heads, _, head_dim = query.shape
    grouped = query.view(batch, heads // groups, groups, head_dim)
    out = F.scaled_dot_product_attention(grouped, key, value, mask, dropout)
    return out.reshape(batch, heads, 1, head_dim)


def _eager(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> tuple[Tensor, Tensor]:
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5  # (batch, heads, queries, keys)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        least = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask.clamp(min=least)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)  # fp32, as the reference
    return F.dropout(weights, dropout) @ value, weights


def _flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, dropout: float) -> Tensor:
    from flash_attn import flash_attn_func  # type: ignore[import-not-found,unused-ignore]

    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (batch, tokens, heads, head_dim)
    return flash_attn_func(q, k, v, dropout_p=dropout, causal=causal).transpose(1, 2)


def _learns_on_cpu(query: Tensor) -> bool:
    """Whether the backward pass will come, in bfloat16, on a CPU."""
    if not on_cpu(query) or not torch.is_grad_enabled():
        return False
    return query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")


class Products(torch.autograd.Function):
    """softmax(Q K^T) V by plain products of a few heads at a time, made again in the backward pass.

    Keeps as little as scaled_dot_product_attention, whose products on a CPU run at a fourth of the speed of plain ones
    in bfloat16, forward and backward (benchmarks/LOG.md).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """As in attend."""
        ctx.save_for_backward(query, key, value, mask)
        ctx.causal = causal
        out = torch.empty_like(query)
        for part, shared, few in _parts(query, key, mask):
            weights = _softmax(query[part], _for_each(key[shared], query[part]), few, causal)  # (heads, queries, keys)
            out[part] = weights @ _for_each(value[shared], query[part])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        scale = query.shape[-1] ** -0.5
        for part, shared, few in _parts(query, key, mask):
            keys, values = _for_each(key[shared], query[part]), _for_each(value[shared], query[part])
            weights, came = _softmax(query[part], keys, few, ctx.causal), gradient[part]
            found[2][shared] = _together(_turned(weights, came), key[shared])
            change = came @ values.transpose(1, 2)  # (some heads, queries, keys), of the weights
            change = torch.ops.aten._softmax_backward_data(change, weights, -1, weights.dtype).mul_(scale)
            found[0][part] = change @ keys
            found[1][shared] = _together(_turned(change, query[part]), key[shared])
        return *found, None, None


Part = tuple[int, slice]  # number in the batch, heads


def _parts(query: Tensor, key: Tensor, mask: Tensor | None) -> Iterator[tuple[Part, Part, Tensor | None]]:
    """(a few heads of query, theirs of key, their mask): so many that their weights stay in the cache."""
    batch, heads, queries, _ = query.shape
    groups = heads // key.shape[1]
    few = max(1, WEIGHTS_AT_ONCE // (queries * key.shape[2] * groups))  # heads of key
    for number in range(batch):
        for first in range(0, key.shape[1], few):
            some = slice(first * groups, (first + few) * groups)
            seen = None if mask is None else mask[number if len(mask) > 1 else 0]  # (1 or heads, 1 or queries, keys)
            seen = seen if seen is None or len(seen) == 1 else seen[some]
            yield (number, some), (number, slice(first, first + few)), seen


def _for_each(shared: Tensor, query: Tensor) -> Tensor:
    """(heads of key, keys, head_dim) -> (heads of query, keys, head_dim)."""
    return shared if len(shared) == len(query) else shared.repeat_interleave(len(query) // len(shared), dim=0)


def _together(each: Tensor, shared: Tensor) -> Tensor:
    """The gradient of what several heads share: the sum of theirs, in float32."""
    return each if len(each) == len(shared) else each.unflatten(0, (len(shared), -1)).sum(1, dtype=torch.float32)


def _turned(wide: Tensor, narrow: Tensor) -> Tensor:
    """wide^T narrow of (heads, queries, keys) and (heads, queries, head_dim): the large one is read as it lies."""
    return (narrow.transpose(1, 2) @ wide).transpose(1, 2)


def _softmax(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """(heads, queries, keys), in the dtype of query."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)
