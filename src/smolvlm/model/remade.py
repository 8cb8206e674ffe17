"""What is cheap to make isn't kept for the backward pass, but made again: norms, activations, casts.

A product keeps its input for the gradient of its weights. Where that input is a norm or an activation, it is larger
than what it was made from, or a copy of it. So the product keeps a note of how to make it (benchmarks/LOG.md has the
gain).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from .place import on_cpu

WORTH = 2**19  # numbers, under which a note costs more than they do
WORTH_ON_GPU = 2**25  # where a note, and launching the making again, take longer than the rest of a layer
Made = TypeVar("Made")
Make = Callable[..., Tensor]  # of tensors alone


def through(make: Make, inputs: tuple[Tensor, ...], use: Callable[[Tensor], Made], *, keep: bool = False) -> Made:
    """use(make(*inputs)), of which the backward pass keeps `inputs` in place of what make returned.

    make: cheap, and the same every time. Under autocast its result is cast before use, as products would.
    keep: plainly, as where a whole layer is made again anyway, or nothing is learned.
    """
    dtype = product_dtype(inputs[0])

    def cast(*given: Tensor) -> Tensor:
        return make(*given).to(dtype)

    worth = WORTH if on_cpu(inputs[0]) else WORTH_ON_GPU
    if keep or inputs[0].numel() < worth or not _learns(inputs):
        return use(cast(*inputs))
    made: Tensor = _Remade.apply(cast, *inputs)
    node, storage, shape = made.grad_fn, made.untyped_storage()._cdata, made.shape

    def pack(kept: Tensor) -> Any:
        same = kept.untyped_storage()._cdata == storage and kept.numel() == shape.numel() and kept.is_contiguous()
        return (node, kept.shape) if same else kept

    def unpack(kept: Any) -> Tensor:
        return kept if isinstance(kept, Tensor) else again(kept[0]).detach().view(kept[1])

    with saved_tensors_hooks(pack, unpack):
        return use(made)


class _Remade(torch.autograd.Function):
    """The making of something. Its node in the graph is the note, and lets go of the inputs when all others do."""

    @staticmethod
    def forward(ctx: Any, make: Make, *inputs: Tensor) -> Tensor:
        ctx.make, ctx.made = make, None
        ctx.save_for_backward(*inputs)
        return make(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        made, inputs = again(ctx), ctx.inputs
        found = iter(torch.autograd.grad(made, [x for x in inputs if x.requires_grad], gradient))
        ctx.made = ctx.inputs = None
        return None, *(next(found) if x.requires_grad else None for x in inputs)


def again(node: Any) -> Tensor:
    """What a _Remade made, with the graph of its making: once for all who ask."""
    if node.made is None:
        node.inputs = [x.detach().requires_grad_(x.requires_grad) for x in node.saved_tensors]
        with torch.enable_grad():
            node.made = node.make(*node.inputs)
    made: Tensor = node.made
    return made


def _learns(inputs: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def product_dtype(x: Tensor) -> torch.dtype:
    """Of products of x: autocast's, where there is one."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
