"""VQAv2 (val): 214,354 questions on photographs, ten people's answers to each.

Source: arXiv 1612.00837; the hub's lmms-lab/VQAv2. VLMEvalKit doesn't have it: the prompt is what its classes make of a
data set that they don't know, around the question as lmms-eval puts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, Record, read_records
from ..messages import ask_image, renamed, rows_of, short_message
from ..scorers import Judge, Mode, Score, vqa_accuracy
from ..task import Asked, Protocol, Row, Task

FILES = Files("VQAv2_VAL", "vqav2", ("**/validation*.parquet",), "lmms-lab/VQAv2, validation", place="")
GROUPS = {"answer type": "answer_type", "question type": "question_type"}


def read(directory: Path) -> Iterator[Row]:
    records = renamed(read_records(directory, FILES), index="question_id", answer="answers")
    return rows_of(map(_with_texts, records), groups=GROUPS)


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(short_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return vqa_accuracy(prediction, row.answers, mode)


def _with_texts(record: Record) -> Record:
    """Of the hub: an answer is {"answer": "yes", "answer_confidence": ...}."""
    answers = record.columns.get("answer")
    if not isinstance(answers, list):
        return record
    texts = [one["answer"] if isinstance(one, Mapping) else one for one in answers]
    return replace(record, columns={**record.columns, "answer": texts})


TASK = Task(
    name="vqav2",
    title="VQAv2 (val)",
    kind="image",
    metric="VQA accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=tuple(GROUPS),
)
