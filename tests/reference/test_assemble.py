"""SmolLM2's and SigLIP's parts against transformers' own classes, from checkpoints that transformers saved.

Tolerance 1e-4 on fp32 values of scale 1, as in test_model.py: the two sum in different orders.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.config import SmolVLMVisionConfig
from smolvlm.model.towers import _SIGLIP, load_text, load_vision, save_text
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.training.assemble import assemble_checkpoint
from tests.parts import known_tokens, text_checkpoint, vision_checkpoint

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings|.*tied")

LLAMAS: dict[str, dict[str, Any]] = {
    "135M": {"heads": 3, "kv": 1, "tied": True, "theta": 100000.0},
    "1.7B": {"heads": 4, "kv": 4, "tied": True, "theta": 130000.0},
    "with its own head": {"heads": 4, "kv": 2, "tied": False, "theta": 10000.0},
}
WORDS = torch.arange(3, 43).view(2, 20)


def shaken(model: Any) -> Any:
    """Values wider than the initialisation's, so that differences show."""
    torch.manual_seed(0)
    for key, parameter in model.named_parameters():
        centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean=centre, std=0.15)
    return model.eval()


def llama(name: str) -> Any:
    g = LLAMAS[name]
    config = transformers.LlamaConfig(
        hidden_size=16 * g["heads"], intermediate_size=80, num_hidden_layers=3, num_attention_heads=g["heads"],
        num_key_value_heads=g["kv"], vocab_size=100, rms_norm_eps=1e-5, max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": g["theta"]}, tie_word_embeddings=g["tied"],
    )  # fmt: skip
    return shaken(transformers.LlamaForCausalLM(config))


def siglip(**changes: Any) -> Any:
    return transformers.SiglipVisionConfig(
        **{
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
            "image_size": 64, "patch_size": 8, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", LLAMAS)
def test_logits_of_the_text_model_alone_are_llama_s(name: str, tmp_path: Path) -> None:
    theirs = llama(name)
    theirs.save_pretrained(tmp_path)
    mask = torch.ones_like(WORDS)
    mask[0, :5] = 0
    with torch.no_grad():
        found, padded = load_text(tmp_path)(WORDS), load_text(tmp_path)(WORDS, attention_mask=mask)
        torch.testing.assert_close(found, theirs(WORDS).logits, atol=1e-4, rtol=1e-4)
        places = torch.arange(WORDS.shape[1])[None]  # as ours counts: padding has positions, too
        expected = theirs(WORDS, attention_mask=mask, position_ids=places.expand(2, -1)).logits
        torch.testing.assert_close(padded[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LLAMAS)
def test_transformers_opens_a_text_model_that_was_taken_out(name: str, tmp_path: Path) -> None:
    llama(name).save_pretrained(tmp_path / "theirs")
    ours = load_text(tmp_path / "theirs")
    save_text(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert isinstance(again, transformers.LlamaForCausalLM)
    with torch.no_grad():
        torch.testing.assert_close(again(WORDS).logits, ours(WORDS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("image_size", "patch_size"), [(64, 8), (54, 14)])
def test_features_of_the_vision_tower_alone_are_siglip_s(image_size: int, patch_size: int, tmp_path: Path) -> None:
    theirs = shaken(transformers.SiglipVisionModel(siglip(image_size=image_size, patch_size=patch_size)))
    theirs.save_pretrained(tmp_path)
    tower = load_vision(tmp_path)
    pixels = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state
        torch.testing.assert_close(tower(pixels).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


def test_the_vision_tower_of_a_whole_siglip_is_taken_too(tmp_path: Path) -> None:
    words = transformers.SiglipTextConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=3, vocab_size=60
    )
    both = transformers.SiglipConfig(text_config=words.to_dict(), vision_config=siglip().to_dict())
    theirs = shaken(transformers.SiglipModel(both))
    theirs.save_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.vision_model(pixels).last_hidden_state
        torch.testing.assert_close(load_vision(tmp_path)(pixels).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


def test_what_a_siglip_config_leaves_out_means_what_it_means_there() -> None:
    theirs = transformers.SiglipVisionConfig()
    assert {name: getattr(theirs, name) for name in _SIGLIP} == _SIGLIP
    ours = SmolVLMVisionConfig(**_SIGLIP)
    for field in dataclasses.fields(ours):
        assert getattr(ours, field.name) == getattr(theirs, field.name, getattr(ours, field.name)), field.name


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_opens_what_was_assembled_with_the_same_logits_and_ids(tied: bool, tmp_path: Path) -> None:
    text = text_checkpoint(tmp_path / "text", tied=tied)
    ours = assemble_checkpoint(text, vision_checkpoint(tmp_path / "vision"), tmp_path / "new", scale_factor=2)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "new").eval()
    assert (theirs.lm_head.weight is theirs.model.text_model.embed_tokens.weight) == tied
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    prompt = "<|im_start|>User:<image>What is this?<end_of_utterance>\nAssistant:"
    processor = SmolVLMProcessor.from_pretrained(tmp_path / "new")
    batch = processor(text=prompt, images=[picture], return_tensors="pt")
    assert int((batch["input_ids"] == known_tokens() + 38).sum()) >= 5 * 16
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    text_of_it = processor.tokenizer.decode(batch["input_ids"][0])
    assert tokenizer(text_of_it)["input_ids"] == batch["input_ids"][0].tolist()
    assert tokenizer.eos_token == "<end_of_utterance>" and tokenizer.pad_token == "<|im_end|>"
    with torch.no_grad():
        found, expected = (model(**dict(batch)).logits for model in (ours, theirs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
