"""One data set: what a user names (a file, a folder, a pattern, the hub) -> numbered samples.

Files are found here and read by tables.py, arrow.py and stream.py; rows become samples by formats.py, and their media
are held to one folder by roots.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError, DataError
from ...media.source import shown
from .arrow import Groups, ParquetTable
from .drawn import PREFIX as SCENES
from .drawn import SceneTable
from .formats import convert, format_named, recognise
from .order import shuffled_runs
from .roots import resolve_sample
from .sample import Place, Row, Sample
from .stream import PREFIX, HubTable
from .tables import FolderTable, JsonTable, Table, TarTable, TextTable, files_in

READERS: dict[str, type[JsonTable] | type[TarTable] | type[TextTable]] = {
    ".json": JsonTable, ".jsonl": JsonTable, ".ndjson": JsonTable, ".tar": TarTable, ".txt": TextTable,
}  # fmt: skip
PARQUET = ".parquet"
KINDS = ("text", "image", "multi-image", "video")  # what a data set is of
# How files of other splits begin; a folder is read for training, and must not teach what is kept for tests.
_HELD_OUT = re.compile(r"(test|val|valid|validation|dev|eval)(\d*|[-_.].*)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """What a user says of a data set.

    path: a file, a folder, a pattern with *, hub:owner/name, or scenes: for drawn ones. format: told by the columns
    when empty. weight: how many times an epoch goes through it; with 0.1 each epoch takes another tenth. media_root:
    the folder that its pictures and videos are named from, the folder of the data file when empty. min_tokens: samples
    with fewer are passed over. kind, samples: what is known of it: one of KINDS, and how many samples it has (0 is
    unknown); nothing follows from them but the shares of a mixture. Raises ConfigError.
    """

    path: str
    format: str = ""
    weight: float = 1.0
    media_root: str = ""
    kind: str = ""
    samples: int = 0
    min_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("path", "format", "media_root", "kind"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name}={getattr(self, name)!r} of {self.path!r} must be a text.")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float):
            raise ConfigError(f"weight={self.weight!r} of {self.path!r} must be a number.")
        if not 0 < self.weight < float("inf"):
            raise ConfigError(f"weight={self.weight} of {self.path!r} must be above 0.")
        if self.kind not in ("", *KINDS):
            raise ConfigError(f"kind={self.kind!r} of {self.path!r} is unknown; there are {', '.join(KINDS)}.")
        for name in ("samples", "min_tokens"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ConfigError(f"{name}={count!r} of {self.path!r} must be a whole number, 0 or more.")

    @property
    def share(self) -> Fraction:
        """The weight as written: 0.1 is a tenth, which no float is."""
        return Fraction(str(self.weight))


class DataSet:
    """Numbered samples of one source. left_out: files of other splits that were found and are not read.

    Raises DataError when there is nothing to read, or the first row fits no format.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        if source.format:
            format_named(source.format)
        self.tables, self.left_out = _open(source.path)
        self._ends = np.cumsum([len(table) for table in self.tables])
        self._root = Path(source.media_root).expanduser() if source.media_root else None
        if self._root is not None and not self._root.is_dir():
            raise DataError(f"The media root {shown(str(self._root))} is no folder.")
        if not len(self):
            raise DataError(f"{shown(source.path)} holds no rows.")
        self._check_first()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def shuffled(self, *seed: object) -> np.ndarray:
        """All sample numbers in an order that the seed gives; files read by runs are read few runs at a time."""
        runs = np.concatenate([table.runs for table in self.tables])
        window = min(table.window for table in self.tables)
        return shuffled_runs(runs, window, any(table.in_order for table in self.tables), *seed)

    def place(self, index: int) -> Place:
        table, row = self._locate(index)
        return Place(table.name, row)

    def sample(self, index: int) -> Sample:
        """Raises DataError, PromptError or MediaError for a row that can't be used."""
        return self.converted(index)[1]

    def converted(self, index: int) -> tuple[str, Sample]:
        """The name of the row's format, and its sample."""
        table, number = self._locate(index)
        name, sample = convert(Row(_columns(table, number), Place(table.name, number)), self.source.format)
        return name, resolve_sample(sample, self._root or table.root)

    def _locate(self, index: int) -> tuple[Table, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.tables[number], index - int(self._ends[number] - len(self.tables[number]))

    def _check_first(self) -> None:
        """A format that fits nothing is told at once, and not after a thousand skipped rows."""
        if self.source.format:
            return
        try:
            columns = _columns(*self._locate(0))
        except DataError:
            return  # one damaged row says nothing of the others
        try:
            recognise(frozenset(columns))
        except DataError as error:
            raise DataError(f"{shown(self.source.path)}: {error}") from None


def _columns(table: Table, number: int) -> dict[str, Any]:
    """The columns of a row that hold something."""
    return {name: value for name, value in table.row(number).items() if value is not None}


def _open(path: str) -> tuple[list[Table], list[Path]]:
    """(tables, files left out) of what a user names."""
    if path.startswith(PREFIX):
        return [HubTable(path)], []
    if path.startswith(SCENES):
        return [SceneTable(path)], []
    named, left_out = Path(path).expanduser(), list[Path]()
    if named.is_dir():
        files, left_out = _files_of(named)
        if not files:
            return [FolderTable(named)], []
    else:
        files = [named] if named.is_file() else sorted(Path(found) for found in glob(str(named), recursive=True))
    if not files:
        raise DataError(f"There is no file or folder {shown(path)}. On the hub, write hub:owner/name.")
    groups = Groups()
    return [_open_file(file, groups) for file in files], left_out


def _open_file(file: Path, groups: Groups) -> Table:
    suffix = file.suffix.lower()
    if suffix == PARQUET:
        return ParquetTable(file, groups)
    if suffix not in READERS:
        kinds = ", ".join([*READERS, PARQUET])
        raise DataError(f"{shown(str(file))} can't be read as training data: the kinds are {kinds} and folders.")
    return READERS[suffix](file)


def _files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """(data files of a folder, those of other splits). Texts are no data files here: they may be captions."""
    kinds = {*READERS, PARQUET} - {".txt"}
    files = [file for file in files_in(folder) if file.suffix.lower() in kinds and file.is_file()]
    held_out = [file for file in files if any(_HELD_OUT.fullmatch(part) for part in file.relative_to(folder).parts)]
    return ([file for file in files if file not in held_out], held_out) if len(held_out) < len(files) else (files, [])
