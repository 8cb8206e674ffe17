"""Sequences shared out among ranks: attention that goes round, and a whole model, equal one process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from smolvlm.errors import ConfigError
from smolvlm.model.attention import attend
from smolvlm.training import parallel, ring
from smolvlm.training.collate import Batch
from smolvlm.training.parallel import Ranks
from smolvlm.training.sequence import lengthened, part_of, sequence_group, sequence_parallel
from tests.ranks import batch_of, gradients, loss_of, run_ranks, sample, tiny_model, whole_of

TOKENS = 32
CASES: dict[str, dict[str, Any]] = {
    "a head each": {"heads": 2, "kv_heads": 2},
    "two heads to a key": {"heads": 4, "kv_heads": 2},
    "all heads to a key": {"heads": 3, "kv_heads": 1},
    "cut small": {"heads": 4, "kv_heads": 2, "at_once": 300},
    "isolated": {"heads": 4, "kv_heads": 2, "isolated": True},
    "isolated, cut small": {"heads": 4, "kv_heads": 2, "isolated": True, "at_once": 300},
    "bfloat16": {"heads": 4, "kv_heads": 2, "dtype": torch.bfloat16},
}


def tensors(heads: int, kv_heads: int, dtype: torch.dtype = torch.float32, **_: object) -> tuple[Tensor, ...]:
    """query, key, value and the gradient of what comes out, whole."""
    torch.manual_seed(3)
    shapes = [(2, count, TOKENS, 8) for count in (heads, kv_heads, kv_heads, heads)]
    return tuple(torch.randn(shape).to(dtype) for shape in shapes)


def samples_and_branches() -> tuple[Tensor, Tensor]:
    """(2, tokens) each: two samples, the second with two branches, and padding; one sample with three branches."""
    sample = torch.tensor([[0] * 9 + [1] * 17 + [-1] * 6, [0] * TOKENS])
    branch = torch.tensor(
        [[0] * 4 + [1] * 5 + [0] * 6 + [1] * 5 + [2] * 6 + [0] * 6, [0] * 11 + [1] * 7 + [2] * 7 + [3] * 7]
    )
    return sample, branch


def attend_around() -> dict[str, list[Any]]:
    """On a rank: what comes out, and the gradients of query, key and value, whole again; and its neighbours."""
    group, rank, ranks = dist.group.WORLD, dist.get_rank(), dist.get_world_size()
    assert group is not None
    neighbours, own = sequence_group(Ranks(rank, ranks), 2)
    found: dict[str, list[Any]] = {"group": [dist.get_process_group_ranks(neighbours), own.rank, own.ranks]}
    for name, case in CASES.items():
        ring.SCORES_AT_ONCE = case.get("at_once", 2**24)
        isolation = ring.Isolation.of(*samples_and_branches(), ranks) if case.get("isolated") else None
        query, key, value, gradient = (ring.split(x, rank, ranks, dim=2) for x in tensors(**case))
        inputs = [x.requires_grad_() for x in (query, key, value)]
        out = ring.ring_attention(query, key, value, group, isolation)
        out.backward(gradient)
        found[name] = [ring.gather(x, group, dim=2) for x in (out, *(x.grad for x in inputs))]  # type: ignore[misc]
    return found


@lru_cache(maxsize=2)
def around(ranks: int) -> list[dict[str, list[Any]]]:
    return run_ranks(attend_around, ranks)


def sees(query: int, key: int, row: int) -> bool:
    sample, branch = samples_and_branches()
    same = sample[row, query] == sample[row, key]
    return bool(same and (branch[row, key] == 0 or branch[row, key] == branch[row, query]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_attention_that_goes_round_equals_one_process_forward_and_backward(ranks: int, case: str) -> None:
    query, key, value, gradient = (x.double() for x in tensors(**CASES[case]))
    inputs = [x.requires_grad_() for x in (query, key, value)]
    mask = torch.ones(2, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    if CASES[case].get("isolated"):
        pairs = [[[sees(q, k, row) for k in range(TOKENS)] for q in range(TOKENS)] for row in range(2)]
        mask &= torch.tensor(pairs)[:, None]
    groups = query.shape[1] // key.shape[1]
    out = F.scaled_dot_product_attention(
        query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), mask
    )
    out.backward(gradient)
    expected = [out.detach(), *(x.grad for x in inputs)]
    half = CASES[case].get("dtype") == torch.bfloat16
    for of_rank in around(ranks):
        for got, right in zip(of_rank[case], expected, strict=True):
            assert right is not None and got.dtype == (torch.bfloat16 if half else torch.float32)
            torch.testing.assert_close(got.double(), right, rtol=0, atol=0.05 if half else 1e-5)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_zigzag_gives_every_token_to_one_rank_and_as_many_pairs_to_each(ranks: int) -> None:
    shares = [ring.places(48, rank, ranks) for rank in range(ranks)]
    assert sorted(torch.cat(shares).tolist()) == list(range(48))
    assert len({int((share + 1).sum()) for share in shares}) == 1  # token p sees p + 1
    assert all((share.diff() > 0).all() for share in shares)


def several_branches() -> Batch:
    """A long row of two samples and a shorter one: three tiles, which two ranks can't share evenly; 113 tokens."""
    return batch_of([sample(1, tiles=2, words=40, answers=(9, 4)), sample(2, tiles=1)], sample(3, tiles=0))


