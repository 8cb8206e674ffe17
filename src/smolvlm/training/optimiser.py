"""Muon for the hidden matrices, AdamW for the rest, and the averaged weights that are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .recipe import Recipe


class Optimisers:
    """Both optimisers behind one step(). Muon takes every matrix inside the layers of the two towers."""

    def __init__(self, model: nn.Module, extra: nn.Module, recipe: Recipe) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if ".layers." in name and parameter.dim() == 2:
                matrices.append(parameter)
            else:
                (others if parameter.dim() >= 2 else plain).append(parameter)
        self.recipe = recipe
        self.parameters = [*matrices, *others, *plain, *extra.parameters()]
        self.muon = torch.optim.Muon(
            matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay, momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        self.adamw = torch.optim.AdamW(
            [
                {"params": others, "weight_decay": recipe.weight_decay},
                {"params": [*plain, *extra.parameters()], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip

    def step(self, step: int) -> float:
        """Clip, update, clear. Returns the gradient's norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        share = self.recipe.rate(step)
        for optimiser, rate in ((self.muon, self.recipe.matrix_learning_rate), (self.adamw, self.recipe.learning_rate)):
            for parameters in optimiser.param_groups:
                parameters["lr"] = share * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict[str, object]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


class Average:
    """Exponential moving average of a model's parameters, with a warm-up so that the start is forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live: list[Tensor] = list(model.parameters())
        self.average = [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        kept = [parameter.detach().clone() for parameter in self.live]
        self._load(self.average)
        try:
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.live, weights, strict=True):
            parameter.copy_(weight)
