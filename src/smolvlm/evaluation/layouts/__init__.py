"""The files of a benchmark in a directory of data sets -> their rows: columns as text or values, and the pictures.

Three layouts, looked for in this order: VLMEvalKit's TSV, the hub's parquet files, JSON beside pictures. What the
columns mean is for tasks/ to say. Bad files raise DataError before the first row, except what lies inside parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from .json import read_json
from .parquet import read_parquet
from .pictures import Record, literal_list
from .tsv import read_tsv

__all__ = ["Files", "Record", "literal_list", "read_records"]

VLMEVALKIT = "https://opencompass.openxlab.space/utils"


@dataclass(frozen=True)
class Files:
    """What a benchmark's files are called.

    tsv: VLMEvalKit's name, and place: where it lies on its server; "" when it has none there. folder: of the other
    layouts. parquet: patterns inside the folder, of which the first that finds something counts. hub: the data sets of
    this layout, for whoever looks for them.
    """

    tsv: str
    folder: str
    parquet: tuple[str, ...]
    hub: str
    place: str = "VLMEval"

    @property
    def address(self) -> str:
        return f"{VLMEVALKIT}/{self.place}/{self.tsv}.tsv" if self.place else ""


def read_records(directory: Path, files: Files) -> Iterator[Record]:
    """The rows of the first layout that is there.

    Raises DataError naming all that was looked for when nothing is, and for a bad file its name, the line and why.
    """
    folder = directory / files.folder
    for name in (f"{files.tsv}.tsv", f"{files.tsv}_local.tsv"):  # of more than 1 GB VLMEvalKit makes the second
        if (directory / name).is_file():
            return read_tsv(directory / name, directory, files.tsv)
    for pattern in files.parquet:
        tables = sorted(folder.glob(pattern))
        if tables:
            return read_parquet(tables, folder)
    lists = sorted([*folder.glob("*.jsonl"), *folder.glob("*.json")])
    if lists:
        return read_json(lists, folder)
    origin = f" (from {files.address})" if files.address else ""
    raise DataError(
        f"There is no {files.tsv} under {directory}. Looked for {files.tsv}.tsv{origin}; in the folder {files.folder} "
        f"for {', '.join(files.parquet)} ({files.hub} of the hub), *.jsonl and *.json. Put one of them there, or name "
        "another directory."
    )
