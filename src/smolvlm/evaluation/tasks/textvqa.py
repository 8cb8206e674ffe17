"""TextVQA (val): 5,000 questions on text in photographs, ten people's answers to each.

Source: arXiv 1904.08920; VLMEvalKit e8e78f0, TextVQA_VAL; the hub's lmms-lab/textvqa.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..layouts import Files, read_records
from ..messages import ask_image, renamed, rows_of, short_message
from ..scorers import Judge, Mode, Score, textvqa_accuracy
from ..task import Asked, Protocol, Row, Task

FILES = Files("TextVQA_VAL", "textvqa", ("**/validation*.parquet",), "lmms-lab/textvqa, validation")


def read(directory: Path) -> Iterator[Row]:
    return rows_of(renamed(read_records(directory, FILES), index="question_id", answer="answers"))


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(short_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return textvqa_accuracy(prediction, row.answers, mode)


TASK = Task(
    name="textvqa",
    title="TextVQA (val)",
    kind="image",
    metric="VQA accuracy",
    read=read,
    ask=ask,
    score=score,
)
