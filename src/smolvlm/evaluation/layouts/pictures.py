"""What a row of any layout becomes, and where its pictures are: in a column, or in files inside one folder.

A picture isn't opened here: whether it can be decoded shows when it is asked about.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError

_NAMED = re.compile(r"images?|image_path|image_\d+")


@dataclass(frozen=True)
class Record:
    """A row as it stood in a file. where: file and line, for errors. number: its place among all rows, from 0."""

    columns: Mapping[str, Any]
    images: tuple[bytes | Path, ...]
    where: str
    number: int


def take_pictures(
    columns: Mapping[str, Any], folder: Path, where: str
) -> tuple[dict[str, Any], tuple[bytes | Path, ...]]:
    """A row of parquet or JSON -> (its other columns, its pictures in the order of columns).

    Pictures are encoded ({"bytes": ...} or bytes); or, of a row without such, files named by columns image, images,
    image_1, ... Raises DataError for a file that isn't there.
    """
    images: list[bytes | Path] = []
    others: dict[str, Any] = {}
    named: list[Any] = []
    for name, value in columns.items():
        if isinstance(value, bytes):
            images.append(value)
        elif isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
            if value.get("bytes"):
                images.append(value["bytes"])
            else:
                named.append(value.get("path"))
        else:
            others[name] = value
            if _NAMED.fullmatch(name):
                named += value if isinstance(value, list) else [value]
    return others, tuple(images) or find_pictures([name for name in named if name], (folder,), folder, where)


def literal_list(cell: str) -> list[str] | None:
    """The texts of a list that is written out as Python does, "['7', '8']"; None when the cell is none."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return [str(member) for member in found]


def find_pictures(names: Sequence[str], folders: Sequence[Path], root: Path, where: str) -> tuple[Path, ...]:
    """The files of those names, each in the first of the folders that has it. Nothing outside root is taken."""
    return tuple(_find(name, folders, root, where) for name in names)


def _find(name: str, folders: Sequence[Path], root: Path, where: str) -> Path:
    for folder in folders:
        path = Path(os.path.realpath(folder / name))
        if path.is_file():
            if not path.is_relative_to(os.path.realpath(root)):
                raise DataError(f"{where}: the picture {name!r} leads out of {root}. Put it inside.")
            return path
    places = " and ".join(str(folder) for folder in folders)
    raise DataError(f"{where}: there is no picture {name!r} in {places}. Put it there, or take the row out.")
