"""Who is trained at what rate: parts of the model, AdamW and Muon, and the averaged weights that are shipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .recipe import Part, Recipe
from .sharding import clip_gradients, load_optimiser, whole

Named = Iterable[tuple[str, nn.Parameter]]


def part_of(name: str) -> Part:
    """The part of the model that a parameter belongs to, for recipes' rates."""
    if "vision_model." in name:
        return "vision"
    if "connector." in name:
        return "connector"
    return "embeddings" if "embed_tokens." in name or name.startswith("lm_head.") else "text"


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Leave parts whose rate is 0 as they are."""
    for name, parameter in model.named_parameters():
        if recipe.rates.get(part_of(name)) == 0:
            parameter.requires_grad_(False)


class Optimisers:
    """Both optimisers behind one step(). Muon, when the recipe has it, takes every matrix inside the layers.

    One-dimensional parameters don't decay. extra: trained beside the model, at the learning rate and without decay.
    """

    def __init__(self, model: nn.Module, extra: nn.Module | None, recipe: Recipe) -> None:
        self.recipe = recipe
        groups: dict[tuple[bool, float, float], list[nn.Parameter]] = defaultdict(list)  # (matrix, share, decay)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            matrix = recipe.optimiser == "muon" and ".layers." in name and parameter.dim() == 2
            share = recipe.rates.get(part_of(name), recipe.learning_rate) / recipe.learning_rate
            decay = recipe.weight_decay if parameter.dim() >= 2 and not self._by_rows(name) else 0.0
            groups[matrix, share, decay].append(parameter)
        if extra is not None:
            groups[False, 1.0, 0.0] += extra.parameters()
        self.parameters = [parameter for group in groups.values() for parameter in group]
        self.rows = [one for name, one in model.named_parameters() if one.requires_grad and self._by_rows(name)]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        muon, adamw = ([(key, group) for key, group in groups.items() if key[0] is matrix] for matrix in (True, False))
        if muon:
            rate = recipe.matrix_learning_rate
            made = torch.optim.Muon(_groups(muon, rate), lr=rate, momentum=0.95, adjust_lr_fn="match_rms_adamw")
            self.parts.append((made, rate))
        if adamw:
            rate = recipe.learning_rate
            self.parts.append((torch.optim.AdamW(_groups(adamw, rate), lr=rate, betas=recipe.betas, fused=True), rate))

    def _by_rows(self, name: str) -> bool:
        """Whether only some rows of it are trained, so that nothing may touch the others, decay neither."""
        return self.recipe.train_rows_from > 0 and part_of(name) == "embeddings"

    def step(self, step: int) -> float:
        """Clip, update, clear. Returns the gradient's norm before clipping."""
        for table in self.rows:
            if table.grad is not None:
                table.grad[: self.recipe.train_rows_from] = 0
        norm = clip_gradients(self.parameters, self.recipe.clip)
        share = self.recipe.rate(step)
        for optimiser, _ in self.parts:
            for group in optimiser.param_groups:
                group["lr"] = share * group["highest"]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> list[dict[str, object]]:
        """Whole, also where weights are shared out; all ranks call it."""
        return [whole(optimiser.state_dict()) for optimiser, _ in self.parts]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for (optimiser, _), state in zip(self.parts, states, strict=True):
            load_optimiser(optimiser, state)


def _groups(found: list[tuple[tuple[bool, float, float], list[nn.Parameter]]], rate: float) -> list[dict[str, object]]:
    return [{"params": group, "weight_decay": decay, "highest": share * rate} for (_, share, decay), group in found]


class Average:
    """Exponential moving average of what is trained, with a warm-up so that the start is forgotten.

    decay 0 keeps no copy: the weights are their own average.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.live: list[Tensor] = list(parameters) if decay else []
        self.average = [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        if self.live:
            torch._foreach_lerp_(self.average, self.live, 1 - min(self.decay, (1 + step) / (10 + step)))

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
