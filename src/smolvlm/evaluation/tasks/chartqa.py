"""ChartQA (test): 2,500 questions on charts, half written by people, half made of the charts' captions.

Source: arXiv 2203.10244; VLMEvalKit e8e78f0, ChartQA_TEST; the hub's lmms-lab/ChartQA and HuggingFaceM4/ChartQA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, Record, read_records
from ..messages import ask_image, renamed, rows_of, short_message
from ..scorers import Judge, Mode, Score, relaxed_accuracy
from ..task import Asked, Protocol, Row, Task

FILES = Files("ChartQA_TEST", "chartqa", ("**/test*.parquet",), "lmms-lab/ChartQA, HuggingFaceM4/ChartQA, test")


def read(directory: Path) -> Iterator[Row]:
    records = renamed(read_records(directory, FILES), question="query", answer="label")
    return rows_of(map(_with_origin, records), groups={"split": "origin"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(short_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return relaxed_accuracy(prediction, row.answers, mode)


def _with_origin(record: Record) -> Record:
    """ "human" or "augmented": of test_human (TSV), human_test (lmms-lab), or 0 and 1 (HuggingFaceM4)."""
    columns = record.columns
    said = str(columns.get("split") or columns.get("type") or columns.get("human_or_machine"))
    origin = "human" if "human" in said or said == "0" else "augmented" if "augmented" in said or said == "1" else None
    return replace(record, columns={**columns, "origin": origin})


TASK = Task(
    name="chartqa",
    title="ChartQA (test)",
    kind="image",
    metric="relaxed accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("split",),
)
