"""Everything that only an NVIDIA GPU has. No other file names torch.cuda, so that a CPU and MPS never meet it.

A CUDA graph is a step of fixed shapes, recorded once and launched as a whole: a small model's step is hundreds of tiny
kernels, and launching them one by one takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_RUNS = 3  # before recording: libraries choose their kernels and take their workspaces


def is_here() -> bool:
    return torch.cuda.is_available()


def multiplies_bf16() -> bool:
    """Whether the hardware does, not an emulation."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def name() -> str:
    return torch.cuda.get_device_name()


def free_memory(device: torch.device) -> int:
    """Bytes that nobody has taken, and those that PyTorch keeps for itself without using them."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def taken_memory(device: torch.device) -> int:
    """Bytes of the whole GPU that somebody has taken, PyTorch's reserve and the driver's own included."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def forget_peak(device: torch.device) -> None:
    torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes that tensors took since forget_peak."""
    return torch.cuda.max_memory_allocated(device)


def wait(device: torch.device) -> None:
    """Until everything that was launched is done."""
    torch.cuda.synchronize(device)


class Graph:
    """A recorded step. The tensors that it reads and writes beside its inputs must stay where they are."""

    def __init__(self, step: Callable[..., Tensor], *inputs: Tensor) -> None:
        """Record step(*inputs), which must do the same work whatever the values, and not wait for the GPU.

        The warm-up runs write what the step writes, as many times: it must be a step that can be repeated.
        """
        self._inputs = [one.clone() for one in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                step(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = step(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run it. The result is overwritten by the next call."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output
