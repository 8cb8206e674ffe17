"""MathVista (testmini): 1,000 questions of mathematics on pictures, by choice or with a number.

Source: arXiv 2310.02255; VLMEvalKit e8e78f0, MathVista_MINI; the hub's AI4Math/MathVista.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, Record, read_records
from ..messages import ask_image, plain_message, rows_of, texts_of
from ..scorers import Judge, Mode, Score, mathvista
from ..task import Asked, Protocol, Row, Task

FILES = Files(
    "MathVista_MINI", "mathvista", ("testmini*.parquet", "**/testmini*.parquet"), "AI4Math/MathVista, testmini"
)
NEEDS = ("question", "answer", "question_type", "answer_type")


def read(directory: Path) -> Iterator[Row]:
    records = (_as_tsv(record) for record in read_records(directory, FILES))
    return rows_of(records, needs=NEEDS, groups={"task": "task", "skill": "skills"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(plain_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    fields, precision = row.fields, row.fields.get("precision")
    return mathvista(
        prediction,
        str(fields["answer"]),
        fields["answer_type"],
        choices=texts_of(fields.get("choices")) if fields["question_type"] == "multi_choice" else (),
        precision=None if precision is None else int(float(precision)),
        mode=mode,
        judge=judge,
    )


def _as_tsv(record: Record) -> Record:
    """Of the hub: the question with its hint is the query, and tasks and skills are inside metadata."""
    columns = record.columns
    if "query" not in columns:
        return record
    added = {"index": columns["pid"], "question": columns["query"]}
    return replace(record, columns={**columns, **(columns.get("metadata") or {}), **added})


TASK = Task(
    name="mathvista",
    title="MathVista (testmini)",
    kind="image",
    metric="accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("task", "skill"),
)
