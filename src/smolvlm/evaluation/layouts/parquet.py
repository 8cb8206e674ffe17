"""Parquet files as the hub has them, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...parquet import read_footer, read_rows
from .pictures import Record, take_pictures

ROWS_AT_ONCE = 16  # pictures of documents take megabytes each


def read_parquet(files: Sequence[Path], folder: Path) -> Iterator[Record]:
    """The rows of all files. Raises DataError for a damaged one: at once, or when its rows are come to."""
    for file in files:
        read_footer(file, str(file))
    return _rows(files, folder)


def _rows(files: Sequence[Path], folder: Path) -> Iterator[Record]:
    number = 0
    for file in files:
        for columns in read_rows(file, str(file), ROWS_AT_ONCE):
            where = f"{file.relative_to(folder)}, row {number + 1}"
            others, images = take_pictures(columns, folder, where)
            yield Record(others, images, where, number)
            number += 1
