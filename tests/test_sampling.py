"""Random numbers and draws: repeatable, independent of company, and distributed as they should be."""

from __future__ import annotations

import numpy as np
import pytest

from smolvlm.errors import InputError
from smolvlm.generation.sampling import Sampler, draw, uniform
from smolvlm.types import SamplingParams


def test_the_random_number_is_numpys_philox_and_lies_in_zero_to_one() -> None:
    word = int(np.random.Philox(key=7, counter=3).random_raw())
    assert uniform(7, 3) == (word // 2**11) / 2**53
    values = np.array([uniform(seed, step) for seed in range(40) for step in range(50)])
    assert values.min() >= 0 and values.max() < 1
    assert len(np.unique(values)) == values.size
    # mean and variance of 2,000 uniform numbers: 0.5 and 1/12, within four standard errors
    assert abs(values.mean() - 0.5) < 4 * np.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 0.01


def test_draws_follow_the_probabilities() -> None:
    ids, probabilities = np.array([4, 9, 11]), np.array([0.2, 0.5, 0.3])
    drawn = np.array([draw(ids, probabilities, uniform(1, step)) for step in range(4000)])
    for token_id, share in zip(ids, probabilities, strict=True):
        assert abs((drawn == token_id).mean() - share) < 4 * np.sqrt(share * (1 - share) / drawn.size)


def test_a_point_at_the_very_end_never_draws_a_token_without_probability() -> None:
    ids, probabilities = np.array([4, 9]), np.array([0.1, 0.9])
    assert draw(ids, probabilities, 0.0) == 4
    assert draw(ids, probabilities, np.nextafter(1.0, 0.0)) == 9
    assert draw(ids, probabilities, 1.0) == 9


def test_a_seed_repeats_its_choices_and_another_seed_chooses_differently() -> None:
    logits = np.zeros((12, 100), dtype=np.float32)

    def choices(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.choose(row) for row in logits]

    assert choices(5) == choices(5)
    assert len(set(choices(5))) > 6, "every step draws anew"
    assert choices(5) != choices(6)
    assert choices(-1) == choices(-1)


def test_without_a_seed_two_requests_differ() -> None:
    logits = np.zeros(10_000, dtype=np.float32)
    first, second = (Sampler(SamplingParams(temperature=1.0)) for _ in range(2))
    assert [first.choose(logits) for _ in range(4)] != [second.choose(logits) for _ in range(4)]


def test_greedy_takes_the_first_of_equal_logits_and_leaves_them_unchanged() -> None:
    logits = np.array([1.0, 3.0, 3.0], dtype=np.float32)
    assert Sampler(SamplingParams()).choose(logits) == 1
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), prompt_ids=[1])
    assert sampler.choose(logits) == 2
    np.testing.assert_array_equal(logits, np.array([1.0, 3.0, 3.0], dtype=np.float32))


@pytest.mark.parametrize("temperature", [1e-4, 1e-6, 1e-40, 1e-300])
def test_the_coldest_temperatures_take_the_best_and_nothing_overflows(temperature: float) -> None:
    logits = np.array([-80.0, 90.0, 89.0], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert Sampler(SamplingParams(temperature=temperature, top_p=0.9, seed=0)).choose(logits) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 1.0},
     {"repetition_penalty": 0.0}, {"stop": ("",)}],
    ids=str,
)  # fmt: skip
def test_a_parameter_out_of_range_is_named_with_what_is_allowed(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.*must be"):
        SamplingParams(**wrong)  # type: ignore[arg-type]
