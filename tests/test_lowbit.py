"""Bases in 8 and 4 bits under adapters: what is lost, what is learned, what is kept in memory, saved and refused.

Oracles: the quantiles that NF4 is made of, bounds by theory, and a plain model that holds the dequantised weights.
"""

from __future__ import annotations

import copy
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from smolvlm import LoraConfig, add_adapter, load_adapter
from smolvlm.checkpoint.safetensors import read_header
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import ConfigError, InputError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.lowbit import (
    BLOCK,
    GROUP,
    NF4,
    VALUES_AT_ONCE,
    LowBitLinear,
    LowBitMatrix,
    decode_absmax,
    decode_nf4,
    encode_absmax,
    encode_nf4,
    encode_rows,
    low_bits,
    nf4_pairs,
    num_bytes,
    quantise_base,
)
from tests.adapted import logits, new_model, teach
from tests.test_model import RELEASED
from tests.tiny_batches import request

BITS = (8, 4)
PAIRS = nf4_pairs(torch.device("cpu"))
LORA = LoraConfig(["text", "connector"], r=4, lora_alpha=8)
DORA = LoraConfig(["text", "vision"], r=4, lora_alpha=8, use_dora=True)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_model(bits: int, config: LoraConfig = LORA, **options: bool) -> SmolVLMForConditionalGeneration:
    model = new_model()
    quantise_base(model, bits, config, **options)
    return model


def plain_twin(model: SmolVLMForConditionalGeneration) -> SmolVLMForConditionalGeneration:
    """A plain model with the weights that the layers in low bits stand for."""
    twin = copy.deepcopy(model)
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, LowBitLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            plain.weight = nn.Parameter(layer.matrix.dequantised())
            plain.bias = layer.bias
            twin.set_submodule(name, plain)
    return twin


# ---- what is lost ----


def test_the_codebook_is_that_of_the_paper_quantiles_of_the_normal_distribution() -> None:
    """Eight above zero and seven below, evenly spaced in probability from 1 - (1/30 + 1/32) / 2 on; and zero."""
    quantile = statistics.NormalDist().inv_cdf
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    above = [quantile(one) for one in np.linspace(outermost, 0.5, 9)[:-1]]
    below = [-quantile(one) for one in np.linspace(outermost, 0.5, 8)[:-1]]
    np.testing.assert_allclose(NF4, np.array(sorted([*below, 0.0, *above])) / max(above), atol=2e-7)


def test_eight_bits_lose_half_a_step_at_most() -> None:
    weight = random(7, 50) * torch.logspace(-3, 3, 7)[:, None]
    matrix = LowBitMatrix(weight, 8)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((matrix.dequantised() - weight).abs() <= step * 0.5001).all())


def test_four_bits_take_the_nearest_of_the_sixteen() -> None:
    weight = random(6, 96)
    codes, absmax = encode_nf4(weight)
    assert (codes.dtype, len(codes), len(absmax)) == (torch.uint8, 6 * 96 // 2, 6 * 96 // BLOCK)
    found = decode_nf4(codes, absmax, PAIRS).numpy()
    blocks = weight.numpy().reshape(-1, BLOCK)
    largest = np.abs(blocks).max(1, keepdims=True)
    choices = largest[:, :, None] * np.array(NF4, dtype=np.float32)  # (blocks, 1, 16)
    nearest = np.take_along_axis(
        np.broadcast_to(choices, (*blocks.shape, 16)), np.abs(blocks[:, :, None] - choices).argmin(2)[:, :, None], 2
    )
    np.testing.assert_array_equal(found.reshape(-1, BLOCK), nearest[:, :, 0])


def test_four_bits_of_normal_weights_are_within_a_tenth() -> None:
    """Known of NF4: 9 % of the length."""
    weight = random(256, 512, scale=0.02)
    lost = (LowBitMatrix(weight, 4).dequantised() - weight).norm() / weight.norm()
    assert 0.08 < float(lost) < 0.1


def test_an_absmax_in_eight_bits_loses_half_a_step_of_its_root_even_beside_a_giant() -> None:
    absmax = random(GROUP + 44, seed=1).abs() + 0.5
    absmax[3] = 100 * absmax[4]
    codes, largest = encode_absmax(absmax)
    assert (codes.dtype, codes.shape, largest.shape) == (torch.uint8, absmax.shape, (2,))
    top = absmax.split(GROUP)
    top = torch.cat([part.max().expand(len(part)) for part in top])
    found = decode_absmax(codes, largest)
    assert float(((found / top).sqrt() - (absmax / top).sqrt()).abs().max()) <= 0.5001 / 255
    assert float((found / absmax - 1).abs().max()) < 0.06


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 7), (64, 64), (3, 1000)])
def test_any_shape_comes_back_and_zeros_stay_zeros(bits: int, shape: tuple[int, int]) -> None:
    weight = random(*shape)
    weight[1] = 0
    matrix = LowBitMatrix(weight, bits)  # type: ignore[arg-type]
    found = matrix.dequantised()
    assert found.shape == weight.shape and bool((found[1] == 0).all())
    assert float((found - weight).norm() / weight.norm()) < (0.01 if bits == 8 else 0.12)
    assert bool((LowBitMatrix(torch.zeros(shape), bits).dequantised() == 0).all())  # type: ignore[arg-type]


