"""Image tasks from a file to a score, on twins drawn in the benchmarks' own layouts, asked of the bundled model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import smolvlm
from smolvlm.errors import DataError, ImageError, InputError
from smolvlm.evaluation.scorers import Mode
from smolvlm.evaluation.task import Protocol, Row
from smolvlm.evaluation.tasks import TASKS, find_task, mmstar
from smolvlm.evaluation.tasks.mmmu import DISCIPLINES, interleaved
from smolvlm.evaluation.twins import TWINS, draw_twin
from smolvlm.media.image import open_image
from tests.test_eval_layouts import png

IMAGE_TASKS = sorted(name for name in TWINS if TASKS[name].kind == "image")
GUESSING = ("mathvista", "mmmu")
PARQUET = ("chartqa", "docvqa", "mmmu")
MODES: tuple[Mode, ...] = ("vlmevalkit", "official", "strict")


@pytest.fixture(scope="module")
def vlm() -> smolvlm.VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("twins")
    for name in IMAGE_TASKS:
        draw_twin(name, directory, 30)
    return directory


def rows(name: str, directory: Path) -> list[Row]:
    return list(TASKS[name].read(directory))


def right_answer(row: Row) -> str:
    """What a model would say that knows."""
    return next(iter(row.answers), "") or "A"


@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_a_twin_is_read_asked_and_scored(name: str, twins: Path, vlm: smolvlm.VLM) -> None:
    task, found = TASKS[name], rows(name, twins)
    assert len(found) == len({row.key for row in found}) == 30
    asked = [task.ask(row, Protocol(max_new_tokens=24)) for row in found[:4]]
    answers = vlm.ask_batch([one.request for one in asked])
    for row, answer in zip(found, answers, strict=False):
        for mode in MODES:
            score = task.score(answer.text, row, mode, None)
            assert 0 <= score.value <= 1 and score.status in ("ok", "undecided", "empty")
    assert set(task.groups) == {breakdown for row in found for breakdown in row.groups}


@pytest.mark.parametrize("name", [name for name in IMAGE_TASKS if name != "docvqa-test"])
@pytest.mark.parametrize("mode", MODES)
def test_the_right_answer_scores_and_none_does_not(name: str, mode: Mode, twins: Path) -> None:
    task = TASKS[name]
    for row in rows(name, twins):
        is_open = name == "mmmu" and row.fields["question_type"] == "open"
        said = "A" if is_open and mode == "vlmevalkit" else right_answer(row)
        if name == "mathvista" and row.fields["question_type"] == "multi_choice":
            said = row.fields["answer_option"]
        assert task.score(said, row, mode, None).value > 0.5, row
        # Of nothing MMMU's own parser makes a guess and MathVista's the shortest choice; it stays marked as nothing.
        nothing = task.score("", row, mode, None)
        assert nothing.status == "empty" and (nothing.value == 0 or (mode == "official" and name in GUESSING))


@pytest.mark.parametrize("name", PARQUET)
def test_the_layout_of_the_hub_gives_the_same_rows(name: str, twins: Path, tmp_path: Path) -> None:
    draw_twin(name, tmp_path, 30, "parquet")
    for one, other in zip(rows(name, twins), rows(name, tmp_path), strict=True):
        assert replace(one, key="", fields={}) == replace(other, key="", fields={})
        assert TASKS[name].ask(one, Protocol()).prompt == TASKS[name].ask(other, Protocol()).prompt
        assert TASKS[name].score("A", one, "vlmevalkit", None) == TASKS[name].score("A", other, "vlmevalkit", None)


@pytest.mark.parametrize("name", ["chartqa", "mmmu", "ocrbench"])
def test_tokens_and_pixels_are_those_of_the_processor(name: str, twins: Path, vlm: smolvlm.VLM) -> None:
    row = rows(name, twins)[1]
    asked = TASKS[name].ask(row, Protocol())
    pictures: list[Any] = asked.request["images"]  # type: ignore[assignment]
    shown = [{"role": "user", "content": [{"type": "image", "image": picture} for picture in pictures]}]
    inputs = vlm.processor.prepare(shown, prompt=asked.prompt, detail="high")
    theirs = vlm.processor(text=[asked.prompt], images=[pictures], return_tensors="np")
    assert inputs.input_ids.tolist() == theirs["input_ids"][0].tolist()
    assert inputs.pixel_values is not None and (inputs.pixel_values == theirs["pixel_values"][0]).all()
    (answer,) = vlm.ask_batch([{**asked.request, "max_new_tokens": 1}])
    assert answer.prompt_tokens == len(inputs.input_ids)


def test_the_published_protocol_is_greedy_with_the_checkpoints_own_pictures(twins: Path) -> None:
    row = rows("textvqa", twins)[0]
    request = TASKS["textvqa"].ask(row, Protocol()).request
    assert {key: request[key] for key in ("detail", "max_new_tokens")} == {"detail": "high", "max_new_tokens": 2048}  # type: ignore[literal-required]
    assert request.keys() == {"detail", "max_new_tokens", "prompt", "images"}
    assert TASKS["textvqa"].ask(row, Protocol(max_new_tokens=7)).request["max_new_tokens"] == 7


def test_the_models_own_template_gets_the_same_message(twins: Path, vlm: smolvlm.VLM) -> None:
    row = next(row for row in rows("mmmu", twins) if len(row.images) == 2)
    asked = TASKS["mmmu"].ask(row, Protocol(wrapper="chat", max_new_tokens=1))
    assert asked.prompt.startswith("Question: <image> <image> ") and asked.prompt.endswith("options above.")
    assert vlm.ask_batch([asked.request])[0].prompt_tokens > 0


def test_the_bundled_model_reads_drawn_words(twins: Path, vlm: smolvlm.VLM) -> None:
    """Its skill is plain questions, so the harness' instructions around them are left out."""
    task, found = TASKS["ocrbench"], rows("ocrbench", twins)
    asked = [task.ask(row, Protocol(wrapper="chat", max_new_tokens=24)) for row in found]
    answers = vlm.ask_batch([one.request for one in asked])
    values = [
        task.score(answer.text, row, "vlmevalkit", None).value for answer, row in zip(answers, found, strict=True)
    ]
    assert sum(values) / len(values) > 0.6


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "P"])
def test_transparency_is_dropped_as_the_harness_drops_it(mode: str, twins: Path, tmp_path: Path) -> None:
    drawn = Image.new("RGBA" if mode == "RGBA" else "RGB", (9, 9), (10, 20, 30, 0) if mode == "RGBA" else (10, 20, 30))
    clear = {"RGBA": {}, "RGB": {"transparency": (10, 20, 30)}, "P": {"transparency": 0}}[mode]
    (drawn.quantize(2) if mode == "P" else drawn).save(tmp_path / "clear.png", **clear)  # type: ignore[arg-type]
    row = replace(rows("mmstar", twins)[0], images=(tmp_path / "clear.png",))
    task = TASKS["mmstar"]
    (shown,) = task.ask(row, Protocol()).request["images"]  # type: ignore[misc]
    assert shown.mode == "RGB" and open_image(shown).getpixel((0, 0)) == (10, 20, 30)
    (talk,) = task.ask(row, Protocol(wrapper="chat")).request["messages"]  # type: ignore[misc]
    assert talk["content"][0]["image"].getpixel((0, 0)) == (255, 255, 255)  # type: ignore[index]


