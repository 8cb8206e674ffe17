"""Which tokens may be drawn and how likely, against transformers' logits processors."""

from __future__ import annotations

import numpy as np
import pytest

from smolvlm.generation.sampling import Sampler, distribution, penalise
from smolvlm.types import SamplingParams

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.reference

VOCABULARY = 500
CASES = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 1.0, "top_k": VOCABULARY + 7},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.7, "top_p": 0.01},
    {"temperature": 1.0, "top_p": 0.999999},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.0, "min_p": 0.9999},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
]


def expected(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """(vocabulary,) probabilities after transformers' own filters in the order its generate applies them."""
    from transformers.generation import logits_process as filters

    chain = [filters.TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        chain.append(filters.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        chain.append(filters.TopPLogitsWarper(params.top_p))
    if params.min_p:
        chain.append(filters.MinPLogitsWarper(params.min_p))
    scores = torch.from_numpy(logits)[None].double()
    for warp in chain:
        scores = warp(torch.zeros(1, 0, dtype=torch.long), scores)
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("shape", ["wide", "peaked", "two equal peaks"])
def test_candidates_and_probabilities_are_the_references(options: dict[str, float], shape: str) -> None:
    logits = np.random.default_rng(3).standard_normal(VOCABULARY).astype(np.float32)
    logits *= 1 if shape == "wide" else 6
    if shape == "two equal peaks":
        logits[[17, 401]] = 30
    params = SamplingParams(**options)  # type: ignore[arg-type]
    ids, probabilities = distribution(logits, params)
    ours = np.zeros(VOCABULARY)
    ours[ids] = probabilities
    np.testing.assert_array_equal(np.flatnonzero(expected(logits, params)), ids)
    np.testing.assert_allclose(ours, expected(logits, params), atol=1e-6)


@pytest.mark.parametrize("penalty", [0.5, 1.1, 2.0])
def test_the_repetition_penalty_is_the_references(penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(4).standard_normal(VOCABULARY).astype(np.float32)
    seen = [3, 3, 77, 400]
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), torch.from_numpy(logits)[None])
    np.testing.assert_allclose(penalise(logits, np.unique(seen), penalty), theirs[0].numpy(), rtol=1e-6)


def test_greedy_choices_with_a_penalty_follow_the_reference_step_by_step() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    rng = np.random.default_rng(5)
    process = RepetitionPenaltyLogitsProcessor(1.7)
    sampler = Sampler(SamplingParams(repetition_penalty=1.7), prompt_ids=[1, 2])
    so_far = [1, 2]
    for _ in range(30):
        logits = rng.standard_normal(6).astype(np.float32)
        theirs = int(process(torch.tensor([so_far]), torch.from_numpy(logits)[None].clone()).argmax())
        assert sampler.choose(logits) == theirs
        so_far.append(theirs)
