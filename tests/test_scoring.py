"""Probabilities of given continuations, against whole forwards of the prompt with each continuation behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smolvlm.generation.engine import Engine, run
from smolvlm.generation.scoring import Spelling, begin_differently, requests_for, scores_from
from smolvlm.runtimes.torch import TorchMotor
from tests.tiny_batches import Batch, request, tiny_model

PROMPT = request(1, 12, tiles=2)


def by_forward(batch: Batch, spelling: Spelling) -> float:
    """exp of the sum of log probabilities, from one uncached forward over prompt and spelling."""
    ids = torch.cat([batch["input_ids"], torch.tensor([spelling])], dim=1)
    with torch.inference_mode():
        logits = tiny_model()(**{**batch, "input_ids": ids}, use_cache=False).logits[0].double()
    start = batch["input_ids"].shape[1] - 1
    logs = [logits[start + place].log_softmax(-1)[token_id] for place, token_id in enumerate(spelling)]
    return math.exp(sum(logs))


def scores(choices: list[list[Spelling]]) -> list[float]:
    motor = TorchMotor(tiny_model())
    pictures = motor.encode(PROMPT["pixel_values"][0].numpy()).flatten(0, 1)
    engine = Engine(motor, memory_bytes=2**30)
    read = [engine.submit(one) for one in requests_for(PROMPT["input_ids"][0].numpy(), pictures, choices)]
    run(engine, read)
    return [math.exp(score) for score in scores_from(read, choices)]


def test_choices_that_begin_differently_take_one_prompt_and_their_first_tokens() -> None:
    choices: list[list[Spelling]] = [[(20,), (21, 5)], [(30, 7)]]
    assert len(requests_for(np.arange(10), None, choices)) == 1
    expected = [by_forward(PROMPT, (20,)) + by_forward(PROMPT, (21,)), by_forward(PROMPT, (30,))]
    assert scores(choices) == pytest.approx(expected, rel=1e-4)


def test_choices_that_share_their_beginning_are_scored_whole() -> None:
    choices = [[(20, 5, 6), (40,)], [(20, 5, 7)], [(20, 9)]]
    expected = [sum(by_forward(PROMPT, spelling) for spelling in spellings) for spellings in choices]
    assert scores(choices) == pytest.approx(expected, rel=1e-4)


def test_many_choices_are_scored_as_few() -> None:
    choices = [[(20, 100 + index)] for index in range(20)]
    expected = [by_forward(PROMPT, spellings[0]) for spellings in choices]
    assert scores(choices) == pytest.approx(expected, rel=1e-4)


def test_every_first_token_together_has_probability_one() -> None:
    size = tiny_model().config.text_config.vocab_size
    assert sum(scores([[(index,)] for index in range(size)])) == pytest.approx(1, abs=1e-5)


def test_a_shared_first_token_is_noticed_across_all_spellings() -> None:
    assert begin_differently([[(1, 2), (1, 3)], [(4,)]])
    assert not begin_differently([[(1, 2), (5,)], [(4,), (5, 6)]])
