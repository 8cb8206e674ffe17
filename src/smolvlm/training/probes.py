"""Auxiliary patch labels: linear probes that tell which shape, colour and character covers a patch.

They stand in for the missing pretraining of a vision tower trained from nothing, and are thrown away with the run.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..scenes import ALL_COLOURS, ALL_SHAPES, CHARACTERS

PLANES = (len(ALL_SHAPES), len(ALL_COLOURS), len(CHARACTERS))
EMPTY_WEIGHT = 0.1  # most patches show nothing


class Probes(nn.Module):
    """One linear classifier a plane; class 0 is "nothing"."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.planes = nn.ModuleList(nn.Linear(hidden_size, classes + 1) for classes in PLANES)

    def forward(self, patches: Tensor, labels: Tensor) -> Tensor:
        """patches: (tiles, patches, hidden). labels: (tiles, patches, 3), -1 = nothing. Returns the mean loss."""
        losses = []
        for plane, head in enumerate(self.planes):
            logits = head(patches).flatten(0, 1).float()  # (all patches, classes + 1)
            weight = logits.new_ones(logits.shape[1])
            weight[0] = EMPTY_WEIGHT
            losses.append(F.cross_entropy(logits, labels[..., plane].flatten().long() + 1, weight))
        return sum(losses[1:], losses[0]) / len(losses)
