"""LoRA and DoRA on the PyTorch model: which layers, what is trained, switched, merged, saved; what is refused.

The oracle is the model without an adapter, or with an unmerged one; tests/reference/test_adapters.py has PEFT.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm import LoraConfig, add_adapter
from smolvlm.checkpoint.adapters import merge
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import ConfigError, InputError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.adapters import LoraLinear
from tests.adapted import adapted_model, logits, new_model, teach
from tests.test_model import RELEASED
from tests.tiny_batches import request

ALL = LoraConfig(r=4, lora_alpha=8)
KINDS = {
    "LoRA": ALL,
    "rsLoRA": LoraConfig(r=4, lora_alpha=8, use_rslora=True),
    "DoRA": LoraConfig(r=4, lora_alpha=8, use_dora=True),
    "own ranks": LoraConfig(
        r=4, rank_pattern={"mlp.down_proj": 2, r".*vision.*fc\d": 6}, alpha_pattern={"q_proj": 20.0}
    ),
    "with whole parts": LoraConfig("text", modules_to_save=["connector", "embed_tokens", "lm_head"]),
    "DoRA of the head": LoraConfig(["lm_head", "vision.q_proj"], use_dora=True),
}  # fmt: skip
# Merging in float32 is the same sum in another order. Measured: 1e-6 of the largest logit.
MERGED = 5e-6
# bfloat16 has 8 bits: a merged weight is rounded once more, by up to 1/256 of itself. Measured: 0.02 of the largest.
MERGED_BF16 = 0.03


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


# ---- which layers ----


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        ("all-linear", 12 + 1 + 14),
        ("text", 14),
        ("vision", 12),
        ("connector", 1),
        (["text", "connector"], 15),
        (["q_proj", "v_proj"], 8),
        ("text.q_proj", 2),
        (["vision.fc1", "text.down_proj", "lm_head"], 5),
        (r".*text_model.*\.(q|k)_proj", 4),
        ("model.text_model.layers.1.mlp.up_proj", 1),
        (["layers.1.self_attn.q_proj"], 2),
    ],
)
def test_names_words_and_patterns_mean_so_many_layers(targets: str | list[str], count: int) -> None:
    adapter = add_adapter(new_model(), LoraConfig(targets, r=2))
    assert len(adapter.targets.adapted) == count
    changed = {name for name, module in adapter.model.named_modules() if isinstance(module, LoraLinear)}
    assert changed == set(adapter.targets.adapted)


def test_layers_can_be_left_out_by_name_and_by_number() -> None:
    config = LoraConfig("text", exclude_modules=["mlp.gate_proj", "o_proj"], layers_to_transform=1)
    names = add_adapter(new_model(), config).targets.adapted
    assert {name.split("layers.")[1].split(".")[0] for name in names} == {"1"}
    assert {name.rsplit(".", 1)[1] for name in names} == {"q_proj", "k_proj", "v_proj", "up_proj", "down_proj"}


def test_what_is_trained_whole_gets_no_adapter() -> None:
    adapter = add_adapter(new_model(), LoraConfig("all-linear", modules_to_save=["connector", "norm"]))
    assert not any("connector" in name for name in adapter.targets.adapted)
    assert "model.connector" in adapter.targets.saved and "model.text_model.norm" in adapter.targets.saved


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LoraConfig(["q_proj", "v_prj"]), "'v_prj' matches no linear layer.*v_proj"),
        (LoraConfig("q_proj,v_proj"), "'q_proj,v_proj' matches no linear layer.*as a list"),
        (LoraConfig(r".*\.w_proj"), "matches no linear layer"),
        (LoraConfig(["embed_tokens"]), "modules_to_save"),
        (LoraConfig(["self_attn"]), "'self_attn' matches no linear layer"),
        (LoraConfig("text.fc1"), "'text.fc1' matches no linear layer"),
        (LoraConfig("text", modules_to_save=["conector"]), "modules_to_save: 'conector' matches no module.*connector"),
        (LoraConfig("connector", modules_to_save=["connector"]), "gets no adapter"),
        (LoraConfig([]), "target_modules is empty"),
    ],
)
def test_a_name_that_means_nothing_is_an_error_that_names_those_near_it(config: LoraConfig, expected: str) -> None:
    model = new_model()
    with pytest.raises(ConfigError, match=expected):
        add_adapter(model, config)
    assert model.adapter is None and all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0}, {"r": 2.5}, {"rank_pattern": {"q_proj": 0}}, {"lora_alpha": 0}, {"alpha_pattern": {"q_proj": -1}},
        {"lora_dropout": 1.0}, {"init_lora_weights": "pissa"}, {"target_modules": "(q_proj"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LoraConfig(**wrong)  # type: ignore[arg-type]


def test_the_published_notebook_has_its_published_number_of_parameters() -> None:
    """Rank 8 on these names of the 2.2B model: the text model whole, and q, k and v of the vision tower with it."""
    vision, scale, (hidden, mlp, layers, heads, kv), _, _, _ = RELEASED["2.2B v1"]
    text = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "vocab_size": 49155,
            "num_attention_heads": heads, "num_key_value_heads": kv, "pad_token_id": 2}  # fmt: skip
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale)
        )
    names = ["down_proj", "o_proj", "k_proj", "q_proj", "gate_proj", "up_proj", "v_proj"]
    adapter = add_adapter(model, LoraConfig(names, r=8, lora_dropout=0.1, init_lora_weights="gaussian"))
    assert adapter.num_parameters == 10_536_960
    assert str(adapter).splitlines() == [
        *(f"  27  model.vision_model.encoder.layers.*.self_attn.{part}_proj" for part in "qkv"),
        *(f"  24  model.text_model.layers.*.self_attn.{part}_proj" for part in "qkvo"),
        *(f"  24  model.text_model.layers.*.mlp.{part}_proj" for part in ("gate", "up", "down")),
        "LoRA on 249 layers, 10,536,960 parameters",
    ]


# ---- on the model ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_no_answer(kind: str) -> None:
    model = new_model()
    before = logits(model)
    add_adapter(model, KINDS[kind])
    assert difference(logits(model), before) <= (1e-6 if KINDS[kind].use_dora else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_all_of_the_adapter_and_nothing_else(kind: str) -> None:
    model = new_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapter = add_adapter(model.train(), KINDS[kind])
    start = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    assert {id(one) for one in model.parameters() if one.requires_grad} == {id(one) for one in adapter.parameters()}
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.1)
    batch = request(1, text=10, tiles=1)
    for _ in range(2):  # A has a gradient only once B isn't zero any more
        optimiser.zero_grad()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimiser.step()
    for name, tensor in adapter.state_dict().items():
        assert not torch.equal(tensor, start[name]), name
    adapter.remove()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_or_removed_the_model_is_what_it_was(kind: str) -> None:
    model = new_model()
    model.model.vision_model.requires_grad_(False)
    before, learned = logits(model), [parameter.requires_grad for parameter in model.parameters()]
    adapter = teach(add_adapter(model, KINDS[kind]))
    with_it = logits(model)
    assert difference(with_it, before) > 0.05
    with adapter.disabled():
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), with_it)
    model.train()
    with adapter.disabled():
        assert all(module.training for module in model.modules())
    model.eval()
    adapter.remove()
    assert not any(module.training for module in model.modules())
    assert torch.equal(logits(model), before) and model.adapter is None
    assert [parameter.requires_grad for parameter in model.parameters()] == learned
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    with pytest.raises(InputError, match="no longer on its model"):
        adapter.disable()


def test_a_model_has_one_adapter_at_a_time() -> None:
    adapter = adapted_model(ALL)
    with pytest.raises(InputError, match="has an adapter already"):
        add_adapter(adapter.model, ALL)
    adapter.remove()
    add_adapter(adapter.model, ALL)


def test_a_copy_of_the_model_has_an_adapter_of_its_own() -> None:
    adapter = adapted_model(KINDS["with whole parts"])
    expected = logits(adapter.model)
    other = copy.deepcopy(adapter.model)
    assert other.adapter is not None and other.adapter.model is other
    other.adapter.remove()
    assert torch.equal(logits(adapter.model), expected)


def test_dropout_acts_in_training_only() -> None:
    adapter = adapted_model(LoraConfig(r=4, lora_dropout=0.5, use_dora=True))
    assert torch.equal(logits(adapter.model), logits(adapter.model))
    adapter.model.train()
    assert not torch.equal(logits(adapter.model), logits(adapter.model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_model_learns_with_a_float32_adapter(kind: str) -> None:
    model = new_model().to(torch.bfloat16)
    adapter = add_adapter(model, KINDS[kind])
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    teach(adapter)
    expected = logits(adapted_model(KINDS[kind]).model)
    assert difference(logits(model), expected) < 0.1
    assert model(**request(1, text=4)).logits.dtype == torch.bfloat16
    model.train()
    batch = request(1, text=10, tiles=1)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        for parameter in adapter.parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all())
            parameter.grad = None


def test_recomputed_layers_have_the_same_gradients() -> None:
    grads = []
    for recomputed in (False, True):
        adapter = adapted_model(KINDS["DoRA"])
        adapter.model.train()
        if recomputed:
            adapter.model.gradient_checkpointing_enable()
        batch = request(1, text=10, tiles=1)
        adapter.model(**batch, labels=batch["input_ids"]).loss.backward()
        grads.append([parameter.grad for parameter in adapter.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


# ---- merged ----


@pytest.mark.parametrize("magnitude", [False, True])
def test_merging_is_the_formula_of_the_papers(magnitude: bool) -> None:
    rng = np.random.default_rng(0)
    weight, a, b = rng.normal(size=(6, 5)), rng.normal(size=(2, 5)), rng.normal(size=(6, 2))
    lengths = rng.uniform(0.5, 2, 6) if magnitude else None
    expected = np.array(
        [[weight[row, column] + 1.5 * sum(b[row, k] * a[k, column] for k in range(2)) for column in range(5)]
         for row in range(6)]
    )  # fmt: skip
    if lengths is not None:
        expected = np.stack([lengths[row] * expected[row] / np.linalg.norm(expected[row]) for row in range(6)])
    np.testing.assert_allclose(merge(weight, a, b, 1.5, lengths), expected, rtol=1e-12)
    tensors = (torch.from_numpy(one) for one in (weight, a, b))
    found = merge(*tensors, 1.5, None if lengths is None else torch.from_numpy(lengths))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_row_of_zeros_stays_finite() -> None:
    assert np.isfinite(merge(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((2, 1)), 1.0, np.zeros(2))).all()
    model = new_model()
    with torch.no_grad():
        model.lm_head.weight[7] = 0
    adapter = add_adapter(model, KINDS["DoRA of the head"])
    assert bool(logits(adapter.model).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_and_is_a_plain_model(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = new_model().to(dtype)
    names = list(model.state_dict())
    adapter = teach(add_adapter(model, KINDS[kind]))
    expected = logits(model)
    with pytest.raises(InputError, match="has an adapter"):
        model.save_pretrained(tmp_path)
    adapter.merge()
    assert difference(logits(model), expected) < (MERGED if dtype == torch.float32 else MERGED_BF16)
    assert list(model.state_dict()) == names and {one.dtype for one in model.parameters()} == {dtype}
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    "config", [LoraConfig("lm_head", lora_alpha=32), LoraConfig("text", modules_to_save=["embed_tokens"])]
)
def test_a_tied_head_is_parted_from_the_embeddings_when_one_of_them_changes(config: LoraConfig, tmp_path: Path) -> None:
    adapter = adapted_model(config, tie_word_embeddings=True)
    model, expected = adapter.model, logits(adapter.model)
    adapter.save(tmp_path / "adapter")
    with adapter.disabled():
        assert difference(logits(model), expected) > 0.05
    adapter.merge()
    assert difference(logits(model), expected) < MERGED and not model.config.tie_word_embeddings
    model.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "merged")), logits(model))
    new_model(tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    loaded = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter")
    assert difference(logits(loaded), expected) < MERGED
