"""The recipe that `smolvlm finetune` chooses, and the drawn scenes that it mixes in so that old skills stay."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from smolvlm.cli import main
from smolvlm.errors import ConfigError, DataError
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.scenes import SKILLS, draw
from smolvlm.training.choose import Method, as_toml, choose_method, finetuning
from smolvlm.training.data import DataSet, Encoder, Source
from smolvlm.training.data.drawn import SEED
from smolvlm.training.data.encode import Encoded
from smolvlm.training.recipe import build_recipe

NANO, RELEASED = 7_600_000, 256_000_000


@pytest.mark.parametrize("videos", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize(("start", "parameters"), [("nano", NANO), ("runs/other", NANO), ("some/model", RELEASED)])
def test_every_choice_is_a_recipe(start: str, parameters: int, method: Method, videos: bool, tmp_path: Path) -> None:
    values = finetuning(["a b.jsonl"], 40, start, parameters, method, videos=videos, validation=["v.jsonl"])
    recipe = build_recipe(tomllib.loads(as_toml(values)), tmp_path / "recipe.toml")
    assert recipe == build_recipe(values, tmp_path / "recipe.toml")
    assert recipe.start == start
    assert [Path(one.path).name for one in recipe.data] == ["a b.jsonl"] + ["scenes:"] * (start == "nano")
    assert (recipe.adapter is None) == (method == "full")
    assert recipe.bits == (4 if method == "qlora" else 16)
    if videos and recipe.adapter is None:
        assert recipe.rates["vision"] == 0, "its tower stays as it is"
    elif videos and recipe.adapter is not None:
        assert recipe.adapter.target_modules == ("text", "connector")


@pytest.mark.parametrize(("rows", "steps"), [(1, 100), (400, 125), (10_000, 255)])
def test_a_tiny_model_learns_for_as_long_as_its_data_say_within_limits(rows: int, steps: int) -> None:
    values = finetuning(["a"], rows, "nano", NANO, "full")
    assert values["steps"] == steps
    assert finetuning(["a"], rows, "nano", NANO, "full", steps=7)["steps"] == 7
    scenes = values["data"][-1]
    assert round(scenes["weight"] * len(DataSet(Source(scenes["path"])))) == round(rows / 3)


def test_there_must_be_a_row() -> None:
    with pytest.raises(ConfigError, match="not one sample"):
        finetuning(["a"], 0, "nano", NANO, "full")


@pytest.mark.parametrize(
    ("free", "method"), [(None, "full"), (9e9, "full"), (8e9, "lora"), (2e9, "lora"), (1.2e9, "qlora")]
)
def test_the_method_is_what_fits_in_half_of_the_free_memory(free: float | None, method: str) -> None:
    assert choose_method(RELEASED, None if free is None else int(free)) == method


def test_a_drawn_row_has_all_questions_of_its_scene_and_every_answer_is_learned() -> None:
    processor = SmolVLMProcessor.from_pretrained("nano")
    rows, encode = DataSet(Source("scenes:")), Encoder(processor)
    for index in range(2 * len(SKILLS)):
        scene = draw(list(SKILLS)[index % len(SKILLS)], SEED, index)
        found = encode(rows.sample(index))
        assert isinstance(found, Encoded)
        assert found.answers == len(scene.turns) > 1
        said = processor.tokenizer.decode(found.ids[found.learned])
        assert said == "".join(f" {turn.answer}<end_of_utterance>" for turn in scene.turns)
        assert bool(len(found.tiles)) == bool(scene.pictures or scene.clip)


def test_a_part_of_the_scenes_is_named_and_a_misspelt_one_refused() -> None:
    rows = DataSet(Source("scenes:read,chart"))
    for index, skill in ((0, "read"), (1, "chart"), (2, "read")):
        assert draw(skill, SEED, index).turns[0].question in str(rows.sample(index))
    with pytest.raises(DataError, match="no skill 'reed'"):
        DataSet(Source("scenes:reed"))


def test_scenes_can_be_what_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "--data", "scenes:read", "--output", str(tmp_path / "run"), "--dry-run", "--steps", "3"]
    assert main(command) == 0
    assert "scenes:read" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
