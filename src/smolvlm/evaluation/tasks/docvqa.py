"""DocVQA: questions on scanned pages. docvqa is the validation set; docvqa-test has no public answers, see below.

Source: arXiv 2007.00398; VLMEvalKit e8e78f0, DocVQA_VAL and DocVQA_TEST; the hub's lmms-lab/DocVQA. The answers to the
test set are scored by rrc.cvc.uab.es alone: its rows are asked, and every score is undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, read_records
from ..messages import ask_image, renamed, rows_of, short_message
from ..scorers import Judge, Mode, Score, anls
from ..task import Asked, Protocol, Row, Task

FILES = Files(
    "DocVQA_VAL", "docvqa", ("**/DocVQA/validation*.parquet", "**/validation*.parquet"), "lmms-lab/DocVQA, validation"
)
TEST_FILES = Files(
    "DocVQA_TEST", "docvqa-test", ("**/DocVQA/test*.parquet", "**/test*.parquet"), "lmms-lab/DocVQA, test"
)
NAMES = {"index": "questionId", "answer": "answers"}
GROUPS = {"question type": "question_types"}


def read(directory: Path) -> Iterator[Row]:
    return rows_of(renamed(read_records(directory, FILES), **NAMES), groups=GROUPS)


def read_test(directory: Path) -> Iterator[Row]:
    return rows_of(renamed(read_records(directory, TEST_FILES), **NAMES), needs=("question",), groups=GROUPS)


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(short_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return anls(prediction, row.answers, mode)


def leave_undecided(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return Score(0.0, prediction.strip(), "undecided" if prediction.strip() else "empty")


TASK = Task(
    name="docvqa",
    title="DocVQA (val)",
    kind="image",
    metric="ANLS",
    read=read,
    ask=ask,
    score=score,
    groups=tuple(GROUPS),
)
TEST = replace(TASK, name="docvqa-test", title="DocVQA (test)", read=read_test, score=leave_undecided)