def test_a_picture_that_cannot_be_decoded_shows_when_it_is_asked_about(twins: Path) -> None:
    row = replace(rows("mmstar", twins)[0], images=(b"no picture at all" * 9,))
    for wrapper in ("smolvlm2", "chat"):
        with pytest.raises(ImageError):
            TASKS["mmstar"].ask(row, Protocol(wrapper=wrapper))  # type: ignore[arg-type]


def test_pictures_of_mmmu_stand_where_its_text_says() -> None:
    def message(text: str) -> list[Mapping[str, object]]:
        return [{"type": "image", "value": "one"}, {"type": "image", "value": "two"}, {"type": "text", "value": text}]

    parts = interleaved(message("a <image 2> b <image 2>"), "7")
    assert [part["value"] for part in parts] == ["a ", "two", " b ", "two", ""]
    assert interleaved(message("none"), "7") == message("none")
    for text in ("<image 3>", "<image 0>", "<image x>", "<image 12>"):
        with pytest.raises(DataError, match="Row 7"):
            interleaved(message(text), "7")


def test_open_questions_of_mmmu_have_one_right_option_in_the_harness(twins: Path) -> None:
    task = TASKS["mmmu"]
    row = next(row for row in rows("mmmu", twins) if row.fields["question_type"] == "open")
    row = replace(row, answers=("0.5", "1/2"), fields={**row.fields, "answer": "['0.5', '1/2']"})
    assert [task.score(said, row, "vlmevalkit", None).value for said in ("A", "1/2", "['0.5', '1/2']")] == [1, 0, 1]
    assert [task.score(said, row, "official", None).value for said in ("A", "It is 1/2", "0.499")] == [0, 1, 1]


