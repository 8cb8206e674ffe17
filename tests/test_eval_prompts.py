"""Prompts of the image tasks are VLMEvalKit's, byte for byte; golden_prompts_image.json says how they were made."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.errors import InputError
from smolvlm.evaluation.prompts import prompt_texts
from smolvlm.evaluation.task import Protocol
from smolvlm.evaluation.tasks import TASKS
from smolvlm.evaluation.wrapper import WRAPPERS, written_prompt

FILE = json.loads((Path(__file__).parent / "golden_prompts_image.json").read_text(encoding="utf-8"))
GOLDEN, MESSAGES = FILE["tasks"], FILE["messages"]


def picture(number: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8 + number, 8), (40 * number, 90, 200)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def cell(value: Any) -> str:
    if not isinstance(value, int):
        return str(value)
    return picture(1) if value == 1 else repr([picture(number) for number in range(1, value + 1)])


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_prompts_are_those_of_the_harness(name: str, wrapper: Any, tmp_path: Path) -> None:
    table = GOLDEN[name]
    with (tmp_path / f"{table['tsv']}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([table["columns"], *([cell(value) for value in row] for row in table["rows"])])
    task = TASKS[name]
    asked = [task.ask(row, Protocol(wrapper=wrapper)) for row in task.read(tmp_path)]
    assert [one.prompt for one in asked] == table["prompts"][wrapper]
    for one in asked:
        assert one.request["prompt"] == one.prompt
        assert len(one.request["images"]) == one.prompt.count("<image>")  # type: ignore[arg-type]


def test_every_task_has_at_least_five_rows_and_both_wrappers() -> None:
    for table in GOLDEN.values():
        assert len(table["rows"]) >= 5 and all(len(table["prompts"][one]) == len(table["rows"]) for one in WRAPPERS)


def test_wrappers_differ_in_the_apostrophes_of_charts_alone() -> None:
    for name, table in GOLDEN.items():
        first, second = (table["prompts"][one] for one in WRAPPERS)
        assert (first != second) == (name == "chartqa")
    chart = [written_prompt([{"type": "text", "value": "Don't?"}], "ChartQA_TEST", one)[0] for one in WRAPPERS]
    assert chart[0].count("\u2019") == 2 and chart[0].replace("\u2019", "'") == chart[1]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("case", MESSAGES, ids=[case["dataset"] for case in MESSAGES])
def test_messages_of_other_data_sets_are_written_as_the_harness_writes_them(case: dict[str, Any], wrapper: str) -> None:
    parts = [
        {"type": "image", "value": at} if part is None else {"type": "text", "value": part}
        for at, part in enumerate(case["parts"])
    ]
    prompt, images = written_prompt(parts, case["dataset"], wrapper)
    assert prompt == case["prompts"][wrapper]
    assert images == [at for at, part in enumerate(case["parts"]) if part is None]


def test_unknown_wrappers_and_parts_are_refused() -> None:
    with pytest.raises(InputError, match="'llava'.*smolvlm, smolvlm2"):
        written_prompt([], "MMStar", "llava")
    with pytest.raises(InputError, match="'video'"):
        written_prompt([{"type": "video", "value": "a.mp4"}], "MMStar", "smolvlm2")


def test_no_data_set_has_two_styles() -> None:
    named = [name for style in prompt_texts("wrapper")["styles"].values() for name in style.get("datasets", ())]
    assert len(named) == len(set(named))
