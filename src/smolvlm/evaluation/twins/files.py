"""Rows with the columns of VLMEvalKit's TSV -> that TSV, or the parquet files that the hub has of a benchmark."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ...parquet import import_arrow
from ..layouts import literal_list

Columns = dict[str, Any]

PARQUET = {
    "mmmu": "mmmu/Art/validation-00000-of-00001.parquet",
    "chartqa": "chartqa/data/test-00000-of-00001.parquet",
    "docvqa": "docvqa/DocVQA/validation-00000-of-00001.parquet",
}


def write_tsv(path: Path, rows: Sequence[Columns]) -> Path:
    """Columns in the order in which they first come up; what a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(names)
        for row in rows:
            table.writerow(["" if row.get(name) is None else _cell(row[name]) for name in names])
    return path


def write_parquet(name: str, directory: Path, rows: Sequence[Columns]) -> Path:
    """One of PARQUET, under its folder in the directory. Raises MissingDependencyError without pyarrow."""
    pyarrow, parquet = import_arrow()
    by_index = {row["index"]: row["image"] for row in rows}
    hub = [_HUB[name]({**row, "image": _pictures(row["image"], by_index)}) for row in rows]
    path = directory / PARQUET[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(hub), path, row_group_size=100)
    return path


def _cell(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    pictures = [base64.b64encode(picture).decode() for picture in value]
    return pictures[0] if len(pictures) == 1 else repr(pictures)


def _pictures(shown: Any, by_index: dict[Any, Any]) -> list[dict[str, Any]]:
    found = shown if isinstance(shown, tuple) else by_index[shown]
    return [{"bytes": picture, "path": None} for picture in found]


def _mmmu(row: Columns) -> Columns:
    """Seven places for pictures, and the options as a list written out."""
    pictures = row["image"] + [None] * (7 - len(row["image"]))
    kept = {name: row[name] for name in ("id", "question", "answer", "question_type", "topic_difficulty")}
    options = [row[letter] for letter in ascii_uppercase if letter in row]
    return (
        kept
        | {"options": repr(options), "explanation": "", "img_type": "['Diagrams']", "subfield": "Drawing"}
        | {f"image_{number}": picture for number, picture in enumerate(pictures, 1)}
    )


def _chartqa(row: Columns) -> Columns:
    origin = "human_test" if row["split"] == "test_human" else "augmented_test"
    return {"type": origin, "question": row["question"], "answer": row["answer"], "image": row["image"][0]}


def _docvqa(row: Columns) -> Columns:
    kept = {name: row[name] for name in ("question", "docId")}
    lists = {"answers": literal_list(row["answer"]), "question_types": literal_list(row["question_types"])}
    numbers = {"questionId": str(row["questionId"]), "ucsf_document_id": "drawn", "ucsf_document_page_no": "1"}
    return kept | lists | numbers | {"data_split": "val", "image": row["image"][0]}


_HUB = {"mmmu": _mmmu, "chartqa": _chartqa, "docvqa": _docvqa}
