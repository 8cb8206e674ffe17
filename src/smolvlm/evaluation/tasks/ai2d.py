"""AI2D (test): 3,088 multiple-choice questions on school diagrams whose labels are covered by letters.

Source: arXiv 1603.07396; VLMEvalKit e8e78f0, AI2D_TEST; the hub's lmms-lab/ai2d, whose answer counts from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..layouts import Files, read_records
from ..messages import ask_image, choice_message, options_of, rows_of, with_letters
from ..scorers import Judge, Mode, Score, leading_letter, multiple_choice
from ..task import Asked, Protocol, Row, Task

FILES = Files("AI2D_TEST", "ai2d", ("**/test*.parquet",), "lmms-lab/ai2d, test")


def read(directory: Path) -> Iterator[Row]:
    return rows_of(with_letters(read_records(directory, FILES), options="options"), groups={"category": "category"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(choice_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    options, gold = options_of(row), str(row.fields["answer"])
    if mode == "official":  # of lmms-eval, as AI2D has no code of its own
        return leading_letter(prediction, options, gold)
    return multiple_choice(prediction, options, gold, mode, judge=judge)


TASK = Task(
    name="ai2d",
    title="AI2D (test)",
    kind="image",
    metric="accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("category",),
)
