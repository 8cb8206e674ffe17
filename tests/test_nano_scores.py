"""The script that scores nano: a model that is always right, one that always says the same, one that can't look."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from smolvlm import scenes

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "nano_scores.py"


@pytest.fixture(scope="module")
def scores() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nano_scores", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.SCENES_FOR_MAJORITY = 300
    return module


class Oracle:
    """Knows the answer to each question on each picture; on pictures it has not seen it says nothing."""

    def __init__(self, rows: Sequence[object], scores: ModuleType, count: int) -> None:
        self.answers = {}
        for row in rows:
            for held_out in {False, row.skill in scenes.HELD_OUT_SKILLS}:  # type: ignore[attr-defined]
                for scene, turn in scores.cases(row, 0, count, held_out=held_out):
                    self.answers[self.key(scores.request(scene, turn.question))] = f" {turn.answer}"

    def key(self, request: dict[str, object]) -> tuple[object, ...]:
        pictures = request.get("images") or [frame for clip in request.get("videos", []) for frame in clip]  # type: ignore[attr-defined]
        return request["question"], tuple(picture.tobytes() for picture in pictures)  # type: ignore[attr-defined]

    def ask_batch(self, requests: Sequence[dict[str, object]]) -> list[str]:
        return [self.answers.get(self.key(request), "") for request in requests]


class Parrot:
    def ask_batch(self, requests: Sequence[dict[str, object]]) -> list[str]:
        return ["yes"] * len(requests)


def test_a_model_that_knows_everything_is_always_right_and_blind_without_its_picture(scores: ModuleType) -> None:
    rows = [row for row in scores.ROWS if row.name in ("counting", "video: direction", "chart: highest")]
    oracle = Oracle(rows, scores, 12)
    for row in rows:
        result = scores.score(oracle, row, 0, 12)
        assert result.right == 1 and result.blind == 0 and not result.misses
        assert result.held_out == (1 if row.skill in scenes.HELD_OUT_SKILLS else None)


def test_always_yes_scores_half_of_the_balanced_questions(scores: ModuleType) -> None:
    row = next(row for row in scores.ROWS if row.name == "yes or no")
    result = scores.score(Parrot(), row, 0, 300)
    assert result.cases == 300
    assert result.right == pytest.approx(0.5, abs=0.09)
    assert result.blind == result.right
    assert result.chance == pytest.approx(0.5, abs=0.03)
    assert len(result.misses) == 5 and result.misses[0][2] == "yes"
    plain = scores.score(Parrot(), row, 0, 300, plain=True)
    assert plain.right == result.right and plain.blind is plain.majority is plain.chance is None


def test_every_row_has_cases_and_they_are_of_its_kinds(scores: ModuleType) -> None:
    for row in scores.ROWS:
        found = scores.cases(row, 0, 5)
        assert len(found) == 5, row.name
        assert all(row.holds(turn) for _, turn in found)


def test_the_table_shows_percent_and_the_goal(scores: ModuleType) -> None:
    row = next(row for row in scores.ROWS if row.name == "yes or no")
    lines = list(scores.table([scores.score(Parrot(), row, 0, 40)]))
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| yes or no | 40 | **") and lines[2].endswith("| 95 |")
