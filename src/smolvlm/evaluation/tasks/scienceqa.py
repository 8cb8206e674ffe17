"""ScienceQA (test): the 2,017 multiple-choice questions of school science that have a picture.

Source: arXiv 2209.09513; VLMEvalKit e8e78f0, ScienceQA_TEST; the hub's lmms-lab/ScienceQA and derek-thomas/ScienceQA,
whose answer counts from 0 and whose questions without a picture are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..layouts import Files, read_records
from ..messages import ask_image, choice_message, options_of, rows_of, with_letters
from ..scorers import Judge, Mode, Score, leading_letter, multiple_choice
from ..task import Asked, Protocol, Row, Task

FILES = Files(
    "ScienceQA_TEST",
    "scienceqa",
    ("**/ScienceQA-IMG/test*.parquet", "**/test*.parquet"),
    "lmms-lab/ScienceQA, derek-thomas/ScienceQA, test",
    place="benchmarks/ScienceQA",
)


def read(directory: Path) -> Iterator[Row]:
    shown = (record for record in read_records(directory, FILES) if record.images)
    groups = {"subject": "subject", "topic": "topic", "category": "category"}
    return rows_of(with_letters(shown, options="choices"), groups=groups)


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(choice_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    options, gold = options_of(row), str(row.fields["answer"])
    if mode == "official":  # of lmms-eval, which reads answers as LLaVA does
        return leading_letter(prediction, options, gold)
    return multiple_choice(prediction, options, gold, mode, judge=judge)


TASK = Task(
    name="scienceqa",
    title="ScienceQA (test, with pictures)",
    kind="image",
    metric="accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("subject", "topic", "category"),
)
