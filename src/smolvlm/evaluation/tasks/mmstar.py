"""MMStar: 1,500 multiple-choice questions that can't be answered without the picture, 250 of each of six capabilities.

Source: arXiv 2403.20330; VLMEvalKit e8e78f0, MMStar; the hub's Lin-Chen/MMStar, whose questions hold the options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..layouts import Files, Record, read_records
from ..messages import ask_image, choice_message, lettered, options_of, rows_of
from ..scorers import Judge, Mode, Score, multiple_choice
from ..task import Asked, Protocol, Row, Task

FILES = Files("MMStar", "mmstar", ("**/val*.parquet", "**/*.parquet"), "Lin-Chen/MMStar")
_OPTIONS = re.compile(r"\s*\n(?:Options|Choices):\s*(?=\(?A)")
_LETTER = re.compile(r"(?:^|[,\n]\s*)\(?([A-Z])(?::|\))\s")
UNREAD = ("(A)", "(B)", "(C)", "(D)")  # of a question whose options stand in it in another way


def read(directory: Path) -> Iterator[Row]:
    records = (_as_tsv(record) for record in read_records(directory, FILES))
    return rows_of(records, groups={"capability": "category", "axis": "l2_category"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(choice_message(row), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return multiple_choice(prediction, options_of(row) or UNREAD, str(row.fields["answer"]), mode, judge=judge)


def _as_tsv(record: Record) -> Record:
    """Of the hub: "Which ...?\\nOptions: A: one, B: two". The columns l2-category and l2_category are one."""
    columns = dict(record.columns)
    columns.setdefault("l2_category", columns.get("l2-category"))
    if "A" not in columns:
        question, *rest = _OPTIONS.split(str(columns.get("question") or ""), maxsplit=1)
        _, *pieces = _LETTER.split(rest[0]) if rest else [""]
        columns |= {"question": question} | lettered(text.strip() for text in pieces[1::2])
    return replace(record, columns=columns)


TASK = Task(
    name="mmstar",
    title="MMStar",
    kind="image",
    metric="accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("capability", "axis"),
)
