"""One update of the weights: gradients of a step's batches, added up over batches and ranks, then the optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from . import parallel
from .collate import Batch
from .objectives import Objective
from .run import Run

Lanes = Callable[..., Iterable[Any]]
NAMED = 20  # samples that a message lists


def backward(
    objective: Objective, parameters: Sequence[Tensor], batches: Sequence[Batch], whole: float, probe_weight: float,
    device: str, side_by_side: Lanes | None = None,
) -> float:  # fmt: skip
    """Add up the gradients of one step's batches, always in their order. Returns these batches' loss."""
    loss = 0.0
    if side_by_side is None:
        for batch in batches:
            part = objective(batch.to(device), whole, probe_weight)
            part.backward()
            loss += float(part.detach())
        return loss

    def work(batch: Batch) -> tuple[tuple[Tensor | None, ...], float]:
        part = objective(batch.to(device), whole, probe_weight)
        return torch.autograd.grad(part, parameters, allow_unused=True), float(part.detach())

    for gradients, part in side_by_side(work, batches):
        loss += part
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return loss


@contextmanager
def side_by_side_lanes(number: int) -> Iterator[Lanes | None]:
    """A map() that works on `number` batches at a time, each on its share of the CPU's threads; None for one."""
    if number <= 1:
        yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // number))  # taken over by the threads that the pool starts
    try:
        with ThreadPoolExecutor(number) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def update(run: Run, step: int, loss: float, batches: Sequence[Batch]) -> tuple[float, float]:
    """(loss of all ranks, norm of the gradient), after the weights have changed."""
    parallel.add_gradients(run.optimisers.parameters)
    loss = parallel.sum_over_ranks(loss)
    gradient = run.optimisers.step(step) if math.isfinite(loss) else math.nan
    if not math.isfinite(gradient):
        names = [name for batch in batches for name in batch.names]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise TrainingError(
            f"Step {step + 1}: the {'gradient' if math.isfinite(loss) else 'loss'} is no number, and nothing of this "
            f"step was saved. Its samples: {'; '.join(names[:NAMED])}{more}. The last good state and checkpoint are as "
            "they were: lower the learning rate or leave these samples out, and run again."
        )
    run.average.update(step)
    return loss, gradient
