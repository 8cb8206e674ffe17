"""Causal attention over a sequence that is shared out among processes: keys and values go round, nobody holds them all.

Zigzag: the sequence is cut into 2 W chunks, and rank r has chunks r and 2 W - 1 - r. So each rank has as much to do
as any other: the causal triangle of its own tokens once, and half of all pairs with the tokens of each other rank.
Plain PyTorch and torch.distributed's point-to-point calls, on gloo and NCCL. What a model needs around it: sequence.py.
Source: Ring Attention (arXiv 2310.01889); the order of the chunks is that of Llama 3's context parallelism (2407.21783,
3.3.2); blocks are joined by their log-sum-exp, and the backward pass made again from it, as FlashAttention does
(2205.14135).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .collate import PREFIX

SCORES_AT_ONCE = 2**24  # of pairs of tokens, all heads and rows counted: 64 MiB in float32


def places(tokens: int, rank: int, ranks: int) -> Tensor:
    """Where in a sequence of so many tokens a rank's own are, ascending: (tokens / ranks,) int64.

    tokens: a multiple of 2 * ranks.
    """
    assert tokens % (2 * ranks) == 0, f"{tokens} tokens can't be cut into {2 * ranks} equal chunks"
    chunks = torch.arange(tokens).view(2 * ranks, -1)
    return torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]])


def split(x: Tensor, rank: int, ranks: int, dim: int = 1) -> Tensor:
    """A rank's part of ids, positions, or anything else with the whole sequence along dim."""
    return x.index_select(dim, places(x.shape[dim], rank, ranks).to(x.device))


def gather(x: Tensor, group: dist.ProcessGroup, dim: int = 1) -> Tensor:
    """What `split` cut, whole again on every rank. Without gradients."""
    ranks = dist.get_world_size(group)
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(ranks)]
    dist.all_gather(parts, x.detach().contiguous(), group=group)
    order = torch.cat([places(ranks * x.shape[dim], rank, ranks) for rank in range(ranks)])
    return torch.cat(parts, dim).index_select(dim, order.argsort().to(x.device))


@dataclass(frozen=True)
class Isolation:
    """Who sees whom where rows hold several samples, or samples several branches.

    sample, branch: (ranks, rows, tokens of a rank), numbers as in a Batch.
    """

    sample: Tensor
    branch: Tensor

    @classmethod
    def of(cls, sample: Tensor, branch: Tensor, ranks: int) -> Isolation:
        """sample, branch: (rows, tokens) of the whole sequence."""
        return cls(*(torch.stack([split(x, rank, ranks) for rank in range(ranks)]) for x in (sample, branch)))

    def mask(self, rank: int, source: int, queries: slice, keys: slice) -> Tensor:
        """(rows, queries, keys) bool: same sample, and its prefix or the own branch. Which is earlier isn't asked."""
        together = self.sample[rank][:, queries, None] == self.sample[source][:, None, keys]
        seen = self.branch[source][:, None, keys]
        return together & ((seen == PREFIX) | (seen == self.branch[rank][:, queries, None]))


def ring_attention(
    query: Tensor, key: Tensor, value: Tensor, group: dist.ProcessGroup, isolation: Isolation | None = None
) -> Tensor:
    """Attention of this rank's tokens to all earlier ones of all ranks, and the gradients of that.

    query: (rows, heads, own tokens, head_dim). key, value: (rows, kv_heads, own tokens, head_dim). Tokens as `split`
    cuts them. Returns the shape of query, in its dtype or autocast's; sums are float32. All ranks of the group call it.
    """
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    out: Tensor = _Ring.apply(query.to(dtype), key.to(dtype), value.to(dtype), group, isolation)
    return out


