"""Sequence parallelism: a long batch goes through the model on several ranks at once, each with its part of every row.

All ranks of a group read the same batch. Each encodes its share of the tiles and embeds, attends from and predicts with
its own tokens; attention is the only layer where they meet (ring.py). Gradients are then added up over all ranks, as
any others (parallel.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import ConfigError
from ..model import SmolVLMForConditionalGeneration
from ..model.text import SmolVLMTextAttention
from .collate import PADDING, PREFIX, Batch
from .objectives import log_likelihoods
from .parallel import Ranks
from .ring import Isolation, ring_attention, split


def sequence_group(ranks: Ranks, size: int) -> tuple[dist.ProcessGroup, Ranks]:
    """Neighbours in groups of so many: (this rank's group, which share of a step's samples the group reads).

    Raises ConfigError when the ranks can't be divided so.
    """
    if size < 2 or ranks.ranks % size:
        raise ConfigError(
            f"Sequences can't be shared among {size} of {ranks.ranks} processes: the first must be at least 2 and "
            f"divide the second. Start a multiple of {size} with torchrun --nproc-per-node."
        )
    group, _ = dist.new_subgroups(size)
    assert group is not None, "every rank is in one"
    return group, dataclasses.replace(ranks, rank=ranks.rank // size, ranks=ranks.ranks // size)


@contextmanager
def sequence_parallel(model: SmolVLMForConditionalGeneration, group: dist.ProcessGroup) -> Iterator[SequenceParallel]:
    """Inside, the text model's attention goes round the ranks of the group, forward and backward.

    Backward passes belong inside, too: layers that are recomputed attend again. Raises ConfigError when attention has
    dropout.
    """
    if model.config.text_config.attention_dropout:
        raise ConfigError(
            f"attention_dropout={model.config.text_config.attention_dropout} can't be had with shared sequences: "
            "attention that goes round has none. Set it to 0 in [config]."
        )
    made = SequenceParallel(model, group)
    layers = [one for one in model.model.text_model.modules() if isinstance(one, SmolVLMTextAttention)]
    before = [layer.implementation for layer in layers]
    try:
        for layer in layers:
            layer.implementation = made.attend
        yield made
    finally:
        for layer, implementation in zip(layers, before, strict=True):
            layer.implementation = implementation


class SequenceParallel:
    """What a loop calls in place of objectives.py's functions, with the whole batch. From sequence_parallel."""

    def __init__(self, model: SmolVLMForConditionalGeneration, group: dist.ProcessGroup) -> None:
        self.model, self.group = model, group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.isolation: Isolation | None = None  # of the batch that is gone through

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return ring_attention(query, key, value, self.group, self.isolation)

    def answer_loss(self, batch: Batch, whole: float) -> Tensor:
        """This rank's part of objectives.answer_loss; all ranks' together are the batch's. Probes have none."""
        hidden, own = self.hidden_states(batch)
        return -(log_likelihoods(self.model, hidden, own.target) * own.weight).sum() / whole

    def hidden_states(self, batch: Batch) -> tuple[Tensor, Batch]:
        """(own targets, hidden) at the places that predict a token of an answer, and this rank's part of the batch."""
        image = self.model.config.image_token_id
        batch = lengthened(batch, 2 * self.ranks, filler=int(image == 0))
        own = part_of(batch, self.rank, self.ranks)
        several = bool((batch.sample > 0).any() or (batch.branch > PREFIX + 1).any())
        self.isolation = Isolation.of(batch.sample, batch.branch, self.ranks) if several else None
        x = self.model.get_input_embeddings()(own.input_ids)  # (rows, own tokens, hidden)
        if len(batch.tiles):
            is_image = batch.input_ids == image
            features = self.features(batch).flatten(0, 1)  # (image tokens of all rows, hidden)
            assert int(is_image.sum()) == len(features), "a sample has as many image tokens as its tiles give"
            number = is_image.flatten().cumsum(0).view_as(is_image) - 1  # (rows, tokens), of each image token
            mine = split(is_image, self.rank, self.ranks)
            taken = features[split(number, self.rank, self.ranks)[mine]]
            x = x.masked_scatter(mine[..., None], taken.to(x.dtype))
        output = self.model.model(inputs_embeds=x, position_ids=own.position_ids, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)[own.place], own

    def features(self, batch: Batch) -> Tensor:
        """(tiles, image tokens, hidden) of the whole batch, of which each rank encodes every W-th tile."""
        tiles = len(batch.tiles)
        own = batch.tiles[self.rank :: self.ranks]
        own = F.pad(own, (0, 0, 0, 0, 0, 0, 0, -(-tiles // self.ranks) - len(own)))  # as many on every rank
        pixels = dataclasses.replace(batch, tiles=own).pixel_values().to(self.model.dtype)
        encoded = self.model.model.connector(self.model.model.vision_model(pixels).last_hidden_state)
        features: Tensor = _Everyone.apply(encoded, self.group)
        return features[:tiles]


def lengthened(batch: Batch, multiple: int, filler: int) -> Batch:
    """With padding up to a multiple of so many tokens. filler: id of any token but the image's."""
    tokens = batch.input_ids.shape[1]
    more = -tokens % multiple
    row, column = batch.place // tokens, batch.place % tokens
    padded = {
        name: F.pad(getattr(batch, name), (0, more), value=value)
        for name, value in (("input_ids", filler), ("position_ids", 0), ("sample", PADDING), ("branch", PREFIX))
    }
    return Batch(**{**vars(batch), **padded, "place": row * (tokens + more) + column})


def part_of(batch: Batch, rank: int, ranks: int) -> Batch:
    """A rank's tokens and the targets that they predict. Tiles, turns and talks stay as they are."""
    tokens = batch.input_ids.shape[1]
    cut = {name: split(getattr(batch, name), rank, ranks) for name in ("input_ids", "position_ids", "sample", "branch")}
    numbers = torch.full((batch.input_ids.numel(),), -1, device=batch.place.device)  # (rows * tokens,), of own tokens
    where = split(torch.arange(len(numbers), device=numbers.device).view(-1, tokens), rank, ranks).flatten()
    numbers[where] = torch.arange(len(where), device=numbers.device)
    place = numbers[batch.place]
    mine = place >= 0
    targets = {name: getattr(batch, name)[mine] for name in ("target", "turn", "talk", "weight")}
    return Batch(**{**vars(batch), **cut, **targets, "place": place[mine]})


class _Everyone(torch.autograd.Function):
    """What all ranks made, in turn: the first of each, the second of each. Gradients go back and add up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [
            torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))
        ]
        dist.all_gather(parts, own.contiguous(), group=group)
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.to(torch.float32, copy=True).contiguous()
        dist.all_reduce(summed, group=ctx.group)
        rank, ranks = dist.get_rank(ctx.group), dist.get_world_size(ctx.group)
        return summed[rank::ranks].to(gradient.dtype), None
