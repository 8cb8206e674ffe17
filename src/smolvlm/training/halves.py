"""On a GPU: the weights of all products in bfloat16 at once, where autocast casts each by a launch of its own.

A step of a small model there takes as long as its kernels take to be launched, and casting hundreds of weights and
their gradients is a fifth of them. The numbers are autocast's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def weights_in_half(model: nn.Module) -> Iterator[None]:
    """Inside, linear layers have their float32 weights in bfloat16; gradients reach the weights. For a forward pass.

    What is tied to another part (a head that is the table of embeddings) stays as it is.
    """
    places: dict[nn.Parameter, tuple[nn.Module, str]] = {}
    shared: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in places:
                shared.add(parameter)
            places[parameter] = module, name
    chosen = [
        (parameter, module, name)
        for parameter, (module, name) in places.items()
        if isinstance(module, nn.Linear) and parameter.dtype == torch.float32 and parameter not in shared
    ]
    halves = _Halves.apply(*(parameter for parameter, _, _ in chosen)) if chosen else ()
    try:
        for (_, module, name), half in zip(chosen, halves, strict=True):
            del module._parameters[name]
            module.__dict__[name] = half
        yield
    finally:
        for parameter, module, name in chosen:
            module.__dict__.pop(name, None)
            module._parameters[name] = parameter


class _Halves(torch.autograd.Function):
    """All of them to bfloat16, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _all_to(torch.bfloat16, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_all_to(torch.float32, [one for one in gradients if one is not None]))
        return tuple(None if one is None else next(found) for one in gradients)


def _all_to(dtype: torch.dtype, tensors: Any) -> tuple[Tensor, ...]:
    made = [torch.empty_like(one, dtype=dtype) for one in tensors]
    if made:
        torch._foreach_copy_(made, list(tensors))
    return tuple(made)