def test_a_large_matrix_is_brought_back_part_by_part() -> None:
    weight = random(301, 1000)
    assert weight.numel() > 2 * VALUES_AT_ONCE
    low = LowBitMatrix(weight, 4)
    whole = decode_nf4(low.codes, decode_absmax(low.absmax, low.scale), PAIRS)[: weight.numel()]
    assert torch.equal(low.dequantised().flatten(), whole)
    codes, scale = encode_rows(weight)
    assert torch.equal(LowBitMatrix(weight, 8).dequantised(), codes * scale)


def test_the_smallest_numbers_do_not_wrap_around() -> None:
    weight = torch.tensor([[1.8e-43, -1.8e-43, 1e-43]])  # a scale that is denormal, and rounded a lot
    codes, _ = encode_rows(weight)
    assert codes[0, 0] > 0 > codes[0, 1]


def test_four_bits_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    weight = random(64, 128)
    packed, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    codes, absmax = encode_nf4(weight)
    torch.testing.assert_close(absmax, state.absmax.flatten(), rtol=1e-6, atol=0)
    assert float((codes == packed.flatten()).float().mean()) > 0.999  # x / absmax and x * (1 / absmax) round apart
    expected = functional.dequantize_4bit(packed, state)
    torch.testing.assert_close(
        decode_nf4(packed.flatten(), state.absmax, PAIRS), expected.flatten(), rtol=1e-5, atol=1e-7
    )


# ---- a layer ----


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_and_gradients_are_those_of_the_dequantised_weight(bits: int, dtype: torch.dtype) -> None:
    low = LowBitLinear(random(48, 80), random(48, seed=1).to(dtype), bits)  # type: ignore[arg-type]
    x = random(2, 5, 80, seed=2).to(dtype).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    weight = low.matrix.dequantised(dtype)
    found, expected = low(x), F.linear(twin, weight, low.bias)
    assert torch.equal(found, expected) and found.dtype == dtype
    change = random(2, 5, 48, seed=3).to(dtype)
    found.backward(change)
    expected.backward(change)
    assert x.grad is not None and twin.grad is not None
    # The gradient through a transposed product sums in another order.
    torch.testing.assert_close(x.grad, twin.grad, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)


