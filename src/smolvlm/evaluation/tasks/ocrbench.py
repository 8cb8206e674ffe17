"""OCRBench: 1,000 questions of ten kinds on written text. Its score of 1,000 is the number of hits.

Source: arXiv 2305.07895; VLMEvalKit e8e78f0, OCRBench; the hub's echo840/OCRBench.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, Record, read_records
from ..messages import ask_image, plain_message, renamed, rows_of
from ..scorers import Judge, Mode, Score, containment
from ..task import Asked, Protocol, Row, Task

FILES = Files("OCRBench", "ocrbench", ("**/test*.parquet", "**/*.parquet"), "echo840/OCRBench")
FORMULAS = "Handwritten Mathematical Expression Recognition"


def read(directory: Path) -> Iterator[Row]:
    records = renamed(read_records(directory, FILES), category="question_type")
    return rows_of(map(_with_area, records), groups={"area": "area", "type": "category"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(plain_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return containment(prediction, row.answers, mode, formula=row.fields["category"] == FORMULAS)


def _with_area(record: Record) -> Record:
    """Reported together are the six kinds of recognition but the formulas."""
    kind = str(record.columns.get("category"))
    area = "Text Recognition" if kind.endswith("Recognition") and kind != FORMULAS else kind
    return replace(record, columns={**record.columns, "area": area})


TASK = Task(
    name="ocrbench",
    title="OCRBench",
    kind="image",
    metric="hits",
    read=read,
    ask=ask,
    score=score,
    groups=("area", "type"),
)
