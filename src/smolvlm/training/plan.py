"""How much memory will a run need? A step is gone through without numbers, and the bytes alive are counted.

The model is made of tensors that have shapes and no content, so a plan of any size takes seconds and no memory, and
what is counted is what the step does: activations kept for the backward pass, copies in another dtype, gradients.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import hub
from ..checkpoint import read_json
from ..config import SmolVLMConfig
from ..model import SmolVLMForConditionalGeneration
from ..model.adapters import add_adapter
from ..model.lowbit import quantise_base
from ..model.place import planned_for_gpu
from .objectives import log_likelihoods
from .optimiser import freeze
from .recipe import Recipe
from .start import changed, keeps_reference, model_config, open_processor

ANSWERS = 0.5  # share of a batch's tokens that are learned: most of a conversation's text, none of its pictures
OPTIMISER = {
    "adamw": 2,
    "muon": 1,
}  # numbers kept for each trained one (muon: of matrices; what else there is, is small)
# Beside what is counted: fitted to the six cases of benchmarks/memory_plan.py on a CPU, within 8 % (glibc keeps holes
# between what is alive, and half of the gradients again while weights are updated); of a GPU guesses.
PROGRAM = {"cpu": 100 * 2**20, "cuda": 1600 * 2**20}
HEAP = {"cpu": 1.13, "cuda": 1.0}  # times what a step has alive
GRADIENTS = {"cpu": 1.5, "cuda": 1.0}  # times the gradients


@dataclass(frozen=True)
class Plan:
    """Bytes. tiles, tokens: of the largest batch. step: taken at the most within a step, above weights and optimiser.

    trained: parameters that are.
    """

    tiles: int
    tokens: int
    parameters: int
    trained: int
    weights: int
    optimiser: int
    average: int
    step: int
    program: int

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + self.average + self.step + self.program


def plan(recipe: Recipe, device: str = "cpu") -> Plan:
    """What a run of the recipe needs, at its largest batch. Raises ConfigError, ModelNotFoundError."""
    return plan_batch(recipe, recipe.tiles_per_batch, recipe.tokens_per_batch, device)


def largest_batch(recipe: Recipe, budget: int, device: str = "cpu") -> Recipe | None:
    """The recipe with the largest batches that stay within so many bytes, at most as they are; None when none does."""
    share, best = 1.0, None
    while best is None and recipe.tiles_per_batch * share >= 1:
        tiles, tokens = int(recipe.tiles_per_batch * share), max(256, int(recipe.tokens_per_batch * share))
        if plan_batch(recipe, tiles, tokens, device).total <= budget:
            best = replace(recipe, tiles_per_batch=tiles, tokens_per_batch=tokens)
        share /= 2
    return best


def plan_batch(recipe: Recipe, tiles: int, tokens: int, device: str = "cpu") -> Plan:
    """The same for a batch of so many tiles and tokens, in one row."""
    config, kind = _config(recipe), device if device in HEAP else "cuda"
    way = planned_for_gpu() if kind == "cuda" else nullcontext()
    with way, FakeTensorMode(), _Alive() as alive:
        model = _model(recipe, config)
        weights = alive.bytes
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        alive.reset()
        for parameter in trained:  # of the step's earlier batches
            parameter.grad = torch.empty_like(parameter)
        _step(model, recipe, tiles, min(tokens, config.text_config.max_position_embeddings), tokens)
        step = alive.most - weights
        if keeps_reference(recipe):
            weights *= 2
        own = sum(parameter.numel() * parameter.element_size() for parameter in trained)
        step = int(HEAP[kind] * (step - own) + GRADIENTS[kind] * own)
        return Plan(
            tiles, tokens, sum(parameter.numel() for parameter in model.parameters()),
            sum(parameter.numel() for parameter in trained), weights, OPTIMISER[recipe.optimiser] * own,
            own if recipe.ema else 0, step, PROGRAM[kind],
        )  # fmt: skip


def _config(recipe: Recipe) -> SmolVLMConfig:
    if recipe.model:
        return model_config(recipe, open_processor(recipe).tokenizer)
    return SmolVLMConfig.from_dict(changed(read_json(hub.resolve(recipe.start) / "config.json"), recipe.config))


def _model(recipe: Recipe, config: SmolVLMConfig) -> SmolVLMForConditionalGeneration:
    model = SmolVLMForConditionalGeneration(config)
    _cast(model, getattr(torch, recipe.weights))
    if recipe.adapter is not None:
        if recipe.bits != 16:
            quantise_base(model, recipe.bits, recipe.adapter)
        add_adapter(model, recipe.adapter)
    freeze(model, recipe)
    if recipe.recompute:
        model.gradient_checkpointing_enable()
    return model.train()


def _cast(model: SmolVLMForConditionalGeneration, dtype: torch.dtype) -> None:
    """Module.to, which can't change parameters that have no content."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter.detach().to(dtype)))
    model.tie_weights()


def _step(model: SmolVLMForConditionalGeneration, recipe: Recipe, tiles: int, longest: int, tokens: int) -> None:
    """Forward and backward of one batch, as the loop does it, with made-up content. longest: tokens of a row."""
    config, rows = model.config, max(1, tokens // longest)
    length = tokens // rows
    vision, text = config.vision_config, model.model.text_model
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.compute == "bfloat16"):
        x = model.get_input_embeddings()(torch.zeros(rows, length, dtype=torch.int64))  # (rows, tokens, hidden)
        if tiles:
            pixels = torch.zeros(tiles, 3, vision.image_size, vision.image_size, dtype=model.dtype)
            features = model.model.connector(model.model.vision_model(pixels).last_hidden_state).flatten(0, 1)
            is_image = torch.zeros(rows, length, 1, dtype=torch.bool)
            x = x.masked_scatter(is_image, features.to(x.dtype)[: rows * length])
        mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
        hidden, _, _ = text(x, mask, torch.zeros(rows, length, dtype=torch.int64), None, False, False)
        answers = hidden.flatten(0, 1)[: max(1, int(ANSWERS * rows * length))]
        loss = log_likelihoods(model, answers, torch.zeros(len(answers), dtype=torch.int64)).sum()
    loss.backward()


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive. most: since the last reset."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self._seen: set[int] = set()

    def reset(self) -> None:
        self.most = self.bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._add(one.untyped_storage())
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self._remover(key, size))

    def _remover(self, key: int, size: int) -> Callable[[], None]:
        def remove() -> None:
            self._seen.discard(key)
            self.bytes -= size

        return remove
