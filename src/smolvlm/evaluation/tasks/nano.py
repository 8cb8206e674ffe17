"""Held-out sets of what the bundled model was taught, drawn when they are read: no files. Scored by exact equality.

Each row is one question on a picture, clip or pair of its own, of the test split, asked as a user asks: in the model's
own template, whatever wrapper a protocol names. Scenes, answers and what not looking would score are scenes/'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...scenes import Scene, Turn, draw
from ..scorers import Judge, Mode, Score
from ..scorers.score import graded
from ..task import Asked, Kind, Protocol, Row, Task

if TYPE_CHECKING:
    from ...vlm.requests import AskRequest

ROWS = 500
SEED = 0  # benchmarks/nano_scores.py asks the same scenes
MAX_NEW_TOKENS = 160  # more than the longest right answer has
MOST_SCENES_A_ROW = 60  # drawn in search of a question of the wanted kinds


@dataclass(frozen=True)
class _Set:
    """kinds: of questions; none is all, each scene giving another one of its questions."""

    title: str
    skill: str
    kind: Kind = "image"
    kinds: tuple[str, ...] = ()


_SETS = {
    "nano-chart": _Set("Drawn bar charts", "chart"),
    "nano-count": _Set("Drawn scenes: how many", "scene", kinds=("count_all", "count_colour", "count_shape")),
    "nano-document": _Set("Drawn receipts and invoices", "document"),
    "nano-pair": _Set("Two drawn pictures", "pair"),
    "nano-read": _Set("Drawn words and numbers", "read"),
    "nano-scenes": _Set("Drawn scenes", "scene"),
    "nano-video": _Set("Drawn clips", "video", "video"),
}


def _read(name: str, directory: Path) -> Iterator[Row]:
    """directory: not looked at."""
    for index, turn in _questions(name):
        kind = turn.kind.removesuffix("_absent")
        yield Row(f"{index}", turn.question, (turn.answer,), fields={"index": index}, groups={"kind": kind})


def _ask(name: str, row: Row, protocol: Protocol) -> Asked:
    scene = _draw(name, row.fields["index"])
    request: AskRequest = {
        "question": row.question,
        "max_new_tokens": protocol.max_new_tokens or MAX_NEW_TOKENS,
        "detail": scene.detail,
    }
    if scene.clip is None:
        request["images"] = list(scene.pictures)
        return Asked(request, "<image>" * len(scene.pictures) + row.question)
    request["videos"] = [list(scene.clip.frames)]
    return Asked(request, f"<video>{row.question}", scene.clip.timestamps_s)


def _score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    said = prediction.strip()
    return graded(prediction, said, said in row.answers)


@cache
def _questions(name: str) -> tuple[tuple[int, Turn], ...]:
    """(scene, question) of each row: at most one a scene, so that rows are independent of each other."""
    found: list[tuple[int, Turn]] = []
    for index in range(ROWS * MOST_SCENES_A_ROW):
        turn = _turn(_draw(name, index), index, _SETS[name].kinds)
        if turn is not None:
            found.append((index, turn))
        if len(found) == ROWS:
            break
    assert len(found) == ROWS, f"{name}: scenes of this skill rarely ask so"
    return tuple(found)


def _turn(scene: Scene, index: int, kinds: tuple[str, ...]) -> Turn | None:
    if not kinds:
        return scene.turns[index % len(scene.turns)]
    return next((turn for turn in scene.turns if turn.kind in kinds), None)


def _draw(name: str, index: int) -> Scene:
    return draw(_SETS[name].skill, SEED, index, "test")


TASKS = {
    name: Task(
        name=name,
        title=one.title,
        kind=one.kind,
        metric="exact",
        read=partial(_read, name),
        ask=partial(_ask, name),
        score=_score,
        groups=("kind",),
    )
    for name, one in _SETS.items()
}
