"""The reference's names: generate, Auto classes, load_image. Greedy tokens equal to transformers': tests/reference."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm import hf
from smolvlm.errors import ConfigError, FetchError, InputError, ModelNotFoundError
from smolvlm.generation.generate import generate
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint, tiny_config, tiny_token_ids

IDS = tiny_token_ids()
END, PAD = IDS["<end_of_utterance>"], IDS["<|im_end|>"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> hf.SmolVLMForConditionalGeneration:
    return smolvlm.AutoModelForImageTextToText.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def inputs(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Two conversations of different lengths, padded on the left; the first with a picture."""
    processor = smolvlm.AutoProcessor.from_pretrained(checkpoint)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    talks = [
        [{"role": "user", "content": [{"type": "image", "image": pixels}, {"type": "text", "text": "What is this?"}]}],
        [{"role": "user", "content": "who are you?"}],
    ]
    return processor.apply_chat_template(talks, add_generation_prompt=True)


def rows(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One conversation alone, without its padding."""
    real = inputs["attention_mask"][row] == 1
    return {
        "input_ids": inputs["input_ids"][row : row + 1, real],
        "attention_mask": inputs["attention_mask"][row : row + 1, real],
        **({"pixel_values": inputs["pixel_values"][:1]} if row == 0 else {}),
    }


def test_generate_returns_prompt_and_new_tokens_of_the_plain_loop(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    out = model.generate(**inputs, do_sample=False, max_new_tokens=9)
    assert out.dtype == torch.int64 and out.shape == (2, inputs["input_ids"].shape[1] + 9)
    assert torch.equal(out[:, :-9], inputs["input_ids"])
    expected = generate(model, inputs, SamplingParams(max_new_tokens=9), eos_token_ids=[END])
    for row, answer in zip(out[:, -9:].tolist(), expected, strict=True):
        assert tuple(row[: len(answer.token_ids)]) == answer.token_ids


def test_row_of_a_batch_is_what_it_is_alone(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    whole = model.generate(**inputs, max_new_tokens=12)
    for row in (0, 1):
        alone = model.generate(**rows(inputs, row), max_new_tokens=12)
        assert whole[row, -12:].tolist() == alone[0, -12:].tolist()


def test_prompts_padded_on_the_right_are_moved_to_the_left(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    mask = inputs["attention_mask"]
    lengths = mask.sum(dim=1)
    right = {**inputs, "input_ids": inputs["input_ids"].clone(), "attention_mask": mask.flip(1)}
    for row, length in enumerate(lengths.tolist()):
        right["input_ids"][row] = torch.cat(
            [inputs["input_ids"][row, -length:], torch.full((mask.shape[1] - length,), PAD)]
        )
    assert not torch.equal(right["input_ids"], inputs["input_ids"])
    assert torch.equal(model.generate(**right, max_new_tokens=5), model.generate(**inputs, max_new_tokens=5))


def test_row_that_ends_early_is_filled_with_the_pad_token(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    free = model.generate(**inputs, max_new_tokens=8)[:, -8:]
    end = int(free[1, 2])
    assert end not in free[1, :2] and end not in free[0]
    for ends in (end, [end, 1]):
        out = model.generate(**inputs, max_new_tokens=8, eos_token_id=ends, pad_token_id=7)[:, -8:]
        assert out[0].tolist() == free[0].tolist()
        assert out[1].tolist() == [*free[1, :3].tolist(), *[7] * 5]


def test_cache_can_be_turned_off_and_max_length_counts_the_prompt(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    cached = model.generate(**inputs, max_new_tokens=6)
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, use_cache=False), cached)
    assert torch.equal(model.generate(**inputs, max_length=cached.shape[1]), cached)
    with pytest.raises(InputError, match="max_new_tokens instead"):
        model.generate(**inputs, max_length=5)


def test_sampling_follows_the_seed_of_torch_or_its_own(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    def sample(**options: Any) -> list[list[int]]:
        return model.generate(**inputs, do_sample=True, temperature=2.0, max_new_tokens=8, **options)[:, -8:].tolist()

    torch.manual_seed(3)
    first = sample()
    torch.manual_seed(3)
    assert sample() == first
    assert sample() != first
    assert sample(seed=5) == sample(seed=5) != sample(seed=6)
    greedy = model.generate(**inputs, max_new_tokens=8)[:, -8:].tolist()
    assert sample(top_k=1) == greedy == sample(top_p=1e-9) == sample(min_p=0.999999)


def test_several_sequences_a_prompt_are_neighbours(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    out = model.generate(
        **inputs, do_sample=True, temperature=3.0, num_return_sequences=3, seed=1, max_new_tokens=6
    )  # fmt: skip
    width = inputs["input_ids"].shape[1]
    assert torch.equal(out[:, :width], inputs["input_ids"].repeat_interleave(3, dim=0))
    assert len({tuple(row) for row in out[:3, width:].tolist()}) > 1
    with pytest.raises(InputError, match="do_sample=True"):
        model.generate(**inputs, num_return_sequences=3)


def test_stop_strings_end_the_answer(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor], checkpoint: Path
) -> None:
    tokenizer = smolvlm.AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
    one = rows(inputs, 1)
    free = model.generate(**one, max_new_tokens=12)[0, -12:]
    text = tokenizer.decode(free[4])
    assert text.strip()
    out = model.generate(**one, max_new_tokens=12, stop_strings=[text], tokenizer=tokenizer)
    new = out[0, one["input_ids"].shape[1] :]
    assert new.tolist() == free[: len(new)].tolist() and len(new) <= 5
    assert text in tokenizer.decode(new) and text not in tokenizer.decode(new[:-1])
    with pytest.raises(InputError, match="tokenizer=processor.tokenizer"):
        model.generate(**one, stop_strings="x")


def test_streamer_is_told_the_prompt_then_each_token_then_the_end(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def put(self, value: torch.Tensor) -> None:
            self.heard.append(value.tolist())

        def end(self) -> None:
            self.heard.append("end")

    recorder, one = Recorder(), rows(inputs, 1)
    out = model.generate(**one, max_new_tokens=4, streamer=recorder)
    assert recorder.heard == [one["input_ids"].tolist(), *[[token] for token in out[0, -4:].tolist()], "end"]
    with pytest.raises(InputError, match="follows one answer"):
        model.generate(**inputs, max_new_tokens=4, streamer=Recorder())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "no argument 'colour'"),
        ({"num_beams": 4}, "can't do num_beams=4"),
        ({"return_dict_in_generate": True}, "can't do return_dict_in_generate=True"),
        ({"do_sample": True, "temperature": 0.0}, "above 0 to sample"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"attention_mask": torch.ones(1, 3)}, "make them equal"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        model.generate(**{**inputs, **options})


def test_idle_options_of_published_snippets_are_accepted(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    ids = rows(inputs, 1)["input_ids"]
    assert torch.equal(model.generate(inputs=ids, max_new_tokens=3), model.generate(ids, max_new_tokens=3))
    idle = {"num_beams": 1, "return_dict_in_generate": False, "temperature": None, "bos_token_id": 1}
    assert torch.equal(model.generate(**inputs, max_new_tokens=3, **idle), model.generate(**inputs, max_new_tokens=3))
    with pytest.raises(InputError, match="needs input_ids"):
        model.generate(pixel_values=inputs["pixel_values"])


def test_defaults_come_from_generation_config(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tuned = smolvlm.AutoModelForVision2Seq.from_pretrained(tiny_checkpoint(tmp_path / "a"))
    assert tuned.generation_config.eos_token_id == END and tuned.generation_config.top_k is None
    tuned.generation_config.max_new_tokens = 3
    width = inputs["input_ids"].shape[1]
    assert tuned.generate(**inputs).shape[1] == width + 3
    assert tuned.generate(**inputs, max_length=width + 5).shape[1] == width + 5
    assert tuned.generate(**inputs, generation_config={"max_new_tokens": 2}).shape[1] == width + 2
    tuned.save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text())["max_new_tokens"] == 3
    again = hf.SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "b")
    assert again.generation_config.to_dict() == tuned.generation_config.to_dict()
    assert torch.equal(again.generate(**inputs), tuned.generate(**inputs))
    assert "max_new_tokens" not in model.generation_config


def test_without_generation_config_the_tokenizer_says_where_answers_end(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2  # what Llama's default makes of a config that is silent
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert hf.SmolVLMForConditionalGeneration.from_pretrained(tmp_path).generation_config.eos_token_id == END


def test_going_beyond_the_context_is_logged(
    model: hf.SmolVLMForConditionalGeneration, inputs: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        model.generate(**inputs, max_new_tokens=2048, streamer=None, eos_token_id=0, **_stop_at_once())
    assert "beyond the model's context of 2048" in caplog.text


def _stop_at_once() -> dict[str, Any]:
    class Bomb:
        def token_bytes(self, index: int) -> bytes:
            raise ZeroDivisionError

    return {"stop_strings": "x", "tokenizer": Bomb()}


def test_auto_classes_load_the_parts_of_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    assert isinstance(smolvlm.AutoModelForVision2Seq.from_pretrained(checkpoint), SmolVLMForConditionalGeneration)
    half = smolvlm.AutoModelForImageTextToText.from_pretrained(
        checkpoint, torch_dtype=torch.bfloat16, _attn_implementation="eager", device_map="cpu", trust_remote_code=False
    )
    assert half.dtype == torch.bfloat16 and not half.training
    assert smolvlm.AutoTokenizer.from_pretrained(checkpoint).image_token_id == IDS["<image>"]
    assert smolvlm.AutoImageProcessor.from_pretrained(checkpoint).max_image_size == {"longest_edge": 32}
    assert hf.AutoConfig.from_pretrained(checkpoint).image_seq_len == 16
    random = smolvlm.AutoModelForImageTextToText.from_config(smolvlm.SmolVLMConfig(**tiny_config()))
    assert random.generate(torch.tensor([[1, 5, 6]]), max_new_tokens=2, eos_token_id=-1).shape == (1, 5)
    with pytest.raises(ModelNotFoundError):
        smolvlm.AutoProcessor.from_pretrained(tmp_path / "nothing")


def test_checkpoint_of_another_family_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(ConfigError, match="llava"):
        smolvlm.AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_load_image_opens_files_and_guards_addresses(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert smolvlm.load_image(str(tmp_path / "a.png")).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(FetchError):
        smolvlm.load_image("http://127.0.0.1/a.png")