def test_autocast_sets_the_dtype_of_the_product() -> None:
    low = LowBitLinear(random(16, 64), None, 4)
    x = random(3, 64, seed=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = low(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    expected = low.matrix.dequantised(torch.bfloat16).float().sum(0)
    assert x.grad is not None and x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad[0], expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("bits", BITS)
def test_nothing_of_the_weight_is_kept_for_the_backward_pass(bits: int) -> None:
    low, plain = LowBitLinear(random(64, 64), None, bits), nn.Linear(64, 64, bias=False)  # type: ignore[arg-type]
    plain.weight.requires_grad_(False)
    kept: dict[str, list[int]] = {}
    for name, layer in (("low", low), ("plain", plain)):
        sizes = kept.setdefault(name, [])
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, into=sizes: into.append(one.numel()), lambda one: one
        ):  # type: ignore[misc]
            layer(random(2, 64).requires_grad_())
    assert kept == {"low": [], "plain": [64 * 64]}


@pytest.mark.parametrize("bits", BITS)
def test_a_layer_without_memory_can_be_planned_with(bits: int) -> None:
    with FakeTensorMode():
        layer = LowBitLinear(torch.empty(64, 64), None, bits)  # type: ignore[arg-type]
        x = torch.empty(2, 64, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None and layer.matrix.codes.nbytes == 64 * 64 * bits // 8
    test_answers_and_gradients_are_those_of_the_dequantised_weight(bits, torch.float32)  # nothing of it stays behind


# ---- a model ----


def test_the_layers_of_the_adapter_are_held_in_low_bits_and_the_head_never() -> None:
    model = new_model()
    names = quantise_base(model, 4, LoraConfig(["text.q_proj", "vision.fc1", "lm_head"]))
    assert len(names) == 4 and not any("lm_head" in name for name in names)
    assert {name for name, one in model.named_modules() if isinstance(one, LowBitLinear)} == set(names)
    assert low_bits(model) == 4 and low_bits(new_model()) is None


def test_all_layers_of_the_towers_can_be_but_for_parts_that_are_trained_whole() -> None:
    model = new_model()
    config = LoraConfig(["text.q_proj"], modules_to_save=["connector"])
    assert len(quantise_base(model, 8, config, towers=True)) == 12 + 14
    assert isinstance(model.model.connector.modality_projection.proj, nn.Linear)
    assert len(add_adapter(model, config).targets.adapted) == 2


@pytest.mark.parametrize(("bits", "share"), [(8, 0.51), (4, 0.27)])
def test_bytes_of_the_released_geometry(bits: int, share: float) -> None:
    """Of bfloat16's: a byte and a scale a row; half a byte and 1/64 for the absmax."""
    vision, scale, (hidden, mlp, layers, heads, kv), _, _, _ = RELEASED["2.2B v1"]
    text = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "vocab_size": 49155,
            "num_attention_heads": heads, "num_key_value_heads": kv, "pad_token_id": 2}  # fmt: skip
    config = SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale)
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config).to(torch.bfloat16)
        before = num_bytes(model)
        layer = 2 * sum(model.get_submodule(name).weight.numel() for name in quantised_names(model))
        quantise_base(model, bits, LoraConfig(["text", "vision"]))
    assert before == 2 * 2_246_272_880
    assert num_bytes(model) - (before - layer) < share * layer


def quantised_names(model: SmolVLMForConditionalGeneration) -> list[str]:
    towers = ("model.text_model.layers", "model.vision_model.encoder")
    return [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and name.startswith(towers)]