def test_a_guess_of_mmmus_parser_is_the_same_in_every_run(twins: Path) -> None:
    task, found = TASKS["mmmu"], [row for row in rows("mmmu", twins) if row.fields["question_type"] != "open"]
    guesses = [[task.score("", row, "official", None).parsed for row in found] for _ in range(2)]
    assert guesses[0] == guesses[1] and len(set(guesses[0])) > 1


def test_only_the_validation_rows_of_mmmu_count(twins: Path, tmp_path: Path) -> None:
    text = (twins / "MMMU_DEV_VAL.tsv").read_text().replace("\tvalidation\t", "\tdev\t", 2)
    (tmp_path / "MMMU_DEV_VAL.tsv").write_text(text)
    assert len(rows("mmmu", tmp_path)) == 28
    assert sum(len(subjects.split()) for subjects in DISCIPLINES.values()) == 30


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (
            "Which?\nOptions: A: on the book., B: beneath, by it, C: 5 : 3, D: no",
            ["on the book.", "beneath, by it", "5 : 3", "no"],
        ),
        ("Which?\nChoices:\n(A) red\n(B) blue", ["red", "blue"]),
        ("Which?", []),
    ],
)
def test_options_of_mmstar_on_the_hub_are_taken_out_of_the_question(
    question: str, options: list[str], tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {"index": 0, "question": question, "image": {"bytes": png(), "path": None}, "answer": "B"}
    row |= {"category": "math", "l2_category": "geometry", "meta_info": {"source": "drawn"}}
    (tmp_path / "mmstar").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "mmstar" / "val-00000-of-00001.parquet")
    (found,) = rows("mmstar", tmp_path)
    assert found.question == "Which?" and mmstar.options_of(found) == options
    assert found.groups == {"capability": "math", "axis": "geometry"}
    assert TASKS["mmstar"].score("B", found, "vlmevalkit", None).value == 1


