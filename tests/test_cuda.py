"""On an NVIDIA GPU: recorded steps say what the plain loop says. Left out of the default run; needs the GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm import LoraConfig
from smolvlm.generation.engine import Engine, run
from smolvlm.generation.generate import generate
from smolvlm.generation.scheduler import Generation
from smolvlm.model import SmolVLMForConditionalGeneration, cuda
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.types import SamplingParams
from tests.adapted import saved_adapter
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
