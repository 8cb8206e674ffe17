"""What a scorer returns, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["vlmevalkit", "official", "strict"]
Status = Literal["ok", "undecided", "empty"]
# Gets the prediction and answers with a text that the scorer reads in its place. Who makes one puts the question in.
Judge = Callable[[str], str]


@dataclass(frozen=True)
class Score:
    """value: 0..1. parsed: what the scorer took for the answer, "" for nothing.

    status: "empty" when the prediction is blank, "undecided" when no rule could read it, else "ok". Neither of the
    first two is always worth 0: some harnesses give points for nothing, see mvbench.
    """

    value: float
    parsed: str
    status: Status = "ok"


def graded(prediction: str, parsed: str | None, value: float) -> Score:
    """parsed: None when no rule could read the prediction."""
    status: Status = "ok" if parsed is not None else "undecided"
    return Score(float(value), parsed or "", status if prediction.strip() else "empty")


def read_or_ask(prediction: str, read: Callable[[str], str | None], judge: Judge | None, tries: int = 1) -> str | None:
    """What read makes of the prediction, or of the judge's answers to it when there is a judge."""
    found = read(prediction)
    while found is None and judge is not None and tries > 0:
        found = read(judge(prediction))
        tries -= 1
    return found
