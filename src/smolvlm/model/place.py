"""Which way code goes that does the same otherwise on a CPU than on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_PLANNED_FOR_GPU = False


def on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not _PLANNED_FOR_GPU


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """F.rms_norm. In a plan, where a CPU's is many steps, what keeps as much as a GPU's."""
    if isinstance(x, FakeTensor):
        return F.layer_norm(x, weight.shape, weight, None, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


@contextmanager
def planned_for_gpu() -> Iterator[None]:
    """Inside, tensors of a CPU, which have no content, go a GPU's way (training/plan.py)."""
    global _PLANNED_FOR_GPU
    _PLANNED_FOR_GPU = True
    try:
        yield
    finally:
        _PLANNED_FOR_GPU = False
