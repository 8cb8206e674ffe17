"""How much of a machine does training use: operations of a step, and what the machine multiplies at most."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

from ..model import SmolVLMForConditionalGeneration
from ..model.lowbit import LowBitLinear

ROWS, INPUTS, OUTPUTS = 1024, 1024, 2048  # of a product that is large enough for a processor's full rate
RUNS = 3


class Work:
    """Operations (two for each multiplication) that a model's steps need, from what is trained of it.

    A layer takes one product forward, one for the gradient of its input where something before it learns, one for its
    own; with recompute another forward. Attention counts in the vision tower, where it is a sixth; in the text model,
    where it is a few percent at a thousand tokens, it is left out.
    """

    def __init__(self, model: SmolVLMForConditionalGeneration, *, recompute: bool) -> None:
        vision = model.config.vision_config
        self.patches = vision.patches_per_side**2
        learns_first = _learns(model.model.vision_model)
        learns_then = learns_first or _learns(model.model.connector) or _learns(model.get_input_embeddings())
        self.of_patch = _products(model.model.vision_model, learns_first, recompute)
        attention = 4 * self.patches * vision.hidden_size * vision.num_hidden_layers
        self.of_patch += attention * ((3 if learns_first else 1) + (recompute and learns_first))
        self.of_token = _products(
            model.model.text_model.layers, learns_then or _learns(model.model.text_model), recompute
        )
        self.of_answer = _products(model.lm_head, True, False)

    def of_step(self, tokens: int, tiles: int, answers: int) -> float:
        return self.of_patch * self.patches * tiles + self.of_token * tokens + self.of_answer * answers


@lru_cache
def product_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second in a large product on this device: the best of a few."""
    x, y = (
        torch.randn(ROWS, INPUTS, device=device, dtype=dtype),
        torch.randn(INPUTS, OUTPUTS, device=device, dtype=dtype),
    )
    best = float("inf")
    for _ in range(RUNS + 1):  # the first warms up
        start = time.perf_counter()
        product = x @ y
        float(product[0, 0])  # on a GPU: until it is there
        best = min(best, time.perf_counter() - start)
    return 2 * ROWS * INPUTS * OUTPUTS / best


def _products(part: nn.Module, through: bool, recompute: bool) -> float:
    """Operations a row. through: whether gradients go through it."""
    found = 0.0
    for layer in part.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | LowBitLinear):
            weight = getattr(layer, "weight", None)  # none of its own where it has few bits
            times = 1 + (recompute and through) + through + (weight is not None and weight.requires_grad)
            patch = 1 if not isinstance(layer, nn.Conv2d) else layer.kernel_size[0] * layer.kernel_size[1]
            inputs, outputs = (
                (layer.in_channels, layer.out_channels)
                if isinstance(layer, nn.Conv2d)
                else (layer.in_features, layer.out_features)
            )
            found += 2 * inputs * outputs * patch * times
    return found


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
