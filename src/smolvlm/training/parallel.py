"""One run in several processes, as torchrun starts them: each rank reads its share of a step; gradients are added up.

Alone, without torchrun, nothing is initialised and every function does the obvious. What is added up is exact: losses
are divided by what all ranks hold together, so two ranks with a batch each give one process's gradients of both.
Weights that are themselves shared out are sharding.py's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.weights import as_device

BUCKET = 2**25  # numbers that are added up at once: 128 MiB in float32
TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and of how many. local_rank: on this machine. device: of this process, "cuda:1" say."""

    rank: int = 0
    ranks: int = 1
    device: str = "cpu"
    local_rank: int = 0


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """This process's place among those that torchrun started, for as long as a run lasts. Raises ConfigError."""
    own = start(device)
    try:
        yield own
        barrier()  # who leaves early would cut off those that still read what it sent
    finally:
        stop()


def start(device: str) -> Ranks:
    """Join the processes that torchrun started: gloo on a CPU, NCCL on GPUs, where each process takes one.

    Raises InputError for a device that isn't here, ConfigError when the environment names several processes and isn't
    torchrun's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        as_device(device)
        return Ranks(device=device)
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} isn't set. Start several processes "
            "with torchrun --nproc-per-node N -m smolvlm train ..., or unset WORLD_SIZE for one."
        )
    local = int(os.environ["LOCAL_RANK"])
    if torch.device(device).type == "cuda":
        device = f"cuda:{local}"
        torch.accelerator.set_device_index(local)
        # numbers of the loop stay on the CPU and go over gloo, so that adding them up waits for no GPU
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device(device))
    else:
        dist.init_process_group("gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), device, local)


def stop() -> None:
    """Leave them."""
    if not alone():
        dist.destroy_process_group()


def alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def barrier() -> None:
    """Wait for all ranks, where only one has written."""
    if not alone():
        dist.barrier()


def sum_over_ranks(value: float) -> float:
    return value if alone() else _over_ranks(value, dist.ReduceOp.SUM)


def most_over_ranks(value: float) -> float:
    return value if alone() else _over_ranks(value, dist.ReduceOp.MAX)


def any_rank(flag: bool) -> bool:
    """Whether it is true on any rank, so that all leave a loop together."""
    return most_over_ranks(float(flag)) > 0


def _over_ranks(value: float, operation: dist.ReduceOp.RedOpType) -> float:
    held = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(held, operation)
    return float(held)


@torch.no_grad()
def same_weights(model: nn.Module) -> None:
    """Give every rank the weights and buffers of rank 0."""
    if not alone():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, src=0)


@torch.no_grad()
def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Make every .grad the sum over ranks. A rank without one counts as zeros; where no rank has one, none is made,
    as in one process. Parameters that are shared out have had theirs added up in the backward pass.
    """
    if alone():
        return
    from torch.distributed.tensor import DTensor

    held = [one for one in parameters if not isinstance(one, DTensor)]
    some = torch.tensor([one.grad is not None for one in held], dtype=torch.uint8)
    dist.all_reduce(some, dist.ReduceOp.MAX)
    found = [one for one, has in zip(held, some.tolist(), strict=True) if has]
    for bucket in _buckets(found):
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
        flat = torch.cat([part.flatten() for part in parts])  # (numbers of the bucket,)
        dist.all_reduce(flat)
        for one, summed in zip(bucket, flat.split([part.numel() for part in parts]), strict=True):
            one.grad = summed.view_as(one)


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, of one dtype and device each, and of at most BUCKET numbers where one parameter isn't more."""
    bucket: list[Tensor] = []
    numbers = 0
    for one in parameters:
        alike = not bucket or (one.dtype, one.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or numbers + one.numel() > BUCKET):
            yield bucket
            bucket, numbers = [], 0
        bucket.append(one)
        numbers += one.numel()
    if bucket:
        yield bucket
