"""What one side saves, the other loads: the same keys and bit-identical weights, the same logits.

Logits of one library are compared with its own before the round trip, exactly; across libraries within 1e-4, which
is the tolerance of tests/reference/test_model.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.model import SmolVLMForConditionalGeneration, SmolVLMModel

transformers = pytest.importorskip("transformers")

IMAGE_TOKEN = 90
FAMILIES = ["SmolVLM", "Idefics3"]


def reference_model(family: str, tied: bool = False) -> Any:
    config = getattr(transformers, f"{family}Config")(
        image_token_id=IMAGE_TOKEN,
        scale_factor=2,
        tie_word_embeddings=tied,
        vision_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
            "image_size": 32, "patch_size": 4,
        },
        text_config={
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_theta": 130000.0, "rope_type": "default"}, "max_position_embeddings": 512,
            "pad_token_id": 2,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.15)
    return model


def logits(model: Any) -> torch.Tensor:
    """One picture of one tile, 16 image tokens between text tokens."""
    torch.manual_seed(1)
    ids = torch.tensor([[5, 6, *[IMAGE_TOKEN] * 16, 7, 8, 9]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=torch.randn(1, 1, 3, 32, 32)).logits


@pytest.mark.parametrize("shards", [None, "20KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_we_load(tmp_path: Path, family: str, shards: str | None) -> None:
    theirs = reference_model(family)
    theirs.save_pretrained(tmp_path, **({"max_shard_size": shards} if shards else {}))
    assert (tmp_path / "model.safetensors").exists() == (shards is None)
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert ours.config.text_config.rope_theta == 130000.0
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_save_transformers_loads_with_identical_logits(tmp_path: Path, family: str, shards: str) -> None:
    theirs = reference_model(family)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours", max_shard_size=shards)
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert type(again).__name__ == f"{family}ForConditionalGeneration"
    assert torch.equal(logits(again), logits(theirs))
    torch.testing.assert_close(logits(again), logits(ours), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_configuration_transformers_reads_from_our_save_is_the_one_it_wrote(tmp_path: Path, family: str) -> None:
    theirs = reference_model(family)
    theirs.save_pretrained(tmp_path / "theirs")
    SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    before = transformers.AutoConfig.from_pretrained(tmp_path / "theirs")
    after = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    for section in ("text_config", "vision_config"):
        old, new = getattr(before, section).to_dict(), getattr(after, section).to_dict()
        assert {key: new.get(key) for key in old} == old
    assert after.dtype == before.dtype
    for key in ("image_token_id", "scale_factor", "tie_word_embeddings", "use_cache", "architectures", "model_type"):
        assert getattr(after, key) == getattr(before, key)


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_models_go_both_ways(tmp_path: Path, family: str) -> None:
    theirs = reference_model(family, tied=True)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=0)
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert torch.equal(logits(again), logits(theirs))


def test_half_precision_is_kept_and_read_as_auto_by_both(tmp_path: Path) -> None:
    theirs = reference_model("SmolVLM").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "theirs", dtype="auto")
    assert ours.dtype == torch.bfloat16
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype="auto")
    for name, tensor in theirs.state_dict().items():
        assert again.state_dict()[name].dtype == torch.bfloat16
        assert torch.equal(again.state_dict()[name], tensor), name


def test_base_model_of_either_side_is_loaded_by_the_other(tmp_path: Path) -> None:
    theirs = reference_model("SmolVLM")
    theirs.model.save_pretrained(tmp_path / "theirs")
    ours = SmolVLMModel.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again, report = transformers.SmolVLMModel.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_generation_settings_are_kept(tmp_path: Path) -> None:
    theirs = reference_model("SmolVLM")
    theirs.generation_config.eos_token_id = [49, 50]
    theirs.save_pretrained(tmp_path / "theirs")
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "ours").eos_token_id == [49, 50]
    saved = [json.loads((tmp_path / side / "generation_config.json").read_text()) for side in ("theirs", "ours")]
    assert saved[0] == saved[1]
