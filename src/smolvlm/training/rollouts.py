"""Answers that the model itself gives, and what they earn: the material of GRPO.

A group of answers to one question is one sample: they share the question and its pictures and don't see each other, so
a question is read once, however large its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean, pstdev

import numpy as np
import torch

from ..generation.generate import generate
from ..model import SmolVLMForConditionalGeneration
from ..processing.tokenizer import SmolVLMTokenizer
from ..types import SamplingParams
from .collate import pixels_of
from .data import Encoded
from .recipe import Reinforcement
from .rewards import Reward
from .samples import Branch, Sample

EPSILON = 1e-4  # under a spread of 0, when all answers earn the same


@dataclass(frozen=True)
class Rollout:
    """A question, the group of answers as a sample whose branches weigh their advantage, and what they earned."""

    sample: Sample
    rewards: tuple[float, ...]


@torch.no_grad()
def roll_out(
    model: SmolVLMForConditionalGeneration, tokenizer: SmolVLMTokenizer, question: Encoded, settings: Reinforcement,
    reward: Reward, *key: object,
) -> Rollout:  # fmt: skip
    """Let the model answer a group of times. key: of the random numbers; the same gives the same answers."""
    prompt = question.ids[: int(question.learned.argmax())]
    expected = _text(tokenizer, question.ids[question.learned])
    answers = _answer(model, prompt, question.tiles, settings, tokenizer.eos_token_id, key)
    rewards = tuple(float(reward(_text(tokenizer, ids), expected)) for ids in answers)
    branches = tuple(
        Branch(ids, (True,) * len(ids), ("answer",), advantage)
        for ids, advantage in zip(answers, advantages(rewards), strict=True)
    )
    labels = np.zeros((len(question.tiles), 0, 3), np.int16)
    sample = Sample("group", tuple(prompt.tolist()), branches, question.tiles, labels, str(question.place))
    return Rollout(sample, rewards)


def advantages(rewards: Sequence[float]) -> list[float]:
    """How much better than its group each answer is, in standard deviations; all 0 where all earn the same."""
    mean, spread = fmean(rewards), pstdev(rewards)
    return [(one - mean) / (spread + EPSILON) for one in rewards]


def _answer(
    model: SmolVLMForConditionalGeneration, prompt: np.ndarray, tiles: np.ndarray, settings: Reinforcement,
    end: int | None, key: tuple[object, ...],
) -> list[tuple[int, ...]]:  # fmt: skip
    """Token ids of each answer, its end included."""
    device, training = model.device, model.training
    ids = torch.from_numpy(prompt).to(device).expand(settings.group, -1)  # (group, tokens)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model.eval()
    try:
        if len(tiles):
            pixels = pixels_of(torch.from_numpy(tiles).to(device))
            features = model.get_image_features(pixels[None].to(model.dtype))  # (tiles, image tokens, hidden)
            batch["image_hidden_states"] = features.repeat(settings.group, 1, 1)
        params = [
            SamplingParams(
                max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
                seed=Random(repr((*key, number))).getrandbits(63),
            )
            for number in range(settings.group)
        ]  # fmt: skip
        found = generate(model, batch, params, eos_token_ids=() if end is None else (end,))
    finally:
        model.train(training)
    return [one.token_ids for one in found]


def _text(tokenizer: SmolVLMTokenizer, ids: Sequence[int] | np.ndarray) -> str:
    kept = [int(one) for one in ids if one != tokenizer.eos_token_id]
    return tokenizer.decode(kept).strip()
