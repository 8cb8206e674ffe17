"""On an NVIDIA GPU: recorded steps say what the plain loop says, and runs learn what they learn on a CPU.

Left out of the default run; `pytest -m gpu tests/test_cuda.py` where there is one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm import LoraConfig
from smolvlm.generation.engine import Engine, run
from smolvlm.generation.generate import generate
from smolvlm.generation.scheduler import Generation
from smolvlm.model import SmolVLMForConditionalGeneration, cuda
from smolvlm.model.lowbit import LowBitMatrix
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.training.loop import train
from smolvlm.training.objectives import TargetLikelihood
from smolvlm.types import SamplingParams
from tests.adapted import saved_adapter
from tests.test_training import tiny_recipe
from tests.tiny import tiny_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.is_here(), reason="there is no NVIDIA GPU")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmolVLMForConditionalGeneration:
    directory: Path = tiny_checkpoint(tmp_path_factory.mktemp("cuda"))
    return SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32", device_map="cuda")


def test_requests_of_one_recorded_step_get_the_answers_of_the_plain_loop(
    model: SmolVLMForConditionalGeneration,
) -> None:
    engine = Engine(TorchMotor(model), memory_bytes=2**30)
    prompts = [np.random.default_rng(seed).integers(10, 60, 5 + 3 * seed) for seed in range(5)]
    params = SamplingParams(max_new_tokens=12, temperature=0.0)
    own = [engine.submit(Generation(prompt, None, params, ())) for prompt in prompts]
    run(engine, own)
    for prompt, generation in zip(prompts, own, strict=True):
        ids = torch.from_numpy(prompt)[None].to(model.device)
        assert tuple(generation.token_ids) == generate(model, {"input_ids": ids}, params, eos_token_ids=())[0].token_ids


def test_adapters_of_one_batch_have_recorded_steps_of_their_own(
    model: SmolVLMForConditionalGeneration, tmp_path: Path
) -> None:
    base, motor = tiny_checkpoint(tmp_path / "base"), TorchMotor(model)
    configs = [LoraConfig("text", r=4), LoraConfig(["q_proj"], r=2, modules_to_save=["lm_head"])]
    saved = [saved_adapter(tmp_path / str(seed), base, config, seed) for seed, config in enumerate(configs)]
    owners = [None, *(motor.load_adapter(directory) for directory in saved)] * 2
    prompts = [np.random.default_rng(seed).integers(10, 60, 5 + 3 * seed) for seed in range(len(owners))]
    params = SamplingParams(max_new_tokens=12, temperature=0.0)

    def submit(engine: Engine, number: int) -> Generation:
        return engine.submit(Generation(prompts[number], None, params, (), adapter=owners[number]))

    together = Engine(motor, memory_bytes=2**30)
    own = [submit(together, number) for number in range(len(owners))]
    run(together, own)
    for number, generation in enumerate(own):
        alone = Engine(motor, memory_bytes=2**30)
        run(alone, [expected := submit(alone, number)])
        assert generation.token_ids == expected.token_ids


def test_a_graph_repeats_its_step_with_other_values() -> None:
    with torch.inference_mode():
        one = torch.arange(4.0, device="cuda")
        graph = cuda.Graph(lambda x: x * 2 + 1, one)
        assert graph(one).tolist() == [1, 3, 5, 7]
        assert graph(one + 1).tolist() == [3, 5, 7, 9]


# ---- training --------------------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "packed, averaged": {"pack": True, "ema": 0.9},
    "made again": {"recompute": True, "probe_weight": 0.0},
    "lora": {"adapter": LoraConfig(["text", "vision", "connector"], r=4), "probe_weight": 0.0, "optimiser": "adamw"},
    "dora": {"adapter": LoraConfig("text", r=4, use_dora=True), "probe_weight": 0.0, "optimiser": "adamw"},
    "8 bits": {"adapter": LoraConfig("text", r=4), "bits": 8, "probe_weight": 0.0, "optimiser": "adamw"},
    "4 bits": {"adapter": LoraConfig("text", r=4), "bits": 4, "probe_weight": 0.0, "optimiser": "adamw"},
}


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_a_run_learns_what_it_learns_on_a_cpu(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = tiny_recipe(steps=4, compute="float32", **changes)
    for device in ("cpu", "cuda"):
        train(recipe, tmp_path / device, device=device, workers=0)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=2e-3)  # Muon is in bfloat16


def test_in_bfloat16_its_losses_are_near_those_of_float32(tmp_path: Path) -> None:
    for compute in ("float32", "bfloat16"):
        train(tiny_recipe(steps=4, compute=compute), tmp_path / compute, device="cuda", workers=0)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "float32"), rel=2e-2)


def test_a_run_that_was_stopped_goes_on_there(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4, compute="float32")
    train(recipe, tmp_path / "whole", device="cuda", workers=0)
    train(recipe, tmp_path / "cut", device="cuda", workers=0, stop=iter([False, True]).__next__)
    assert len(losses(tmp_path / "cut")) == 2
    train(recipe, tmp_path / "cut", device="cuda", workers=0)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_in_low_bits_is_the_same_there(bits: Any) -> None:
    weight = torch.randn(96, 160, generator=torch.Generator().manual_seed(bits))
    here, there = LowBitMatrix(weight, bits).dequantised(), LowBitMatrix(weight.cuda(), bits).dequantised().cpu()
    # a value between two codes may fall to either; so may the 8 bits of a block's scale of 4 bits
    assert torch.isclose(here, there, rtol=1e-5 if bits == 8 else 0.02).float().mean() > 0.995
    moved = LowBitMatrix(weight, bits).cuda().dequantised().cpu()
    torch.testing.assert_close(moved, here, rtol=1e-6, atol=0)


def test_the_likelihood_of_targets_is_cross_entropy_there() -> None:
    logits = torch.randn(700, 50_000, device="cuda", requires_grad=True)
    target = torch.randint(50_000, (700,), device="cuda")
    expected = -torch.nn.functional.cross_entropy(logits, target, reduction="none")
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    found = TargetLikelihood.apply(logits, target)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)
