"""Adapters of PEFT and of ours: what one side saves the other loads, on our model with the same logits.

PEFT wraps any module, so it is put on our own model: both then compute the same sums but for the order of DoRA's norms.
On transformers' model the logits are within 1e-4, the tolerance of tests/reference/test_model.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm import LoraConfig, load_adapter
from smolvlm.checkpoint.safetensors import read_header
from smolvlm.model import SmolVLMForConditionalGeneration
from tests.adapted import adapted_model, logits, new_model
from tests.tiny import tiny_checkpoint

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.*save_embedding_layers|.*tie_word_embeddings|.*tied")

SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj", "v_proj", "fc1"], "r": 4, "lora_alpha": 16},
    "a pattern": {"target_modules": r".*text_model.*_proj", "r": 4, "init_lora_weights": "gaussian"},
    "all-linear": {"target_modules": "all-linear", "r": 2},
    "rsLoRA": {"target_modules": ["down_proj", "proj"], "r": 4, "lora_alpha": 16, "use_rslora": True},
    "DoRA": {"target_modules": ["q_proj", "o_proj", "fc2", "proj"], "r": 4, "use_dora": True},
    "whole parts": {"target_modules": ["o_proj"], "r": 4, "modules_to_save": ["connector", "embed_tokens", "norm"]},
    "the head": {"target_modules": ["lm_head", "k_proj"], "r": 4, "use_dora": True},
    "the head whole": {"target_modules": ["k_proj"], "r": 4, "modules_to_save": ["lm_head"]},
    "own ranks": {
        "target_modules": ["q_proj", "up_proj"], "r": 4, "rank_pattern": {"up_proj": 2, r".*vision.*q_proj": 6},
        "alpha_pattern": {"text_model.*q_proj": 32},
    },
    "some layers": {"target_modules": ["q_proj", "up_proj", "fc1"], "r": 4, "layers_to_transform": [1]},
    "layers by pattern": {
        "target_modules": ["q_proj", "up_proj"], "r": 4, "layers_to_transform": 0, "layers_pattern": "layers",
        "exclude_modules": ["text_model.layers.0.self_attn.q_proj"],
    },
}  # fmt: skip
# On our model LoRA is the same arithmetic, bit by bit; DoRA's lengths are summed in another order.
SAME_DORA = 2e-5


def assert_same(found: torch.Tensor, expected: torch.Tensor, settings: dict[str, Any]) -> None:
    torch.testing.assert_close(found, expected, atol=SAME_DORA if settings.get("use_dora") else 0, rtol=0)


def theirs_on(model: torch.nn.Module, settings: dict[str, Any]) -> Any:
    """PEFT's adapter on a model, every value moved from where it starts."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return wrapped


@pytest.mark.parametrize("name", SETTINGS)
def test_what_peft_saves_we_load(tmp_path: Path, name: str) -> None:
    theirs = theirs_on(new_model(), SETTINGS[name])
    theirs.save_pretrained(tmp_path)
    expected = logits(theirs)
    ours = load_adapter(new_model(), tmp_path)
    assert_same(logits(ours.model), expected, SETTINGS[name])
    assert ours.num_parameters == theirs.get_nb_trainable_parameters()[0]
    ours.merge()
    torch.testing.assert_close(logits(ours.model), logits(theirs.merge_and_unload()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in SETTINGS if "layers" not in name])
def test_what_we_save_peft_loads(tmp_path: Path, name: str) -> None:
    ours = adapted_model(LoraConfig(**SETTINGS[name]))
    ours.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(new_model(), tmp_path).eval()
    assert_same(logits(theirs), logits(ours.model), SETTINGS[name])


@pytest.mark.parametrize("name", ["LoRA", "DoRA", "whole parts", "the head"])
def test_files_have_peft_s_names_and_shapes(tmp_path: Path, name: str) -> None:
    theirs = theirs_on(new_model(), SETTINGS[name])
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    adapted_model(LoraConfig(**SETTINGS[name])).save(tmp_path / "ours")
    headers = [read_header(tmp_path / side / "adapter_model.safetensors") for side in ("theirs", "ours")]
    found = [{key: (entry.shape, entry.dtype) for key, entry in header.items()} for header in headers]
    assert found[0] == found[1]
    settings = [json.loads((tmp_path / side / "adapter_config.json").read_text()) for side in ("theirs", "ours")]
    named = ("target_modules", "modules_to_save")
    assert {key: value for key, value in settings[1].items() if key not in named}.items() <= settings[0].items()


def test_an_adapter_of_ours_goes_onto_transformers_model_and_theirs_onto_ours(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "model")
    config = LoraConfig(["text", "connector"], r=4, use_dora=True, base_model_name_or_path=str(directory))
    ours = adapted_model(config)
    ours.save(tmp_path / "ours")
    model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "ours").eval()
    torch.testing.assert_close(logits(theirs), logits(ours.model), atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_adapter(SmolVLMForConditionalGeneration.from_pretrained(directory), tmp_path / "theirs")
    assert again.config.base_model_name_or_path == str(directory)
    assert torch.equal(logits(again.model), logits(ours.model))


def test_a_step_of_training_gives_the_gradients_that_peft_gives(tmp_path: Path) -> None:
    for settings in (SETTINGS["LoRA"], SETTINGS["DoRA"]):
        theirs = theirs_on(new_model(), settings)
        theirs.save_pretrained(tmp_path)
        ours = load_adapter(new_model(), tmp_path, trainable=True)
        ids = torch.arange(20, 40)[None]
        for model in (theirs, ours.model):
            model(input_ids=ids, labels=ids).loss.backward()
        expected = {
            key.replace(".default", ""): parameter.grad for key, parameter in theirs.named_parameters()
            if parameter.requires_grad and parameter.grad is not None
        }  # fmt: skip
        found = {parameter: name for name, parameter in zip(ours.state_dict(), ours.parameters(), strict=True)}
        compared = 0
        for parameter, name in found.items():
            if parameter.grad is not None:
                grad = expected[name if name in expected else f"{name}.weight"]
                torch.testing.assert_close(parameter.grad, grad, atol=1e-5, rtol=1e-4)
                compared += 1
        assert compared == len(expected) > 0


def test_a_tied_model_goes_both_ways(tmp_path: Path) -> None:
    settings = {"target_modules": ["lm_head", "q_proj"], "r": 4}
    theirs = theirs_on(new_model(tie_word_embeddings=True), settings)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_adapter(new_model(tie_word_embeddings=True), tmp_path / "theirs")
    assert_same(logits(ours.model), logits(theirs), settings)
    ours.save(tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(new_model(tie_word_embeddings=True), tmp_path / "ours").eval()
    assert_same(logits(again), logits(theirs), settings)
