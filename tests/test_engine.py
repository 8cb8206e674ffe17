"""The engine: requests that come, go and share a motor get the answers of the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.errors import InputError
from smolvlm.generation.engine import TOKENS_A_STEP, Engine, Generation
from smolvlm.generation.generate import generate
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.native import NativeMotor
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint, tiny_token_ids

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")


@pytest.fixture(scope="module")
def motor(tmp_path_factory: pytest.TempPathFactory) -> NativeMotor:
    return NativeMotor(tiny_checkpoint(tmp_path_factory.mktemp("engine")), "float32", threads=1)


@pytest.fixture(scope="module")
def plain(motor: NativeMotor, tmp_path_factory: pytest.TempPathFactory) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("plain")))


asked = st.tuples(
    st.integers(0, 10**6),  # seed of prompt and pixels
    st.integers(1, 60),  # text tokens
    st.integers(0, 2),  # tiles
    st.integers(1, 8),  # new tokens
    st.sampled_from([0.0, 0.9]),  # temperature
    st.integers(0, 12),  # the step it comes at
    st.one_of(st.none(), st.integers(0, 6)),  # cancelled so many steps later
)


@settings(max_examples=25)
@given(requests=st.lists(asked, min_size=1, max_size=6), piece=st.sampled_from([7, 40, TOKENS_A_STEP]))
def test_requests_that_come_and_go_get_the_answers_of_the_plain_loop(
    motor: NativeMotor, plain: SmolVLMForConditionalGeneration, requests: list[tuple], piece: int
) -> None:
    engine = Engine(motor, tokens_a_step=piece, most_running=3)
    generations: list[Generation] = []
    step = 0
    while step <= 20 or engine.running or engine.waiting:
        for number, (seed, text, tiles, count, temperature, start, _) in enumerate(requests):
            if start == step:
                ids, pixels = prompt(seed, text, tiles)
                pictures = motor.encode(pixels).reshape(-1, 64) if tiles else None
                how = SamplingParams(max_new_tokens=count, temperature=temperature, seed=number)
                generations.append(engine.submit(Generation(ids, pictures, how, ())))
                generations[-1].number = number  # type: ignore[attr-defined]
        for generation in generations:
            wait = requests[generation.number][6]  # type: ignore[attr-defined]
            if wait is not None and step == requests[generation.number][5] + wait and not generation.ended:  # type: ignore[attr-defined]
                generation.cancelled = True
        engine.step()
        step += 1
    assert len(generations) == len(requests)
    for generation in generations:
        seed, text, tiles, count, temperature, _, wait = requests[generation.number]  # type: ignore[attr-defined]
        ids, pixels = prompt(seed, text, tiles)
        batch = {"input_ids": torch.from_numpy(ids)[None]}
        if tiles:
            batch["pixel_values"] = torch.from_numpy(pixels)[None]
        (expected,) = generate(plain, batch, generation.params, eos_token_ids=())
        got = tuple(generation.token_ids)
        assert got == expected.token_ids[: len(got)]
        assert generation.cancelled or got == expected.token_ids
        assert wait is not None or not generation.cancelled


def prompt(seed: int, text: int, tiles: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    words = rng.integers(10, 500, text)
    image = np.full(16 * tiles, tiny_token_ids()["<image>"])
    return np.concatenate([words[:1], image, words[1:]]), rng.uniform(-1, 1, (tiles, 3, 32, 32)).astype(np.float32)


def test_a_prompt_without_its_pictures_features_is_refused(motor: NativeMotor) -> None:
    ids, _ = prompt(0, 5, 2)
    with pytest.raises(InputError, match="32 image tokens, its pictures give 16 features"):
        Engine(motor).submit(Generation(ids, np.zeros((16, 64), np.float32), SamplingParams(), ()))
