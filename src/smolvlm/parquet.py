"""Parquet files by pyarrow (`pip install 'smolvlm[train]'`), imported late. Damaged ones are DataErrors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError, MissingDependencyError


def import_arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need the package pyarrow, which isn't installed: pip install 'smolvlm[train]'."
        ) from error
    return pyarrow, parquet


def read_footer(path: Path, name: str) -> Any:
    """pyarrow's FileMetaData. name: how errors call the file."""
    with _told(f"{name} is damaged or no parquet file") as parquet:
        return parquet.read_metadata(path)


def read_group(path: Path, number: int, name: str) -> Any:
    """A row group as pyarrow's table."""
    with _told(f"Row group {number} of {name} is damaged") as parquet, parquet.ParquetFile(path) as file:
        # one thread: processes that were forked must not wait for threads that they don't have
        return file.read_row_group(number, use_threads=False)


def read_rows(path: Path, name: str, at_once: int) -> Iterator[dict[str, Any]]:
    """The rows of a file, so many of them in memory."""
    with _told(f"{name} is damaged") as parquet, parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(at_once, use_threads=False):
            yield from batch.to_pylist()


@contextmanager
def _told(what: str) -> Iterator[Any]:
    """pyarrow.parquet; what fails inside is a DataError."""
    pyarrow, parquet = import_arrow()
    try:
        yield parquet
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{what}: {error}") from error
