"""JSON and JSON lines beside pictures: one object a row, with the columns of VLMEvalKit's TSV or of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from .pictures import Record, take_pictures


def read_json(files: Sequence[Path], folder: Path) -> Iterator[Record]:
    """The rows of all files. Raises DataError naming file and row before the first one, if any can't be used."""
    records: list[Record] = []
    for file in files:
        for place, columns in _objects(file):
            others, images = take_pictures(columns, folder, place)
            records.append(Record(others, images, place, len(records)))
    return iter(records)


def _objects(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, the object) of each row."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read as text: {error}.") from error
    if file.suffix == ".jsonl":
        rows = [(f"{file.name}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        parsed = [(place, _parsed(line, place)) for place, line in rows]
    else:
        whole = _parsed(text, file.name)
        if not isinstance(whole, list):
            raise DataError(f"{file.name} must hold a list of objects, but holds a {type(whole).__name__}.")
        parsed = [(f"{file.name}, row {n}", row) for n, row in enumerate(whole, 1)]
    for place, row in parsed:
        if not isinstance(row, dict):
            raise DataError(f"{place}: a row must be a JSON object, but is a {type(row).__name__}.")
        yield place, row


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not valid JSON: {error}.") from error