class _Ring(torch.autograd.Function):
    """Heads that share a key stand together: (rows, kv_heads, groups, queries, head_dim)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, group: dist.ProcessGroup, isolation: Isolation | None
    ) -> Tensor:
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        grouped = query.unflatten(1, (key.shape[1], -1))  # (rows, kv_heads, groups, queries, head_dim)
        out = torch.zeros_like(grouped, dtype=torch.float32)
        total = torch.full_like(out[..., 0], -torch.inf)  # (rows, kv_heads, groups, queries), log of the weights' sum
        held = torch.stack([key, value])  # of rank `source`
        for step in range(ranks):
            source = (rank - step) % ranks
            coming = _Passing(held, group) if step + 1 < ranks else None
            for queries, keys, mask in _blocks(grouped, rank, source, isolation):
                scores = _scores(grouped[..., queries, :], held[0, :, :, keys], mask)
                sums = scores.logsumexp(-1)  # (rows, kv_heads, groups, queries)
                weights = (scores - sums[..., None]).exp().to(query.dtype)
                part = torch.einsum("bhgqk,bhkd->bhgqd", weights, held[1, :, :, keys])
                before, after = total[..., queries], torch.logaddexp(total[..., queries], sums)
                out[..., queries, :] *= (before - after).exp()[..., None]
                out[..., queries, :] += (sums - after).exp()[..., None] * part
                total[..., queries] = after
            if coming is not None:
                held = coming.wait()
        ctx.save_for_backward(query, key, value, out, total)
        ctx.group, ctx.isolation = group, isolation
        return out.flatten(1, 2).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Keys and values go round again, and their gradients one step behind them, home in the end."""
        query, key, value, out, total = ctx.saved_tensors
        rank, ranks = dist.get_rank(ctx.group), dist.get_world_size(ctx.group)
        scale = query.shape[-1] ** -0.5
        grouped, came = (x.unflatten(1, (key.shape[1], -1)) for x in (query, gradient))
        mean = (came.float() * out).sum(-1)  # (rows, kv_heads, groups, queries)
        of_query = torch.zeros_like(grouped, dtype=torch.float32)
        held = torch.stack([key, value])
        sent: _Passing | None = None
        for step in range(ranks):
            source = (rank - step) % ranks
            coming = _Passing(held, ctx.group) if step + 1 < ranks else None
            found = torch.zeros_like(held, dtype=torch.float32)  # gradients of held
            for queries, keys, mask in _blocks(grouped, rank, source, ctx.isolation):
                some, some_keys, back = grouped[..., queries, :], held[0, :, :, keys], came[..., queries, :]
                weights = (_scores(some, some_keys, mask) - total[..., queries, None]).exp()
                change = torch.einsum("bhgqd,bhkd->bhgqk", back, held[1, :, :, keys]).float()
                change = (weights * (change - mean[..., queries, None]) * scale).to(query.dtype)
                of_query[..., queries, :] += torch.einsum("bhgqk,bhkd->bhgqd", change, some_keys)
                found[0, :, :, keys] += torch.einsum("bhgqk,bhgqd->bhkd", change, some)
                found[1, :, :, keys] += torch.einsum("bhgqk,bhgqd->bhkd", weights.to(query.dtype), back)
            if sent is not None:
                found += sent.wait()
            sent = _Passing(found, ctx.group, tag=1)
            if coming is not None:
                held = coming.wait()
        assert sent is not None, "a group has a rank"
        of_key, of_value = sent.wait().to(query.dtype)
        return of_query.flatten(1, 2).to(query.dtype), of_key, of_value, None, None


def _blocks(
    grouped: Tensor, rank: int, source: int, isolation: Isolation | None
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """(own queries, keys of rank source, mask (rows or 1, queries, keys)), cut where scores would be too many.

    The keys of an earlier rank: its first chunk is before all of ours, its second after. Of a later rank: both of its
    chunks are before our second, and after our first.
    """
    rows, kv_heads, groups, tokens, _ = grouped.shape
    half, own = tokens // 2, source == rank
    first, end = half if source > rank else 0, half if source < rank else tokens
    at_once = max(1, SCORES_AT_ONCE // (rows * kv_heads * groups * end))
    for start in range(first, tokens, at_once):
        queries = slice(start, min(start + at_once, tokens))
        keys = slice(0, queries.stop if own else end)
        mask = None if isolation is None else isolation.mask(rank, source, queries, keys)
        if own:
            earlier = torch.ones(queries.stop - start, keys.stop, dtype=torch.bool, device=grouped.device).tril(start)
            mask = earlier[None] if mask is None else mask & earlier
        yield queries, keys, mask


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """(rows, kv_heads, groups, queries, keys) float32. Finite where nothing may be seen: sums stay numbers."""
    scores = torch.einsum("bhgqd,bhkd->bhgqk", query, key).float() * query.shape[-1] ** -0.5
    return scores if mask is None else scores.masked_fill_(~mask[:, None, None], torch.finfo(scores.dtype).min)


class _Passing:
    """A tensor on its way to the next rank, while that of the rank before comes."""

    def __init__(self, tensor: Tensor, group: dist.ProcessGroup, tag: int = 0) -> None:
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        self.sent = tensor  # kept until it is there
        self.coming = tensor if ranks == 1 else torch.empty_like(tensor)
        send = dist.P2POp(dist.isend, tensor, group=group, tag=tag, group_peer=(rank + 1) % ranks)
        receive = dist.P2POp(dist.irecv, self.coming, group=group, tag=tag, group_peer=(rank - 1) % ranks)
        self.works = dist.batch_isend_irecv([send, receive]) if ranks > 1 else []

    def wait(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.coming
