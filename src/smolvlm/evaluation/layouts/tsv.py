"""VLMEvalKit's TSV: index, question, options A, B and so on, and pictures as base64 in the column image.

The file is gone through once, for its texts and for where each row lies; a row's pictures are read when it is come to.
Source: VLMEvalKit e8e78f0, dataset/image_base.py and smp/file.py, which reads with pandas.
"""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from .pictures import Record, find_pictures, literal_list

LONGEST_INDEX = 64  # characters; what is longer in the column image is a picture
_MOST_CELL_BYTES = 2**31 - 1  # the csv module's own limit is 128 KiB
# What pandas takes for no value, so that VLMEvalKit shows no model an option "None".
_MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
    + ["NULL", "NaN", "None", "n/a", "nan", "null"]
)
_NUMBER = re.compile(r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)\s*", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


@dataclass(frozen=True)
class _Line:
    """A row: its first line, its first byte and the one behind it, its cells; `image` cut so that all fit in memory."""

    number: int
    start: int
    end: int
    cells: dict[str, str]


@dataclass(frozen=True)
class _Pictures:
    """Where a row's pictures are: in the column image of the row at these bytes, or in files."""

    start: int = 0
    end: int = 0
    files: tuple[Path, ...] = ()


def read_tsv(path: Path, root: Path, name: str) -> Iterator[Record]:
    """The rows. root: the directory of data sets; what image_path names is in its images/<name>, or beside the TSV.

    Raises DataError naming the line, before the first row: for a malformed file, and for a row without its picture.
    """
    with path.open("rb") as file:
        lines = list(_lines(file, path.name))
    if not lines:
        raise DataError(f"{path.name} has no rows. It may be cut off: copy it again.")
    names = lines[0].cells.keys()
    if "index" not in names or not {"image", "image_path"} & names:
        raise DataError(f"{path.name} needs the columns index, and image or image_path; it has: {', '.join(names)}.")
    texts = [column for column in names if column not in ("image", "image_path")]
    columns = {column: _typed(column, [line.cells[column] for line in lines]) for column in texts}
    by_index: dict[str, _Line] = {}
    for line, index in zip(lines, columns["index"], strict=True):
        first = by_index.setdefault(str(index), line)
        if first is not line:
            raise DataError(f"{path.name}: the index {index} is on line {first.number} and again on {line.number}.")
    folders = (root / "images" / name, path.parent)
    pictures = [_find(line, by_index, folders, root, f"{path.name}, line {line.number}") for line in lines]
    return _records(path, lines, columns, pictures)


def as_pandas(cells: Sequence[str]) -> list[str | None]:
    """A column as VLMEvalKit writes it into prompts: None for what is missing, and numbers if it holds nothing else.

    "007" is 7 then; and 7 is 7.0 when one is missing, as it is of options that few questions have.
    """
    found = [None if cell in _MISSING else cell for cell in cells]
    present = [cell for cell in found if cell is not None]
    if not present or not all(_NUMBER.fullmatch(cell) for cell in present):
        return found
    if len(present) == len(found) and all(_WHOLE.fullmatch(cell) for cell in present):
        fits = all(abs(int(cell)) < 2**63 for cell in present)
        return [str(int(cell)) for cell in present] if fits else found
    return [None if cell is None else repr(float(cell)) for cell in found]


def _typed(name: str, cells: list[str]) -> list[str | None]:
    """An answer stays as it is: "None" can be one."""
    return [cell or None for cell in cells] if name == "answer" else as_pandas(cells)


def _lines(file: BinaryIO, name: str) -> Iterator[_Line]:
    """The rows behind the header."""
    csv.field_size_limit(_MOST_CELL_BYTES)  # of the whole process: csv knows no other
    position = 0

    def decoded() -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            yield line.decode("utf-8" if position > len(line) else "utf-8-sig")

    reader = csv.reader(decoded(), delimiter="\t", strict=True)
    header: list[str] | None = None
    number, start = 1, 0
    try:
        for cells in reader:
            if header is None:
                header = cells
            elif cells:
                if len(cells) != len(header):
                    raise csv.Error(f"{len(cells)} cells, but the header has {len(header)}")
                columns = dict(zip(header, cells, strict=True))
                if "image" in columns:
                    columns["image"] = columns["image"][: LONGEST_INDEX + 1]
                yield _Line(number, start, position, columns)
            number, start = reader.line_num + 1, position
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{name}, line {number}: this is no row of a TSV: {error}. The file is cut off or damaged: copy it again."
        ) from error


def _find(line: _Line, by_index: dict[str, _Line], folders: Sequence[Path], root: Path, where: str) -> _Pictures:
    cell = line.cells.get("image", "")
    if len(cell) > LONGEST_INDEX:
        return _Pictures(line.start, line.end)
    if cell:
        holder = by_index.get(cell)
        if holder is None or len(holder.cells["image"]) <= LONGEST_INDEX:
            raise DataError(f"{where}: the picture is said to be that of row {cell!r}, which has none.")
        return _Pictures(holder.start, holder.end)
    path = line.cells.get("image_path", "")
    if path in _MISSING:
        raise DataError(f"{where}: the row has no picture, neither as image nor as image_path. Take the row out.")
    return _Pictures(files=find_pictures(literal_list(path) or [path], folders, root, where))


def _records(
    path: Path, lines: Sequence[_Line], columns: dict[str, list[str | None]], pictures: Sequence[_Pictures]
) -> Iterator[Record]:
    with path.open("rb") as file:
        header = next(csv.reader([file.readline().decode("utf-8-sig")], delimiter="\t"))
        at = header.index("image") if "image" in header else -1
        for number, (line, found) in enumerate(zip(lines, pictures, strict=True)):
            images: tuple[bytes | Path, ...] = found.files
            if not images:
                file.seek(found.start)
                row = next(csv.reader([file.read(found.end - found.start).decode("utf-8")], delimiter="\t"))
                images = tuple(_decoded(cell) for cell in literal_list(row[at]) or [row[at]])
            texts = {column: cells[number] for column, cells in columns.items()}
            yield Record(texts, images, f"{path.name}, line {line.number}", number)


def _decoded(cell: str) -> bytes:
    """The picture, or the text itself where it is none: whoever opens it says what is wrong with it."""
    try:
        return base64.b64decode(cell)
    except (binascii.Error, ValueError):
        return cell.encode()
