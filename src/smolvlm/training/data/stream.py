"""A data set on the Hugging Face hub, read as a stream by the package `datasets`, imported late.

A stream has no random access: it is read in runs, one after another, and samples are shuffled inside a run. Every
process that reads downloads all of it; for several workers or many epochs download the files and name the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingDependencyError

PREFIX = "hub:"
RUN = 256  # rows in memory at a time
# Configurations have names like ai2d(cauldron,llava_format).
_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:/([^/:]+))?(?::([\w.-]+))?")


class HubTable:
    """`hub:owner/name`, `hub:owner/name/config`, with `:split` behind when it isn't "train"."""

    root: Path | None = None
    window = 1
    in_order = True

    def __init__(self, spec: str) -> None:
        match = _NAME.fullmatch(spec)
        if match is None:
            raise DataError(f"{spec!r} names no data set: write hub:owner/name, hub:owner/name/config, or ...:split.")
        self.name = spec
        self._names = match[1], match[2], match[3] or "train"
        self._count = _count(self._stream(), self._names[2], spec)
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._next = 0  # the run that comes out of _rows
        self._run: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": iter(()), "_next": 0, "_run": (-1, [])}

    @property
    def runs(self) -> np.ndarray:
        full, rest = divmod(self._count, RUN)
        return np.array([RUN] * full + [rest] * bool(rest), np.int64)

    def row(self, index: int) -> dict[str, Any]:
        number, offset = divmod(index, RUN)
        if self._run[0] != number:
            if self._next != number or number == 0:
                self._rows = iter(self._stream().skip(number * RUN))
            self._run = number, list(islice(self._rows, RUN))
            self._next = number + 1
        rows = self._run[1]
        if offset >= len(rows):
            raise DataError(f"{self.name} has fewer rows than the hub says: {number * RUN + len(rows):,}.")
        return dict(rows[offset])

    def _stream(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.name} is read by the package datasets, which isn't installed: pip install datasets. Or "
                "download the files and name their folder."
            ) from error
        name, config, split = self._names
        try:
            stream = datasets.load_dataset(name, config, split=split, streaming=True)
        except (OSError, ValueError, RuntimeError) as error:  # the package raises many kinds of each
            raise DataError(f"{self.name} can't be read from the hub: {' '.join(str(error).split())}") from error
        return stream.decode(False)  # pictures as bytes: our own door opens them, under its limits


def _count(stream: Any, split: str, spec: str) -> int:
    """How many rows the hub says there are."""
    splits = stream.info.splits or {}
    if split not in splits or not splits[split].num_examples:
        raise DataError(f"The hub doesn't say how many rows {spec} has. Download the files and name their folder.")
    return int(splits[split].num_examples)
