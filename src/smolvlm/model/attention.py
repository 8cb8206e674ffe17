"""Softmax attention, one function for both towers: eager, sdpa, or FlashAttention 2.

Knows nothing of layers, caches or positions. Masks are boolean, True = may look.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, MissingDependencyError

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")


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
    implementation: str,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of (batch, heads, queries, head_dim) over (batch, kv_heads, keys, head_dim).

    mask: bool, broadcastable to (batch, heads, queries, keys), or None. causal: only without a mask, queries == keys.
    Returns (batch, queries, heads * head_dim) and, when asked for, weights (batch, heads, queries, keys): asking
    computes them eagerly, whatever the implementation.
    """
    groups = query.shape[1] // key.shape[1]
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
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)  # fp32, as the reference
    return F.dropout(weights, dropout) @ value, weights


def _flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, dropout: float) -> Tensor:
    from flash_attn import flash_attn_func  # type: ignore[import-not-found,unused-ignore]

    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (batch, tokens, heads, head_dim)
    return flash_attn_func(q, k, v, dropout_p=dropout, causal=causal).transpose(1, 2)
