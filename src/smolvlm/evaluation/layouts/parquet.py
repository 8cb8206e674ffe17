"""Parquet files as the hub has them, a few rows at a time. Needs pyarrow (`pip install 'smolvlm[train]'`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, MissingDependencyError
from .pictures import Record, take_pictures

ROWS_AT_ONCE = 16  # pictures of documents take megabytes each


def read_parquet(files: Sequence[Path], folder: Path) -> Iterator[Record]:
    """The rows of all files. Raises DataError for a damaged one: at once, or when its rows are come to."""
    pyarrow, parquet = import_arrow()
    for file in files:
        try:
            parquet.read_metadata(file)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{file} is damaged or no parquet file: {error}") from error
    return _rows(files, folder)


def _rows(files: Sequence[Path], folder: Path) -> Iterator[Record]:
    pyarrow, parquet = import_arrow()
    number = 0
    for file in files:
        try:
            with parquet.ParquetFile(file) as table:
                for batch in table.iter_batches(ROWS_AT_ONCE, use_threads=False):
                    for columns in batch.to_pylist():
                        where = f"{file.relative_to(folder)}, row {number + 1}"
                        others, images = take_pictures(columns, folder, where)
                        yield Record(others, images, where, number)
                        number += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{file} is damaged behind row {number}: {error}") from error


def import_arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need the package pyarrow, which isn't installed: pip install 'smolvlm[train]'."
        ) from error
    return pyarrow, parquet
