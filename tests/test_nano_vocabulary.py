"""The vocabulary of smolvlm-nano: what is one token, what round-trips, and that the recipe makes the shipped bytes."""

from __future__ import annotations

import importlib.util
import json
import string
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Tokenizer

from smolvlm import scenes

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "src" / "smolvlm" / "assets" / "nano"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(NANO / "tokenizer.json"))


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nano_vocabulary", ROOT / "recipes" / "nano_vocabulary.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_makes_the_shipped_files_byte_for_byte(recipe: ModuleType, tmp_path: Path) -> None:
    recipe.write(recipe.train(), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (NANO / name).read_bytes(), name


def test_the_family_s_special_tokens_stand_at_fixed_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 1024
    ids = {
        "<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<global-img>": 984, "<row_1_col_1>": 985,
        "<row_6_col_6>": 1020, "<fake_token_around_image>": 1021, "<image>": 1022, "<end_of_utterance>": 1023,
    }  # fmt: skip
    for token, number in ids.items():
        assert tokenizer.token_to_id(token) == number
        assert tokenizer.encode(f"x{token}x").ids[1] == number
    config = json.loads((NANO / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<end_of_utterance>")
    assert (config["pad_token"], config["unk_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_capitals_and_digits_are_single_tokens_whatever_stands_beside_them(tokenizer: Tokenizer) -> None:
    for character in string.ascii_uppercase + string.digits:
        alone = tokenizer.token_to_id(character)
        for text in (f" {character}", f"A{character}", f"a{character}", f"{character}a", f"7{character}."):
            assert tokenizer.encode(text).ids.count(alone) >= 1, text
    assert tokenizer.encode(" LAMP").tokens == ["Ġ", *"LAMP"]
    assert tokenizer.encode("the LAMP 42").tokens[-7:] == [*"LAMP", "Ġ", "4", "2"]


def test_line_breaks_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("\n").ids) == len(tokenizer.encode("\n\n").ids) == 1
    assert tokenizer.encode("<image>\n\n<global-img>").tokens == ["<image>", "ĊĊ", "<global-img>"]


def test_every_name_in_an_answer_is_one_token_even_the_reserved_ones(tokenizer: Tokenizer) -> None:
    for word in (*scenes.ALL_COLOURS, *scenes.ALL_SHAPES, "yes", "no", "small", "large", "nothing", "top", "center"):
        assert len(tokenizer.encode(f" {word}").ids) == 1, word


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_questions_and_answers_round_trip_without_unknown_tokens(tokenizer: Tokenizer, skill: str) -> None:
    for index in range(60):
        for turn in scenes.draw(skill, 71, index).turns:
            for text in (turn.question, f" {turn.answer}"):
                ids = tokenizer.encode(text).ids
                assert 0 not in ids and tokenizer.decode(ids) == text


def test_any_text_is_encodable(tokenizer: Tokenizer) -> None:
    for text in ("Größe: 3 µm — naïve façade", "日本語のテキスト", "🙂\t\r\n", "x = {'a': [1, 2]}"):
        ids = tokenizer.encode(text).ids
        assert 0 not in ids and tokenizer.decode(ids) == text
