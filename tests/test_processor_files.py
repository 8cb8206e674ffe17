"""Processors from directories of every layout, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolvlm.errors import (
    CheckpointError,
    InputError,
    ModelNotFoundError,
)
from smolvlm.processing.processor import SmolVLMProcessor
from tests.talks import IDS, TILE_TOKENS, image_block, picture, user
from tests.tiny import CHAT_TEMPLATE


def test_saved_processor_loads_equal_in_the_new_layout(
    processor: SmolVLMProcessor, tmp_path: Path, video: Path
) -> None:
    processor.image_processor.do_image_splitting = False
    processor.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja", "processor_config.json", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    again = SmolVLMProcessor.from_pretrained(tmp_path)
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()
    assert again.video_processor.to_dict() == processor.video_processor.to_dict()
    assert (again.image_seq_len, again.chat_template) == (TILE_TOKENS, CHAT_TEMPLATE)
    messages = user(image_block(picture()), {"type": "video", "path": str(video)})
    one, two = processor.prepare(messages), again.prepare(messages)
    np.testing.assert_array_equal(one.input_ids, two.input_ids)
    np.testing.assert_array_equal(one.pixel_values, two.pixel_values)


@pytest.mark.parametrize("place", ["chat_template.json", "processor_config.json", "tokenizer_config.json", "nowhere"])
def test_chat_template_is_found_in_every_old_place(checkpoint: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    if place != "nowhere":
        path = tmp_path / place
        content = json.loads(path.read_text()) if path.exists() else {}
        template: Any = "old {{ messages[0]['role'] }}"
        if place == "tokenizer_config.json":
            template = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
        path.write_text(json.dumps({**content, "chat_template": template}))
    expected = "<|im_start|>User: Hi<end_of_utterance>\n" if place == "nowhere" else "old user"
    assert SmolVLMProcessor.from_pretrained(tmp_path).apply_chat_template(user("Hi")) == expected


def test_image_tokens_a_tile_come_from_the_model_when_no_file_says_them(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    assert SmolVLMProcessor.from_pretrained(tmp_path).image_seq_len == TILE_TOKENS
    (tmp_path / "config.json").unlink()
    assert SmolVLMProcessor.from_pretrained(tmp_path).image_seq_len == 169
    for wrong, words in ((99, "different models"), ("many", "at least 1")):
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": wrong}))
        shutil.copy(checkpoint / "config.json", tmp_path)
        with pytest.raises(CheckpointError, match=words):
            SmolVLMProcessor.from_pretrained(tmp_path)


def test_settings_given_at_loading_override_the_files(checkpoint: Path) -> None:
    processor = SmolVLMProcessor.from_pretrained(
        checkpoint, size={"longest_edge": 64}, padding_side="left", image_seq_len=4, chat_template="x", use_fast=True
    )
    assert processor.image_processor.size == {"longest_edge": 64}
    assert (processor.tokenizer.padding_side, processor.image_seq_len, processor.chat_template) == ("left", 4, "x")
    with pytest.raises(InputError, match="colour"):
        SmolVLMProcessor.from_pretrained(checkpoint, colour="red")


def test_missing_directory_is_a_model_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        SmolVLMProcessor.from_pretrained(tmp_path / "nothing")


def test_processor_without_a_tokenizer_is_refused(processor: SmolVLMProcessor) -> None:
    with pytest.raises(InputError, match="needs a tokenizer"):
        SmolVLMProcessor(processor.image_processor)
    with pytest.raises(InputError, match="image_seq_len=0"):
        SmolVLMProcessor(processor.image_processor, processor.tokenizer, image_seq_len=0)
    own = SmolVLMProcessor(processor.image_processor, processor.tokenizer)
    assert (own.image_seq_len, own.image_token, own.video_token) == (169, "<image>", "<video>")
    assert own.fake_image_token == "<fake_token_around_image>" and own.global_image_token == "<global-img>"
    assert own.end_of_utterance_token == "<end_of_utterance>" and own.image_token_id == IDS["<image>"]
