"""The model against transformers' own, on random weights: same keys, same logits, same loss, same tokens.

Tolerance 1e-4 on fp32 logits of scale 1 (the two sum in different orders; measured differences are near 1e-6).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration, SmolVLMModel

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.reference

IMAGE_TOKEN = 90
GEOMETRIES: dict[str, dict[str, Any]] = {
    # released shapes with fewer and narrower layers: tile / patch / shuffle and head sharing stay as released
    "256M": {"image": 512, "patch": 16, "scale": 4, "heads": 3, "kv": 1, "theta": 100000.0},
    "500M": {"image": 512, "patch": 16, "scale": 4, "heads": 3, "kv": 1, "theta": 100000.0},
    "2.2B": {"image": 384, "patch": 14, "scale": 3, "heads": 4, "kv": 4, "theta": 130000.0},
    "idefics3": {"image": 364, "patch": 14, "scale": 2, "heads": 4, "kv": 2, "theta": 500000.0},
    "small": {"image": 32, "patch": 4, "scale": 2, "heads": 4, "kv": 2, "theta": 10000.0},
}


def geometry(name: str) -> dict[str, Any]:
    g = GEOMETRIES[name]
    return {
        "model_type": "idefics3" if name == "idefics3" else "smolvlm",
        "image_token_id": IMAGE_TOKEN,
        "scale_factor": g["scale"],
        "tie_word_embeddings": False,
        "vision_config": {
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
            "image_size": g["image"], "patch_size": g["patch"],
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 16 * g["heads"], "intermediate_size": 80, "num_hidden_layers": 3,
            "num_attention_heads": g["heads"], "num_key_value_heads": g["kv"], "vocab_size": 100,
            "rope_theta": g["theta"], "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "pad_token_id": 2,
        },
    }  # fmt: skip


def reference_model(values: dict[str, Any]) -> Any:
    values = copy.deepcopy(values)
    name = "Idefics3" if values.pop("model_type") == "idefics3" else "SmolVLM"
    config = getattr(transformers, f"{name}Config")(**values)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    for key, parameter in model.named_parameters():  # wider than the initialisation, so that differences show
        centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean=centre, std=0.15)
    return model


def pair(name: str, **options: Any) -> tuple[Any, SmolVLMForConditionalGeneration]:
    values = geometry(name)
    theirs = reference_model(values)
    ours = SmolVLMForConditionalGeneration(SmolVLMConfig.from_dict(values), **options).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def batch(name: str, tiles: tuple[int, ...] = (2, 1), text: int = 9) -> dict[str, torch.Tensor]:
    """Left-padded samples with `tiles` pictures each; padding tiles are zero."""
    g = GEOMETRIES[name]
    per_tile = (g["image"] // g["patch"]) ** 2 // g["scale"] ** 2
    generator = torch.Generator().manual_seed(1)
    longest = max(tiles) * per_tile + text
    ids = torch.full((len(tiles), longest), 2)
    mask = torch.zeros(len(tiles), longest, dtype=torch.long)
    pixels = torch.zeros(len(tiles), max(tiles), 3, g["image"], g["image"])
    for row, count in enumerate(tiles):
        words = torch.randint(3, IMAGE_TOKEN, (text,), generator=generator)
        sample = torch.cat([words[:3], torch.full((count * per_tile,), IMAGE_TOKEN), words[3:]])
        ids[row, longest - len(sample) :] = sample
        mask[row, longest - len(sample) :] = 1
        pixels[row, :count] = torch.rand(count, 3, g["image"], g["image"], generator=generator) * 2 - 1
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_keys_and_shapes_of_the_state_dict_equal_the_reference() -> None:
    theirs, ours = pair("small")
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_logits_equal_the_reference_at_every_released_geometry(name: str, implementation: str) -> None:
    theirs, ours = pair(name, attn_implementation=implementation)
    inputs = batch(name)
    real = inputs["attention_mask"].bool()
    expected = theirs(**inputs).logits[real]
    got = ours(**inputs).logits[real]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1, "logits too flat to show a difference"


@pytest.mark.parametrize("name", ["small", "2.2B", "256M"])
def test_partly_padded_tiles_give_the_references_features(name: str) -> None:
    theirs, ours = pair(name)
    side = GEOMETRIES[name]["image"]
    pixels = torch.rand(1, 3, 3, side, side)
    mask = torch.ones(1, 3, side, side, dtype=torch.long)
    mask[0, 0, side // 2 :] = 0
    mask[0, 1, :, side // 3 :] = 0
    pixels = pixels * mask[:, :, None]
    expected = theirs.model.get_image_features(pixels, mask).pooler_output
    expected = torch.cat(list(expected)) if isinstance(expected, list | tuple) else expected
    got = ours.get_image_features(pixels, mask)
    torch.testing.assert_close(got.flatten(0, 1), expected.flatten(0, -2), rtol=0, atol=1e-4)


def test_small_frames_in_a_large_tower_take_a_strided_subset_of_positions() -> None:
    theirs, ours = pair("256M")
    pixels = torch.rand(2, 3, 256, 256)
    torch.testing.assert_close(
        ours.model.vision_model(pixels).last_hidden_state,
        theirs.model.vision_model(pixels).last_hidden_state, rtol=0, atol=1e-4,
    )  # fmt: skip


def test_cached_steps_equal_the_references_cached_steps() -> None:
    theirs, ours = pair("small")
    inputs = batch("small")
    expected, got = theirs(**inputs, use_cache=True), ours(**inputs, use_cache=True)
    mask = inputs["attention_mask"]
    for step in range(3):
        token = torch.tensor([[7 + step], [9 + step]])
        mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
        places = (mask.cumsum(1) - 1)[:, -1:]
        common = {"input_ids": token, "attention_mask": mask, "position_ids": places, "use_cache": True}
        expected = theirs(**common, past_key_values=expected.past_key_values)
        got = ours(**common, past_key_values=got.past_key_values)
        torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-4)


def test_loss_equals_the_reference_and_also_ignores_image_tokens() -> None:
    theirs, ours = pair("small")
    inputs = batch("small", tiles=(1, 1))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    without_images = labels.masked_fill(labels == IMAGE_TOKEN, -100)
    expected = theirs(**inputs, labels=without_images).loss
    torch.testing.assert_close(ours(**inputs, labels=without_images).loss, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(**inputs, labels=labels).loss, expected, rtol=0, atol=1e-5)


def test_hidden_states_and_attentions_equal_the_reference() -> None:
    theirs, ours = pair("small", attn_implementation="eager")
    theirs.set_attn_implementation("eager")
    inputs = batch("small", tiles=(1, 1))
    common = {"output_hidden_states": True, "output_attentions": True}
    expected, got = theirs(**inputs, **common), ours(**inputs, **common)
    assert len(got.hidden_states) == len(expected.hidden_states) == 4
    assert len(got.attentions) == len(expected.attentions) == 3
    for a, b in zip(got.hidden_states + got.attentions, expected.hidden_states + expected.attentions, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 4]), torch.tensor([[1, 2], [3, 4]])], ids=str)
def test_logits_to_keep_equals_the_reference(keep: int | torch.Tensor) -> None:
    theirs, ours = pair("small")
    inputs = batch("small", tiles=(1, 1))
    got = ours(**inputs, logits_to_keep=keep).logits
    torch.testing.assert_close(got, theirs(**inputs, logits_to_keep=keep).logits, rtol=0, atol=1e-4)


def test_embeddings_instead_of_ids_give_the_same_logits_as_the_reference() -> None:
    theirs, ours = pair("small")
    inputs = batch("small", tiles=(1, 1))
    embeds = ours.get_input_embeddings()(inputs.pop("input_ids"))
    expected = theirs(inputs_embeds=embeds, **inputs).logits
    torch.testing.assert_close(ours(inputs_embeds=embeds, **inputs).logits, expected, rtol=0, atol=1e-4)


def test_sixty_four_greedy_tokens_equal_the_references_generate() -> None:
    theirs, ours = pair("small")
    inputs = batch("small", tiles=(2,))
    expected = theirs.generate(
        **inputs, do_sample=False, max_new_tokens=64, eos_token_id=None, pad_token_id=2, use_cache=True
    )
    output = ours(**inputs, use_cache=True)
    tokens = [int(output.logits[0, -1].argmax())]
    while len(tokens) < 64:
        output = ours(torch.tensor([tokens[-1:]]), past_key_values=output.past_key_values, use_cache=True)
        tokens.append(int(output.logits[0, -1].argmax()))
    assert tokens == expected[0, inputs["input_ids"].shape[1] :].tolist()


def test_bare_model_equals_the_reference() -> None:
    theirs, ours = pair("small")
    bare = SmolVLMModel(ours.config).eval()
    bare.load_state_dict(theirs.model.state_dict(), strict=True)
    inputs = batch("small", tiles=(1,))
    torch.testing.assert_close(
        bare(**inputs).last_hidden_state, theirs.model(**inputs).last_hidden_state, rtol=0, atol=1e-4
    )


def test_full_256m_geometry_equals_the_reference_over_64_greedy_tokens() -> None:
    values = geometry("256M")
    values["vision_config"] = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 512, "patch_size": 16,
    }  # fmt: skip
    values["text_config"] |= {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280, "max_position_embeddings": 8192,
    }  # fmt: skip
    values["image_token_id"] = 49190
    with torch.device("meta"):
        ours = SmolVLMForConditionalGeneration(SmolVLMConfig.from_dict(values)).eval()
    theirs = reference_model_of_released_size(values)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    ids = torch.randint(3, 49000, (1, 64 + 12), generator=torch.Generator().manual_seed(3))
    ids[0, 5:69] = 49190
    inputs = {"input_ids": ids, "pixel_values": torch.rand(1, 1, 3, 512, 512) * 2 - 1}
    expected = theirs.generate(
        **inputs, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64, eos_token_id=None,
        pad_token_id=2, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    output = ours(**inputs, use_cache=True, logits_to_keep=1)
    for step, logits in enumerate(expected.logits):
        torch.testing.assert_close(output.logits[:, -1], logits, rtol=0, atol=1e-4)
        token = output.logits[:, -1:].argmax(-1)
        assert int(token) == int(expected.sequences[0, ids.shape[1] + step])
        output = ours(token, past_key_values=output.past_key_values, use_cache=True)


def reference_model_of_released_size(values: dict[str, Any]) -> Any:
    values = {key: value for key, value in values.items() if key != "model_type"}
    torch.manual_seed(0)
    return transformers.SmolVLMForConditionalGeneration(transformers.SmolVLMConfig(**copy.deepcopy(values))).eval()
