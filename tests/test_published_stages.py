"""The published stages as recipes: that they are read, and their numbers against the published ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.adapters import Adapter, add_adapter
from smolvlm.training.recipe import Recipe, read_recipe
from tests.test_mixtures import taken
from tests.test_model import RELEASED

RECIPES = Path(__file__).parents[1] / "recipes"
PUBLISHED = sorted((RECIPES / "published").glob("*.toml"))
STAGES = {
    "context_extension": {"max_tokens": 16384, "config": {"text_config": {
        "rope_theta": 273_000.0, "max_position_embeddings": 16384}}},
    "smolvlm_stage1": {"samples_per_step": 1024, "weight_decay": 0.1, "learning_rate": 1e-4, "max_tokens": 7000},
    "smolvlm_stage2": {"samples_per_step": 2048, "weight_decay": 0.1, "learning_rate": 1e-4, "max_tokens": 7000},
    "smolvlm_sft": {"samples_per_step": 8192, "weight_decay": 0.1, "learning_rate": 1e-4, "save_every": 25},
    "smolvlm2_video_sft": {"samples_per_step": 512, "weight_decay": 0.0, "schedule": "cosine", "warmup": 0.03,
                           "rates": {"vision": 5e-6, "connector": 1e-4, "text": 2e-5, "embeddings": 2e-5}},
    "smolvlm2_video_sft_2b": {"samples_per_step": 512, "weight_decay": 0.0, "schedule": "cosine", "warmup": 0.03,
                              "rates": {"vision": 5e-6, "connector": 1e-4, "text": 2e-5, "embeddings": 2e-5}},
    "vqav2_lora": {"samples_per_step": 16, "bits": 4, "learning_rate": 1e-4, "weight_decay": 0.01},
    "smolvlm_synthetic": {"learning_rate": 1e-4, "weight_decay": 0.1, "max_tokens": 7000},
    "videofeedback": {"samples_per_step": 2, "learning_rate": 1e-4, "weight_decay": 0.01, "rates": {"vision": 0.0}},
    "dpo_rlaif_v": {"objective": "dpo", "samples_per_step": 256},
    "grpo": {"objective": "grpo", "learning_rate": 1e-5},
}  # fmt: skip


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
def test_every_published_stage_is_a_recipe_that_is_read(file: Path) -> None:
    recipe = read_recipe(file)
    assert recipe.name.replace("-", "_") in file.stem
    header = file.read_text(encoding="utf-8").split("\n\n")[0]
    for said in (f"recipes/published/{file.name}", "# Source: ", "# What differs: "):
        assert said in header


def stage(name: str) -> Recipe:
    return read_recipe(RECIPES / "published" / f"{name}.toml")


def test_every_stage_has_its_published_numbers() -> None:
    assert {file.stem for file in PUBLISHED} == set(STAGES)
    for name, expected in STAGES.items():
        recipe = stage(name)
        assert {key: getattr(recipe, key) for key in expected} == expected, name
        assert (recipe.optimiser, recipe.clip, recipe.betas) == ("adamw", 1.0, (0.9, 0.999))


@pytest.mark.parametrize(
    ("name", "warm", "scheduled"),
    [("smolvlm_stage1", 2000, 500_000), ("smolvlm_stage2", 100, 6000), ("smolvlm_sft", 100, 2000)],
)
def test_a_stage_that_was_ended_early_has_the_rates_of_its_whole_schedule(name: str, warm: int, scheduled: int) -> None:
    recipe = stage(name)
    for step in (warm // 2, warm, recipe.steps // 2, recipe.steps - 1):
        published = min(step / warm, (scheduled - step) / (scheduled - warm))
        assert recipe.rate(step) == pytest.approx(
            published, abs=1 / warm + 1e-3
        )  # theirs begins at 0, ours a step later


def adapted(name: str, size: str) -> Adapter:
    """A stage's adapter on a released geometry, without weights."""
    vision, scale, (hidden, mlp, layers, heads, kv), vocabulary, _, _ = RELEASED[size]
    text = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "vocab_size": vocabulary,
            "num_attention_heads": heads, "num_key_value_heads": kv, "pad_token_id": 2}  # fmt: skip
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale)
        )
    config = stage(name).adapter
    assert config is not None
    return add_adapter(model, config)


def test_image_qa_trains_the_published_number_of_parameters() -> None:
    assert adapted("vqav2_lora", "2.2B v1").num_parameters == 10_536_960


def test_stage_1_adapts_both_towers_and_trains_what_is_new_whole() -> None:
    adapter = adapted("smolvlm_stage1", "256M")
    vision, text = (
        [one for one in adapter.targets.adapted if one.startswith(f"model.{tower}_model.")]
        for tower in ("vision", "text")
    )
    assert (len(vision), len(text)) == (12 * 6, 30 * 7)  # q, k, v, out and both of the MLP; q, k, v, o, gate, up, down
    whole = adapter.targets.saved
    new = {"model.connector", "model.vision_model.embeddings", "model.text_model.embed_tokens", "lm_head"}
    assert new <= set(whole)
    norms = [one for one in whole if "norm" in one]
    assert len(norms) == 2 * 12 + 1 + 2 * 30 + 1


@pytest.mark.parametrize("name", ["dpo_rlaif_v", "grpo"])
def test_the_other_adapters_find_their_layers(name: str) -> None:
    assert len(adapted(name, "2.2B v1").targets.adapted) > 90


def test_epochs_of_smolvlm2_are_the_implied_number_of_steps() -> None:
    for name, steps in (("smolvlm2_video_sft", 5912), ("smolvlm2_video_sft_2b", 6550)):
        recipe = stage(name)
        assert math.floor(taken(list(recipe.data)) / recipe.samples_per_step) == steps


@pytest.mark.parametrize("path", sorted((RECIPES / "stages").glob("*.toml")), ids=lambda path: path.stem)
def test_every_stage_on_the_scale_of_nano_is_a_recipe(path: Path) -> None:
    assert read_recipe(path).steps > 0