def one_conversation_a_row() -> Batch:
    return batch_of(sample(4, tiles=1, words=60, answers=(11,)), sample(5, tiles=2, answers=(3,)))


BATCHES = {"several": several_branches, "one": one_conversation_a_row}


def learn_around() -> dict[str, list[Any]]:
    """On a rank: this rank's loss, and the gradients of all ranks, of each batch, with and without recomputing."""
    group = dist.group.WORLD
    assert group is not None
    found: dict[str, list[Any]] = {}
    for name, made in BATCHES.items():
        for recompute in (False, True):
            model, batch = tiny_model(), made()
            if recompute:
                model.gradient_checkpointing_enable()
            with sequence_parallel(model, group) as sequence:
                loss = sequence.answer_loss(batch, whole_of([batch]))
                loss.backward()
            parallel.add_gradients(list(model.parameters()))
            found[f"{name}, {recompute}"] = [float(loss.detach()), gradients(model)]
            left = model.model.text_model.layers[0].self_attn.implementation
            assert left == "sdpa", "the model is as it was"
    return found


@lru_cache(maxsize=1)
def learned(ranks: int) -> list[dict[str, list[Any]]]:
    return run_ranks(learn_around, ranks)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_a_model_with_a_shared_sequence_learns_what_one_process_does(name: str, recompute: bool) -> None:
    model, batch = tiny_model(), BATCHES[name]()
    loss = loss_of(model, batch, whole_of([batch]))
    loss.backward()
    of_ranks = [of_rank[f"{name}, {recompute}"] for of_rank in learned(2)]
    assert sum(part for part, _ in of_ranks) == pytest.approx(float(loss.detach()), abs=1e-5)
    assert all(part > 0.1 for part, _ in of_ranks), "both have a share of the targets"
    for _, found in of_ranks:
        for key, right in gradients(model).items():
            torch.testing.assert_close(found[key], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_of_a_batch_hold_every_token_and_target_once_and_the_next_token_still_follows(ranks: int) -> None:
    batch = several_branches()
    longer = lengthened(batch, 2 * ranks, filler=0)
    assert longer.input_ids.shape[1] % (2 * ranks) == 0 and longer.tokens == batch.tokens
    parts = [part_of(longer, rank, ranks) for rank in range(ranks)]
    assert sum(part.tokens for part in parts) == batch.tokens

    def pairs(of: Batch) -> list[tuple[int, ...]]:
        """(token that predicts, its position, token said, turn, branch of the batch) of each target."""
        ids, positions = of.input_ids.flatten()[of.place], of.position_ids.flatten()[of.place]
        return list(zip(*(x.tolist() for x in (ids, positions, of.target, of.turn, of.talk)), strict=True))

    assert sorted(pair for part in parts for pair in pairs(part)) == sorted(pairs(batch))


def test_an_attention_of_its_own_takes_no_mask() -> None:
    query, key, value = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    out, weights = attend(query, key, value, None, causal=True, implementation=lambda q, k, v: q * 2)
    assert weights is None and torch.equal(out, (query * 2).transpose(1, 2).flatten(2))
    with pytest.raises(AssertionError):
        mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
        attend(query, key, value, mask, causal=False, implementation=lambda q, k, v: q)


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="among 3 of 4 processes"):
        sequence_group(Ranks(0, 4), 3)
    with (
        pytest.raises(ConfigError, match=r"attention_dropout=0\.1"),
        sequence_parallel(tiny_model(attention_dropout=0.1), None),  # type: ignore[arg-type]
    ):
        pass


def test_neighbours_share_sequences_and_groups_share_samples() -> None:
    groups = [of_rank["group"] for of_rank in around(4)]
    assert groups == [[[0, 1], 0, 2], [[0, 1], 0, 2], [[2, 3], 1, 2], [[2, 3], 1, 2]]