@pytest.mark.parametrize(
    ("name", "columns", "answers", "groups"),
    [
        (
            "mathvista",
            {
                "pid": "7", "query": "Hint: x\nQuestion: y", "question": "y", "answer": "1.2",
                "question_type": "free_form", "answer_type": "float", "choices": None, "precision": 1.0, "unit": None,
                "metadata": {"task": "math word problem", "skills": ["a", "b"], "split": "testmini"},
            },
            ("1.2",),
            {"task": "math word problem", "skill": ("a", "b")},
        ),
        (
            "ai2d",
            {"question": "q", "options": ["1", "2", "3", "4"], "answer": "2"},
            ("C",),
            {},
        ),
        (
            "scienceqa",
            {
                "question": "q", "choices": ["x", "y"], "answer": 1, "hint": "",
                "subject": "s", "topic": "t", "category": "c",
            },
            ("B",),
            {"subject": "s", "topic": "t", "category": "c"},
        ),
        ("chartqa", {"query": "q", "label": ["7", "8"], "human_or_machine": 0}, ("7", "8"), {"split": "human"}),
        ("chartqa", {"question": "q", "answer": "7", "type": "augmented_test"}, ("7",), {"split": "augmented"}),
        (
            "docvqa",
            {"questionId": "9", "question": "q", "answers": ["a", "b"], "question_types": ["form", "layout"]},
            ("a", "b"),
            {"question type": ("form", "layout")},
        ),
        ("textvqa", {"question_id": 5, "question": "q", "answers": ["a"] * 10}, ("a",) * 10, {}),
        (
            "ocrbench",
            {"dataset": "IIIT5K", "question": "q", "question_type": "Digit String Recognition", "answer": ["7"]},
            ("7",),
            {"area": "Text Recognition", "type": "Digit String Recognition"},
        ),
        (
            "vqav2",
            {
                "question_id": 3, "question": "q", "answer_type": "other", "question_type": "what",
                "answers": [{"answer": "a", "answer_confidence": "yes", "answer_id": 1}] * 10,
            },
            ("a",) * 10,
            {"answer type": "other", "question type": "what"},
        ),
    ],
)  # fmt: skip
def test_columns_of_the_hub_are_understood(
    name: str, columns: dict[str, Any], answers: tuple[str, ...], groups: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.png").write_bytes(png())
    (tmp_path / name / "rows.jsonl").write_text(json.dumps({**columns, "image": "a.png"}))
    (row,) = rows(name, tmp_path)
    assert (row.answers, row.groups) == (answers, groups)
    asked = TASKS[name].ask(row, Protocol())
    assert "Hint" not in asked.prompt and f"{row.question.removeprefix('Hint: ')}" in asked.prompt
    assert TASKS[name].score(answers[0], row, "vlmevalkit", None).value == 1


def test_questions_of_scienceqa_without_a_picture_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "scienceqa").mkdir()
    (tmp_path / "scienceqa" / "a.png").write_bytes(png())
    both = [{"question": "q", "choices": ["x", "y"], "answer": 0, "image": image} for image in (None, "a.png")]
    (tmp_path / "scienceqa" / "rows.json").write_text(json.dumps(both))
    (row,) = rows("scienceqa", tmp_path)
    assert row.key == "1" and row.answers == ("A",)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"question": "", "answer": "a", "image": "a.png"}, "rows.json, row 1: the row has no question"),
        ({"question": "q", "image": "a.png"}, "rows.json, row 1: the row has no answer"),
        ({"question": "q", "answer": "a"}, "rows.json, row 1: the row has no picture"),
        (None, "no rows"),
    ],
)
def test_a_row_without_question_answer_or_picture_is_refused(
    columns: dict[str, str] | None, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "textvqa").mkdir()
    (tmp_path / "textvqa" / "a.png").write_bytes(png())
    (tmp_path / "textvqa" / "rows.json").write_text(json.dumps([columns] if columns else []))
    with pytest.raises(DataError, match=reason):
        rows("textvqa", tmp_path)


def test_the_test_set_of_docvqa_is_asked_and_left_undecided(twins: Path) -> None:
    row = rows("docvqa-test", twins)[0]
    assert row.answers == () and "terse answer" in TASKS["docvqa-test"].ask(row, Protocol()).prompt
    score = TASKS["docvqa-test"].score(" 5.70 ", row, "vlmevalkit", None)
    assert (score.value, score.parsed, score.status) == (0, "5.70", "undecided")


def test_twins_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (draw_twin("mmmu", tmp_path / part, 12).read_bytes() for part in "ab")
    assert first == second


def test_what_has_no_twin_is_refused(tmp_path: Path) -> None:
    for arguments, reason in (
        (("mmlu", tmp_path, 3), "no twin of 'mmlu'.*mmmu"),
        (("ai2d", tmp_path, 3, "parquet"), "isn't drawn as parquet.*chartqa"),
        (("ai2d", tmp_path, 0), "at least 1"),
    ):
        with pytest.raises(InputError, match=reason):
            draw_twin(*arguments)  # type: ignore[arg-type]


def test_an_unknown_task_lists_the_nearest_names() -> None:
    assert find_task("chartqa") is TASKS["chartqa"] and list(TASKS) == sorted(TASKS)
    with pytest.raises(InputError, match="'ChartQAA'. Did you mean chartqa"):
        find_task("ChartQAA")
    with pytest.raises(InputError, match="'zzz'. The tasks are: ai2d, "):
        find_task("zzz")
