"""Several processes for one evaluation: which rows are whose, and how many processes of this machine are started.

Files are all they share: each writes records of its own, the first joins them. No torch.distributed, no ports.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import InputError, SmolVLMError

Item = TypeVar("Item")
POLL_S = 0.2


@dataclass(frozen=True)
class Share:
    """Every `ranks`-th row, from row `rank` on. local_rank: its place among the processes of its machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.rank :: self.ranks]


def share_of(environment: Mapping[str, str]) -> Share:
    """What torchrun (or `run_ranks`) tells this process. Raises InputError for numbers that don't fit together."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Share()
    try:
        rank, ranks, local = (int(environment.get(name, "0")) for name in names)
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}.") from error
    if not 0 <= rank < ranks:
        raise InputError(f"RANK={rank} and WORLD_SIZE={ranks} don't fit together: ranks are 0 to {ranks - 1}.")
    return Share(rank, ranks, local)


def run_ranks(command: Sequence[str], ranks: int, cores: int) -> None:
    """Run `smolvlm COMMAND ...` as so many processes that share the cores; when one fails the others are ended.

    Raises SmolVLMError when one failed. What they print goes where this process prints.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cores // ranks))}
    started = []
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        started.append(
            subprocess.Popen([sys.executable, "-m", "smolvlm", *command], env={**os.environ, **threads, **place})
        )
    try:
        while any(one.poll() is None for one in started):
            if any(one.returncode for one in started):
                break
            time.sleep(POLL_S)
    finally:
        for one in started:
            if one.poll() is None:
                one.terminate()
        codes = [one.wait() for one in started]
    if any(codes):
        failed = [str(rank) for rank, code in enumerate(codes) if code]
        raise SmolVLMError(
            f"The evaluation stopped: process {', '.join(failed)} of {ranks} failed. Run it again to go on."
        )
