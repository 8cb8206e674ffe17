"""Samples -> one padded batch. Branches of a sample share its prefix and don't see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from .samples import Sample

PADDING = -1  # in `branch`: not a real token
PREFIX = 0  # in `branch`: seen by all branches of the sample


@dataclass
class Batch:
    """Padded on the right. Places are indices into the flattened (samples * tokens).

    input_ids, position_ids: (samples, tokens) int64. branch: (samples, tokens) int16, PADDING, PREFIX or 1, 2, ...
    tiles: (tiles, side, side, 3) uint8. patch_labels: (tiles, patches, 3) int16. place: (targets,) which token
    predicts, target: (targets,) what it must say, turn: (targets,) which turn it belongs to, weight:
    (targets,) how much it counts. skill_kinds: (skill, kind) of each turn.
    """

    input_ids: Tensor
    position_ids: Tensor
    branch: Tensor
    tiles: Tensor
    patch_labels: Tensor
    place: Tensor
    target: Tensor
    turn: Tensor
    weight: Tensor
    skill_kinds: list[tuple[str, str]]

    def to(self, device: torch.device | str) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**{**vars(self), **moved})

    def attention_mask(self) -> Tensor:
        """(samples, 1, tokens, tokens) bool: earlier tokens of the prefix or of the own branch."""
        tokens = self.branch.shape[1]
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=self.branch.device).tril()
        seen = self.branch[:, None, :]  # (samples, 1, tokens)
        return (causal & ((seen == PREFIX) | (seen == self.branch[:, :, None])))[:, None]

    def pixel_values(self) -> Tensor:
        """(tiles, 3, side, side) float32 from -1 to 1."""
        return self.tiles.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def collate(
    samples: Sequence[Sample],
    pad_token_id: int,
    even_answers: float = 0.0,
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> Batch:
    """Join samples; the batch is as long as the longest of them. even_answers, emphasis: see Stage."""
    tokens = max(sample.length for sample in samples)
    ids = np.full((len(samples), tokens), pad_token_id, np.int64)
    positions = np.zeros((len(samples), tokens), np.int64)
    branch_of = np.full((len(samples), tokens), PADDING, np.int16)
    place: list[int] = []
    target: list[int] = []
    turn_of: list[int] = []
    skill_kinds: list[tuple[str, str]] = []
    for row, sample in enumerate(samples):
        start = len(sample.prefix)
        ids[row, :start], positions[row, :start], branch_of[row, :start] = sample.prefix, np.arange(start), PREFIX
        for number, branch in enumerate(sample.branches, start=1):
            end = start + len(branch.ids)
            ids[row, start:end], branch_of[row, start:end] = branch.ids, number
            positions[row, start:end] = len(sample.prefix) + np.arange(len(branch.ids))
            turn = len(skill_kinds) - 1
            for offset in range(1, len(branch.ids)):
                if not branch.is_answer[offset]:
                    continue
                turn += not branch.is_answer[offset - 1]  # the first token of an answer
                place.append(row * tokens + start + offset - 1)
                target.append(branch.ids[offset])
                turn_of.append(turn)
            skill_kinds += [(sample.skill, kind) for kind in branch.kinds]
            assert turn == len(skill_kinds) - 1, "every turn has an answer"
            start = end
    counts = torch.tensor([emphasis.get(kind, 1.0) for _, kind in skill_kinds], dtype=torch.float32)  # (turns,)
    counts *= torch.bincount(torch.tensor(turn_of)).float() ** -even_answers
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        branch=torch.from_numpy(branch_of),
        tiles=torch.from_numpy(np.concatenate([sample.tiles for sample in samples])),
        patch_labels=torch.from_numpy(np.concatenate([sample.patch_labels for sample in samples])),
        place=torch.tensor(place),
        target=torch.tensor(target),
        turn=torch.tensor(turn_of),
        weight=counts[turn_of],
        skill_kinds=skill_kinds,
    )
