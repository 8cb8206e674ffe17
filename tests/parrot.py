"""Stand-ins for tests of evaluation: a model that repeats its question, and tasks of rows that a test writes down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from smolvlm.errors import InputError
from smolvlm.evaluation.runner import Asking
from smolvlm.evaluation.scorers import Score, exact_match
from smolvlm.evaluation.settings import Settings
from smolvlm.evaluation.task import Asked, Protocol, Row, Task
from smolvlm.types import Answer
from smolvlm.vlm import VLM

SETTINGS = Settings(
    model="parrot", adapter="", weights="0", runtime="none", dtype="float32", device="cpu", protocol=Protocol(),
    prompts="0", judge="", version="1",
)  # fmt: skip


@dataclass
class Parrot:
    """Answers with the question, `times` over. A question with "bad" in it can't be asked."""

    times: int = 1
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)
    image_seq_len: int = 16

    @property
    def processor(self) -> Parrot:
        return self

    def ask_batch(self, requests: Sequence[dict[str, Any]], *, batch_size: int) -> list[Answer]:
        questions = [request["question"] for request in requests]
        if wrong := [question for question in questions if "bad" in question]:
            raise InputError(f"This can't be\nasked: {wrong[0]}")
        time.sleep(self.seconds)
        self.asked += questions
        return [Answer(question * self.times, (7,), "stop", 20, 16) for question in questions]


def asking(parrot: Parrot | None = None, **options: Any) -> Asking:
    return Asking(cast(VLM, parrot or Parrot()), Protocol(), **options)


def task_of(rows: Sequence[Row], name: str = "told") -> Task:
    """A task of these rows, right when the question is its own answer."""
    return Task(
        name=name,
        title=name.title(),
        kind="text",
        metric="exact",
        read=lambda directory: iter(rows),
        ask=lambda row, protocol: Asked({"question": row.question, "max_new_tokens": 9}, row.question),
        score=lambda prediction, row, mode, judge: score(prediction, row),
        groups=("kind",),
    )


def score(prediction: str, row: Row) -> Score:
    return exact_match(prediction, row.answers)


def numbered(count: int, *, wrong: int = 3) -> list[Row]:
    """Rows of which every `wrong`-th has another answer."""
    return [
        Row(f"{number}", f"question {number}", (f"question {number}" if number % wrong else "x",),
            groups={"kind": "even" if number % 2 == 0 else ("odd", "strange")})
        for number in range(count)
    ]  # fmt: skip


NOWHERE = Path("nowhere")
