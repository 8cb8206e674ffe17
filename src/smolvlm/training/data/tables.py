"""Files of rows with random access: JSON, JSON lines, tar shards, folders of captioned files. No row is read before it
is asked for, and nothing stays open, so a table can be handed to other processes.

Parquet files and the hub, which need packages of their own, are arrow.py's and stream.py's.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import DataError
from ...media.source import shown
from .offsets import find_rows
from .placing import VIDEO_SUFFIXES
from .roots import PICTURE_SUFFIXES, inside, natural

_CAPTIONS = (".txt", ".caption")


class Table(Protocol):
    """A file of rows. name: how messages call it. root: the folder that its media are named from, None for none.

    runs: how many rows lie together, so that one after another they cost little; window: how many runs may be open at
    once. In order: runs can only be read one after another.
    """

    name: str
    window: int
    in_order: bool

    def __len__(self) -> int: ...

    @property
    def root(self) -> Path | None: ...

    @property
    def runs(self) -> np.ndarray: ...

    def row(self, index: int) -> dict[str, Any]:
        """The columns of a row. Raises DataError when it is damaged."""


class FreeTable:
    """Any row costs the same, so each is a run of its own."""

    window = 1
    in_order = False

    def __init__(self, path: Path, root: Path | None, rows: Sequence[Any] | np.ndarray) -> None:
        """rows: where each row lies, as row() of the table wants it."""
        self.name, self.root, self._path, self._rows = str(path), root, path, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def runs(self) -> np.ndarray:
        return np.ones(len(self), np.int64)


class JsonTable(FreeTable):
    """A JSON list of objects, a single object, or JSON lines: rows are found once, by byte offset (offsets.py)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.parent, find_rows(path))

    def row(self, index: int) -> dict[str, Any]:
        start, end = (int(value) for value in self._rows[index])
        with self._path.open("rb") as file:
            file.seek(start)
            return parse_object(file.read(end - start))


class TarTable(FreeTable):
    """A WebDataset shard: neighbours of one name (000.json, 000.jpg, 000.1.jpg) are a row.

    Objects in .json are its columns; .txt and .caption become `text`; pictures become `images` and films `videos`, in
    the order of their names, in the place of file names that the JSON may hold. Other members are left alone.
    """

    def __init__(self, path: Path) -> None:
        rows: list[list[tuple[str, int, int]]] = []  # of each row: (ending, offset, bytes)
        key = None
        try:
            with tarfile.open(path, "r:") as shard:
                for member in shard:
                    if not member.isreg() or member.issparse():
                        continue
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    if (folder, stem) != key:
                        key = (folder, stem)
                        rows.append([])
                    rows[-1].append((ending.lower(), member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shown(str(path))} is no plain tar file that can be read: {error}. Unpack it.") from error
        for row in rows:
            row.sort(key=lambda member: natural(member[0]))
        super().__init__(path, None, rows)

    def row(self, index: int) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        pictures: list[bytes] = []
        films: list[bytes] = []
        with self._path.open("rb") as file:
            for ending, offset, size in self._rows[index]:
                last = f".{ending.rpartition('.')[2]}"
                if last not in (".json", *_CAPTIONS, *PICTURE_SUFFIXES, *VIDEO_SUFFIXES):
                    continue
                file.seek(offset)
                content = file.read(size)
                if last == ".json":
                    columns |= parse_object(content)
                elif last in _CAPTIONS:
                    columns["text"] = _decode(content)
                else:
                    (films if last in VIDEO_SUFFIXES else pictures).append(content)
        for name, members in (("image", pictures), ("video", films)):
            if members:
                columns = {key: value for key, value in columns.items() if key not in (name, f"{name}s")}
                columns[f"{name}s"] = members
        return columns


class FolderTable(FreeTable):
    """Pictures and videos with captions beside them (cat.jpg, cat.txt); in a folder without any, each .txt is a row."""

    def __init__(self, folder: Path) -> None:
        files = files_in(folder)
        media = [file for file in files if file.suffix.lower() in (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)]
        super().__init__(folder, folder, media or [file for file in files if file.suffix.lower() == ".txt"])

    def row(self, index: int) -> dict[str, Any]:
        file = self._rows[index]
        if file.suffix.lower() == ".txt":
            return {"text": self._text(file)}
        beside = [file.with_suffix(suffix) for suffix in _CAPTIONS if file.with_suffix(suffix).is_file()]
        if not beside:
            raise DataError(f"{file.name} has no caption beside it: {file.stem}.txt is missing.")
        return {"file_name": str(file.relative_to(self._path)), "text": self._text(beside[0]).strip()}

    def _text(self, file: Path) -> str:
        return _decode(inside(str(file.relative_to(self._path)), self.root).read_bytes())


class TextTable(FreeTable):
    """One text file, one row."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, None, [path])

    def row(self, index: int) -> dict[str, Any]:
        return {"text": _decode(self._path.read_bytes())}


def parse_object(content: bytes) -> dict[str, Any]:
    """One JSON object. Raises DataError for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The row is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"A row must be a JSON object, but is a {type(found).__name__}.")
    return found


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"The text is not UTF-8: {error}. Save it again.") from error


def files_in(folder: Path) -> list[Path]:
    """What lies in a folder, at any depth, in the order of names; nothing hidden."""
    found = sorted(folder.rglob("*"))
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
