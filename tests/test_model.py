"""The model by itself: released geometries, what it refuses, and that its options change nothing they shouldn't."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from smolvlm.config import SmolVLMConfig, SmolVLMTextConfig, SmolVLMVisionConfig
from smolvlm.errors import ConfigError, InputError, MissingDependencyError, PromptError
from smolvlm.model import KVCache, SmolVLMForConditionalGeneration, SmolVLMModel, SmolVLMVisionTransformer
from smolvlm.model.connector import pixel_shuffle
from smolvlm.model.vision import position_ids

IMAGE = 90
SIGLIP_BASE = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 512, "patch_size": 16,
}  # fmt: skip
SIGLIP_SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
RELEASED = {  # name: vision, scale, (hidden, MLP, layers, heads, kv), vocabulary, parameters by part, tensors
    "256M": (SIGLIP_BASE, 4, (576, 1536, 30, 9, 3), 49280,
             (256_484_928, 86_433_024, 7_077_888, 134_588_736, 28_385_280), 471),
    "500M": (SIGLIP_BASE, 4, (960, 2560, 32, 15, 5), 49280,
             (507_482_304, 86_433_024, 11_796_480, 361_944_000, 47_308_800), 489),
    "2.2B v1": (SIGLIP_SO400M, 3, (2048, 8192, 24, 32, 32), 49155,
                (2_246_272_880, 412_987_248, 21_233_664, 1_711_382_528, 100_669_440), 657),
    "2.2B v2": (SIGLIP_SO400M, 3, (2048, 8192, 24, 32, 32), 49280,
                (2_246_784_880, 412_987_248, 21_233_664, 1_711_638_528, 100_925_440), 657),
}  # fmt: skip


def tiny_config(**changes: Any) -> SmolVLMConfig:
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 4}  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 100, "pad_token_id": 2}  # fmt: skip
    values = {"image_token_id": IMAGE, "scale_factor": 2, "vision_config": vision, "text_config": text}
    return SmolVLMConfig(**{**values, **changes})


def tiny(config: SmolVLMConfig | None = None, **options: Any) -> SmolVLMForConditionalGeneration:
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(config or tiny_config(), **options).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return model


def one_picture(tiles: int = 1, words: int = 6) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[5, 6, *[IMAGE] * (4 * tiles), *range(10, 10 + words)]])
    return {"input_ids": ids, "pixel_values": torch.rand(1, tiles, 3, 16, 16) * 2 - 1}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", RELEASED)
def test_released_geometries_have_the_published_numbers_of_parameters_and_tensors(name: str) -> None:
    vision, scale, (hidden, mlp, layers, heads, kv), vocabulary, counts, tensors = RELEASED[name]
    text = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "vocab_size": vocabulary,
            "num_attention_heads": heads, "num_key_value_heads": kv, "pad_token_id": 2}  # fmt: skip
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale)
        )
    parts = (model, model.model.vision_model, model.model.connector, model.model.text_model, model.lm_head)
    assert tuple(map(parameters, parts)) == counts
    assert len(model.state_dict()) == tensors


def test_class_defaults_describe_a_model_of_six_point_nine_billion_parameters() -> None:
    with torch.device("meta"):
        assert parameters(SmolVLMForConditionalGeneration(SmolVLMConfig())) == 6_909_685_760  # as transformers' own


@pytest.mark.parametrize("side", [14, 16, 24, 26, 27, 28, 32])
def test_a_full_tile_takes_every_position_once_in_order(side: int) -> None:
    ids = position_ids(torch.ones(1, side, side, dtype=torch.bool), side)
    assert ids[0].tolist() == list(range(side * side))


@pytest.mark.parametrize(("rows", "columns"), [(26, 13), (5, 26), (9, 20), (1, 1), (3, 2)])
def test_a_partial_tile_is_stretched_over_the_positions_as_the_original_formula_does(rows: int, columns: int) -> None:
    side = 27
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[0, :rows, :columns] = True
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    row = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / rows), boundaries, right=True)
    column = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / columns), boundaries, right=True)
    expected = torch.zeros(side, side, dtype=torch.long)
    expected[:rows, :columns] = row[:, None] * side + column
    assert torch.equal(position_ids(mask, side)[0], expected.flatten())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixel_shuffle_is_plain_space_to_depth(scale: int) -> None:
    side, hidden = 12, 5
    x = torch.arange(2 * side * side * hidden).view(2, side, side, hidden).float()
    got = pixel_shuffle(x.flatten(1, 2), scale)
    for row in range(side // scale):
        for column in range(side // scale):
            block = x[:, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            assert torch.equal(got[:, row * (side // scale) + column], block.flatten(1))


def test_tiles_that_are_not_square_are_refused_with_their_numbers() -> None:
    with pytest.raises(InputError, match="128 patches"):
        pixel_shuffle(torch.zeros(1, 128, 4), 2)


@pytest.mark.parametrize("act", ["gelu", "relu", "selu", "gelu_new", "quick_gelu", "gelu_pytorch_tanh", F.silu])
def test_every_documented_activation_runs_and_a_function_too(act: Any) -> None:
    config = SmolVLMVisionConfig(hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1,
                                 image_size=8, patch_size=4, hidden_act=act)  # fmt: skip
    assert torch.isfinite(SmolVLMVisionTransformer(config)(torch.rand(1, 3, 8, 8)).last_hidden_state).all()


@torch.inference_mode()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_left_padding_changes_no_logit(implementation: str) -> None:
    model, inputs = tiny(attn_implementation=implementation), one_picture()
    padded = torch.cat([torch.full((1, 3), 2), inputs["input_ids"]], dim=1)
    mask = (torch.arange(padded.shape[1]) >= 3)[None].long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(**inputs).logits
    got = model(padded, mask, positions, pixel_values=inputs["pixel_values"]).logits[:, 3:]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)  # other sums, same numbers


@torch.inference_mode()
def test_step_by_step_with_a_cache_equals_one_whole_forward() -> None:
    model, inputs = tiny(), one_picture(words=7)
    expected = model(**inputs).logits
    ids = inputs["input_ids"]
    cache = KVCache.allocate(model.config.text_config, 1, ids.shape[1], torch.float32, "cpu")
    first = model(ids[:, :8], pixel_values=inputs["pixel_values"], past_key_values=cache, use_cache=True)
    several = model(ids[:, 8:10], past_key_values=cache, use_cache=True)
    legacy = several.past_key_values.to_legacy()
    rest = [model(ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(10, ids.shape[1])]
    torch.testing.assert_close(torch.cat([first.logits, several.logits, *rest], 1), expected, rtol=0, atol=1e-5)
    again = model(ids[:, 10:11], past_key_values=legacy, use_cache=True).logits
    torch.testing.assert_close(again, expected[:, 10:11], rtol=0, atol=1e-5)
    cache.truncate(8)
    torch.testing.assert_close(
        model(ids[:, 8:], past_key_values=cache, use_cache=True).logits, expected[:, 8:], rtol=0, atol=1e-5
    )


@torch.inference_mode()
def test_features_made_before_give_the_same_logits_as_pixels() -> None:
    model, inputs = tiny(), one_picture(tiles=2)
    whole = model(**inputs)
    assert whole.image_hidden_states.shape == (2, 4, 32)
    features = model.get_image_features(inputs["pixel_values"])
    again = model(inputs["input_ids"], image_hidden_states=features)
    torch.testing.assert_close(again.logits, whole.logits, rtol=0, atol=0)


@torch.inference_mode()
def test_many_tiles_encoded_in_pieces_equal_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = tiny().double(), torch.rand(1, 5, 3, 16, 16, dtype=torch.float64)
    whole = model.get_image_features(pixels)
    monkeypatch.setattr("smolvlm.model.model.CPU_PATCHES_AT_ONCE", 16)
    torch.testing.assert_close(model.get_image_features(pixels), whole, rtol=0, atol=1e-12)  # sums in another order


@torch.inference_mode()
def test_zero_tiles_are_padding_and_the_first_is_kept_when_all_are_zero() -> None:
    model = tiny()
    pixels = torch.zeros(2, 3, 3, 16, 16)
    assert model.get_image_features(pixels).shape[0] == 1
    pixels[0, 1], pixels[1, 0] = 0.5, -0.5
    assert model.get_image_features(pixels).shape[0] == 2


def test_a_sample_with_too_few_image_tokens_is_named_with_both_numbers() -> None:
    ids = torch.tensor([[5, *[IMAGE] * 8, 9], [5, *[IMAGE] * 4, 7, 8, 9, 9, 9]])
    pixels = torch.rand(2, 2, 3, 16, 16)  # both have two tiles: 8 features each
    with pytest.raises(PromptError, match=r"sample 1: the prompt has 4 image tokens.*8 features"):
        tiny()(ids, pixel_values=pixels)


def test_equal_totals_with_wrong_samples_are_refused_too() -> None:
    ids = torch.tensor([[5, *[IMAGE] * 8], [5, *[7] * 8]])
    pixels = torch.rand(2, 1, 3, 16, 16)
    with pytest.raises(PromptError, match="sample 0: the prompt has 8 image tokens"):
        tiny()(ids, pixel_values=pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of input_ids or inputs_embeds"),
        ({"input_ids": torch.ones(1, 2, dtype=torch.long), "inputs_embeds": torch.ones(1, 2, 32)}, "exactly one"),
        ({"input_ids": torch.ones(1, 2, dtype=torch.long), "pixel_values": torch.ones(1, 3, 16, 16)}, "batch, tiles"),
        ({"input_ids": torch.full((1, 4), IMAGE), "image_hidden_states": torch.ones(4, 32)}, "image_hidden_states"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 2)}, "attention_mask"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "labels": torch.ones(1, 3), "logits_to_keep": 1}, "labels"),
        (
            {**one_picture(), "image_hidden_states": torch.ones(1, 4, 32)},
            "at most one of pixel_values and image_hidden_states",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny()(**arguments)


def test_return_dict_false_gives_a_tuple_without_nones() -> None:
    inputs = one_picture()
    labels = inputs["input_ids"]
    result = tiny()(**inputs, labels=labels, use_cache=False, return_dict=False)
    assert isinstance(result, tuple)
    assert [tuple(item.shape) for item in result] == [(), (1, 12, 100), (1, 4, 32)]
    named = tiny()(**inputs, labels=labels, use_cache=False)
    assert list(named) == ["loss", "logits", "image_hidden_states"]
    assert named["logits"] is named[1] is named.logits
    with pytest.raises(KeyError):
        named["attentions"]


def test_sdpa_still_returns_attention_weights_when_asked() -> None:
    output = tiny(attn_implementation="sdpa")(**one_picture(), output_attentions=True)
    assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, 12, 12)] * 2
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(1, 4, 12))


def test_gradient_checkpointing_in_both_towers_gives_the_same_gradients() -> None:
    inputs = one_picture()
    gradients = []
    for on in (False, True):
        model = tiny().train()
        if on:
            model.gradient_checkpointing_enable()
            assert model.model.vision_model.gradient_checkpointing and model.model.text_model.gradient_checkpointing
        output = model(**inputs, labels=inputs["input_ids"])
        assert (output.past_key_values is None) == on, "a cache would switch the recomputing off"
        output.loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_gradients_flow_through_a_cache() -> None:
    model, inputs = tiny().train(), one_picture()
    first = model(**inputs, use_cache=True)
    second = model(torch.tensor([[7]]), past_key_values=first.past_key_values, use_cache=True)
    second.logits.sum().backward()
    assert model.model.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [120, 95])
def test_resizing_the_vocabulary_keeps_old_rows_and_ties(tied: bool, size: int) -> None:
    model = tiny(tiny_config(tie_word_embeddings=tied))
    old = copy.deepcopy(model.get_input_embeddings().weight.data)
    table = model.resize_token_embeddings(size)
    assert model.config.text_config.vocab_size == size == table.num_embeddings == model.lm_head.out_features
    kept = min(size, 100)
    assert torch.equal(table.weight[:kept], old[:kept])
    assert (model.lm_head.weight is table.weight) == tied
    assert model(torch.tensor([[5, 6]])).logits.shape == (1, 2, size)


def test_a_four_dimensional_mask_is_taken_as_it_is() -> None:
    model, ids = tiny(), torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    torch.testing.assert_close(model(ids, mask[None, None]).logits, model(ids).logits)
    mask[3, 1] = False
    assert not torch.allclose(model(ids, mask[None, None]).logits[:, 3], model(ids).logits[:, 3])
    with pytest.raises(InputError, match="4-D attention_mask"):
        model(ids, mask[None, None].float())


def test_unknown_attention_is_refused_and_a_missing_package_is_named() -> None:
    with pytest.raises(ConfigError, match="eager, sdpa, flash_attention_2"):
        tiny(attn_implementation="fast")
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match="pip install flash-attn"):
            tiny(attn_implementation="flash_attention_2")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SmolVLMVisionConfig(hidden_size=10, num_attention_heads=3), "multiple"),
        (lambda: SmolVLMVisionConfig(hidden_act="swish-5"), "gelu_pytorch_tanh"),
        (lambda: SmolVLMVisionConfig(patch_size=0), "patch_size=0"),
        (lambda: SmolVLMTextConfig(num_attention_heads=6, num_key_value_heads=4), "6 attention heads"),
        (lambda: SmolVLMTextConfig(rope_parameters={"rope_type": "yarn"}), "yarn"),
        (lambda: SmolVLMConfig(model_type="llava"), "llava"),
        (lambda: SmolVLMConfig(scale_factor=0), "scale_factor=0"),
    ],
)
def test_impossible_configurations_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_unknown_config_keys_survive_a_round_trip() -> None:
    values = {"perceiver_config": {"a": 1}, "text_config": {"neftune_noise_alpha": 0.0, "hidden_size": 64},
              "vision_config": {"size": {"longest_edge": 364}}, "model_type": "idefics3"}  # fmt: skip
    config = SmolVLMConfig.from_dict(values)
    again = config.to_dict()
    assert again["perceiver_config"] == {"a": 1} and again["model_type"] == "idefics3"
    assert again["text_config"]["neftune_noise_alpha"] == 0.0
    assert again["vision_config"]["size"] == {"longest_edge": 364}
    assert SmolVLMConfig.from_dict(again) == config


def test_rope_theta_is_read_from_both_places() -> None:
    assert SmolVLMTextConfig(rope_theta=5.0).rope_theta == 5.0
    assert SmolVLMTextConfig(rope_parameters={"rope_theta": 7.0, "rope_type": "default"}).rope_theta == 7.0
    assert SmolVLMModel(tiny_config()).config.text_config.rope_theta == 10000.0
