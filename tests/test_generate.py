"""The plain loop: batches, padding, cache, ends and seeds. The yardstick is the model's own forward, anew each step.

Weights are random, so greedy answers are arbitrary but clear-cut; equal means equal tokens in fp32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from smolvlm.errors import InputError
from smolvlm.generation.generate import Generated, NewToken, generate, iter_steps
from smolvlm.types import SamplingParams
from tests.tiny_batches import IMAGE_TOKENS, Batch, request, tiny_model, together

NEVER = ()  # no end token: an answer runs to its length


def answers(batch: Batch, params: Any, **options: Any) -> list[Generated]:
    return generate(tiny_model(), batch, params, **{"eos_token_ids": NEVER, **options})


def greedy_by_forward(batch: Batch, steps: int) -> tuple[int, ...]:
    """Greedy tokens by whole forwards of one unpadded prompt: no cache, no mask, no position ids."""
    ids = batch["input_ids"]
    with torch.inference_mode():
        for _ in range(steps):
            logits = tiny_model()(**{**batch, "input_ids": ids}, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return tuple(ids[0, -steps:].tolist())


REQUESTS = [request(1, 12, tiles=2), request(2, 3), request(3, 30, tiles=1), request(4, 7, tiles=3)]
GREEDY = SamplingParams(max_new_tokens=12)


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_cached_answers_equal_whole_forwards(number: int) -> None:
    (ours,) = answers(REQUESTS[number], GREEDY)
    assert ours.token_ids == greedy_by_forward(REQUESTS[number], 12)
    assert ours.finish_reason == "length"
    assert answers(REQUESTS[number], GREEDY, use_cache=False) == [ours]


def test_a_padded_batch_equals_single_calls() -> None:
    singles = [answers(item, GREEDY)[0] for item in REQUESTS]
    assert answers(together(REQUESTS), GREEDY) == singles
    assert answers(together(REQUESTS), GREEDY, use_cache=False) == singles


def test_rows_end_on_their_own_and_the_others_go_on_unchanged() -> None:
    lengths = [3, 12, 1, 7]
    params = [SamplingParams(max_new_tokens=length) for length in lengths]
    expected = [greedy_by_forward(item, length) for item, length in zip(REQUESTS, lengths, strict=True)]
    assert [row.token_ids for row in answers(together(REQUESTS), params)] == expected


def test_rows_that_ended_are_computed_no_more() -> None:
    batch_sizes = []
    hook = (
        tiny_model()
        .model.text_model.layers[0]
        .register_forward_pre_hook(lambda _, args: batch_sizes.append(args[0].shape[0]))
    )
    try:
        answers(together(REQUESTS), [SamplingParams(max_new_tokens=length) for length in (2, 2, 2, 6)])
    finally:
        hook.remove()
    assert batch_sizes == [4, 4, 1, 1, 1, 1]


def test_an_end_token_ends_its_row_and_is_the_last_of_it() -> None:
    full = greedy_by_forward(REQUESTS[0], 12)
    end = full[5]
    (ours,) = answers(REQUESTS[0], GREEDY, eos_token_ids=[end, 10**6])
    assert ours == Generated(full[: full.index(end) + 1], "stop")


def test_a_stop_check_ends_its_row_only() -> None:
    seen: list[tuple[int, int]] = []

    def third_token_of_row_one(row: int, token_id: int) -> bool:
        seen.append((row, token_id))
        return row == 1 and sum(1 for other, _ in seen if other == 1) == 3

    ours = answers(together(REQUESTS), GREEDY, stop_check=third_token_of_row_one)
    assert [(len(row.token_ids), row.finish_reason) for row in ours] == [
        (12, "length"), (3, "stop"), (12, "length"), (12, "length")
    ]  # fmt: skip
    assert [token_id for row, token_id in seen if row == 0] == list(ours[0].token_ids)


def test_on_token_sees_every_token_in_order_and_the_reason_on_the_last() -> None:
    seen: list[NewToken] = []
    (ours,) = answers(REQUESTS[1], GREEDY, on_token=seen.append)
    assert [token.token_id for token in seen] == list(ours.token_ids)
    assert [token.finish_reason for token in seen] == [None] * 11 + ["length"]


def test_samples_depend_on_the_seed_and_not_on_the_company() -> None:
    params = [SamplingParams(max_new_tokens=12, temperature=1.0, top_p=0.95, seed=seed) for seed in (7, 8, 9, 7)]
    singles = [answers(item, chosen)[0] for item, chosen in zip(REQUESTS, params, strict=True)]
    assert answers(together(REQUESTS), params) == singles
    assert answers(together(REQUESTS[::-1]), params[::-1]) == singles[::-1]
    other = SamplingParams(max_new_tokens=12, temperature=1.0, top_p=0.95, seed=10)
    assert answers(REQUESTS[0], other) != [singles[0]]


def test_padding_is_not_part_of_a_prompt_for_the_repetition_penalty() -> None:
    params = SamplingParams(max_new_tokens=12, repetition_penalty=1.8)
    singles = [answers(item, params)[0] for item in REQUESTS]
    assert singles != [answers(item, GREEDY)[0] for item in REQUESTS]
    assert answers(together(REQUESTS), params) == singles


def test_features_take_the_place_of_pixels() -> None:
    features = tiny_model().get_image_features(REQUESTS[0]["pixel_values"])
    assert features.shape == (2, IMAGE_TOKENS, 64)
    batch = {"input_ids": REQUESTS[0]["input_ids"], "image_hidden_states": features.detach()}
    assert answers(batch, GREEDY) == answers(REQUESTS[0], GREEDY)


def test_the_caller_may_stop_between_two_steps() -> None:
    steps = iter_steps(tiny_model(), REQUESTS[0], GREEDY, eos_token_ids=NEVER)
    first = next(steps)
    assert not torch.is_inference_mode_enabled(), "the caller's own torch code must not be switched"
    steps.close()
    assert [token.token_id for token in first] == list(greedy_by_forward(REQUESTS[0], 1))


def test_padding_on_the_right_is_refused_with_the_cure() -> None:
    batch = together(REQUESTS)
    with pytest.raises(InputError, match="left.*padding_side"):
        answers({**batch, "attention_mask": batch["attention_mask"].flip(1)}, GREEDY)


def test_a_wrong_number_of_params_names_both_numbers() -> None:
    with pytest.raises(InputError, match="4 rows, but 2"):
        answers(together(REQUESTS), [GREEDY, GREEDY])
