"""Parquet files with random access: a row group is read when a row of it is asked for, and a few stay in memory.

Pictures stay encoded, as bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ...media.source import shown
from ...parquet import read_footer, read_group

WINDOW = 4  # row groups that samples are shuffled across
WINDOW_BYTES = 512 * 2**20  # most that they may take together, unless one alone takes more


class Groups:
    """The row groups that are in memory: those of one data set, however many files it has. Each process has its own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": OrderedDict()}

    def get(self, path: Path, number: int, most: int) -> Any:
        """A row group, read when it isn't among the `most` that were used last."""
        key = (path, number)
        if key not in self._kept:
            while len(self._kept) >= most:
                self._kept.popitem(last=False)
            self._kept[key] = read_group(path, number, shown(str(path)))
        self._kept.move_to_end(key)
        return self._kept[key]


class ParquetTable:
    """A parquet file. Rows of a group lie together: see Table."""

    in_order = False

    def __init__(self, path: Path, groups: Groups) -> None:
        self.name, self.root, self._path, self._groups = str(path), path.parent, path, groups
        metadata = read_footer(path, shown(str(path)))
        found = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self.runs = np.array([group.num_rows for group in found], np.int64)
        largest = max((group.total_byte_size for group in found), default=1)
        self.window = max(1, min(WINDOW, WINDOW_BYTES // max(1, largest)))
        self._ends = np.cumsum(self.runs)

    def __len__(self) -> int:
        return int(self.runs.sum())

    def row(self, index: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        group = self._groups.get(self._path, number, self.window)
        (columns,) = group.slice(index - int(self._ends[number] - self.runs[number]), 1).to_pylist()
        return dict(columns)
