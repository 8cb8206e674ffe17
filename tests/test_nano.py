"""The bundled model is as right as its card says: fewer cases, other scenes, the bound is three standard errors below.

The recorded shares are those of `python benchmarks/nano_scores.py --json benchmarks/results/nano_scores.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import smolvlm
from benchmarks.nano_scores import ROWS, Row, cases, share_right
from smolvlm import VLM

RECORDED = Path(__file__).parents[1] / "benchmarks" / "results" / "nano_scores.json"
CASES = 100
SEED = 7  # the recorded scores have seed 0
GATED = [row for row in ROWS if row.floor is not None]


def recorded() -> dict[str, dict[str, float]]:
    return {row["name"]: row for row in json.loads(RECORDED.read_text())["rows"]}


@pytest.fixture(scope="module")
def nano() -> VLM:
    return smolvlm.load()


@pytest.mark.parametrize("row", GATED, ids=lambda row: row.name)
def test_nano_is_as_right_as_its_card_says(nano: VLM, row: Row) -> None:
    share = recorded()[row.name]["right"]
    error = max(share * (1 - share) / CASES, 1 / CASES**2) ** 0.5
    right, misses = share_right(nano, cases(row, SEED, CASES))
    assert right >= share - 3 * error, f"{row.name}: {right:.2f} now, {share:.2f} recorded; for example {misses[:3]}"


@pytest.mark.parametrize("row", GATED, ids=lambda row: row.name)
def test_without_the_right_picture_nano_is_no_better_than_guessing(row: Row) -> None:
    one = recorded()[row.name]
    error = (0.25 / one["cases"]) ** 0.5
    assert one["blind"] <= max(one["majority"], one["chance"]) + 3 * error


def test_every_row_of_the_script_is_recorded() -> None:
    assert set(recorded()) == {row.name for row in ROWS}