@pytest.mark.parametrize("config", [LORA, DORA], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("bits", BITS)
def test_with_an_adapter_it_answers_and_learns_as_a_plain_model_with_its_weights(bits: int, config: LoraConfig) -> None:
    low = low_model(bits, config)
    plain = plain_twin(low)
    batch = request(1, text=10, tiles=1)
    grads = []
    for model in (low, plain):
        torch.manual_seed(0)
        adapter = teach(add_adapter(model, config))
        model(**batch, labels=batch["input_ids"]).loss.backward()
        grads.append([parameter.grad for parameter in adapter.parameters()])
    torch.testing.assert_close(logits(low), logits(plain), atol=1e-4, rtol=0)
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("bits", BITS)
def test_a_new_adapter_changes_no_answer_and_its_lengths_are_those_of_the_base_in_low_bits(bits: int) -> None:
    model = low_model(bits, DORA)
    before = logits(model)
    adapter = add_adapter(model, DORA)
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=0)
    name = "model.text_model.layers.0.mlp.up_proj"
    magnitude = adapter.state_dict()[f"base_model.model.{name}.lora_magnitude_vector"]
    adapter.remove()
    torch.testing.assert_close(magnitude, model.get_submodule(name).matrix.dequantised().norm(dim=1))  # type: ignore[union-attr,operator]
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("config", [LORA, DORA], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("bits", BITS)
def test_the_bundled_model_learns_on_a_base_in_low_bits(bits: int, config: LoraConfig, recomputed: bool) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(None, dtype=torch.bfloat16)  # type: ignore[arg-type]
    quantise_base(model, bits, config)
    torch.manual_seed(0)
    adapter = add_adapter(model.train(), config)
    if recomputed:
        model.gradient_checkpointing_enable()
    frozen = {name: one.clone() for name, one in model.state_dict().items() if "lora_" not in name}
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=3e-3)
    ids = torch.randint(300, 900, (2, 24), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1, losses
    changed = [
        name for name, one in model.state_dict().items() if name in frozen and not torch.equal(one, frozen[name])
    ]
    assert [name for name in changed if not name.endswith("magnitude")] == []


def test_what_is_saved_is_what_a_plain_base_gives_and_goes_onto_one(tmp_path: Path) -> None:
    for config in (LORA, DORA):
        low = teach(add_adapter(low_model(8, config), config))
        low.save(tmp_path / "low")
        teach(add_adapter(new_model(), config)).save(tmp_path / "plain")
        headers = [read_header(tmp_path / side / "adapter_model.safetensors") for side in ("low", "plain")]
        first, second = ({key: (one.shape, one.dtype) for key, one in header.items()} for header in headers)
        assert first == second
        settings = [(tmp_path / side / "adapter_config.json").read_text() for side in ("low", "plain")]
        assert settings[0] == settings[1]
        on_plain = load_adapter(new_model(), tmp_path / "low")
        difference = (logits(on_plain.model) - logits(low.model)).abs().max() / logits(low.model).abs().max()
        assert 0 < float(difference) < 0.1  # what the base lost by its eight bits
        on_plain.merge()
        again = load_adapter(low_model(8, config), tmp_path / "low")
        assert torch.equal(logits(again.model), logits(low.model))


# ---- what is refused ----


def test_merging_into_low_bits_is_refused_and_says_where_to_merge() -> None:
    adapter = teach(add_adapter(low_model(4), LORA))
    expected = logits(adapter.model)
    with pytest.raises(InputError, match=r"held in 4 bits.*adapter\.save.*smolvlm\.load\(model, adapter=directory\)"):
        adapter.merge()
    assert torch.equal(logits(adapter.model), expected) and adapter.model.adapter is adapter


def test_a_model_in_low_bits_is_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8"):
        low_model(8).save_pretrained(tmp_path)


def test_a_part_in_low_bits_can_not_be_trained_whole() -> None:
    model = low_model(4, LoraConfig("connector"))
    with pytest.raises(InputError, match=r"model\.connector is held in low bits"):
        add_adapter(model, LoraConfig("text", modules_to_save=["connector"]))
    assert model.adapter is None and any(one.requires_grad for one in model.parameters())


@pytest.mark.parametrize(
    ("bits", "config", "error", "words"),
    [
        (3, LORA, InputError, "8 or 4 bits"),
        (4, LoraConfig("lm_head"), ConfigError, "on the head only"),
        (4, LoraConfig(["q_prj"]), ConfigError, "'q_prj' matches no linear layer"),
    ],
)
def test_what_can_not_be_held_in_low_bits_is_refused(
    bits: int, config: LoraConfig, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        quantise_base(new_model(), bits, config)


def test_it_comes_before_the_adapter_and_once() -> None:
    model = low_model(8)
    with pytest.raises(InputError, match="is in low bits already"):
        quantise_base(model, 4, LORA)
    add_adapter(model, LORA)
    with pytest.raises(InputError, match="has an adapter already"):
        quantise_base(model, 8, LORA)
