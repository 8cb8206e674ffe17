"""Several ranks learn what one process does: gradients added up, weights shared out, numbers agreed on."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from smolvlm.errors import ConfigError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.training import parallel, sharding
from smolvlm.training.collate import Batch
from smolvlm.training.objectives import logits_of
from smolvlm.training.parallel import Ranks
from tests.ranks import batch_of, gradients, loss_of, run_ranks, sample, tiny_model, whole_of


def batches(step: int) -> list[Batch]:
    """Of all ranks. Step 0: alike. 1: only one with pictures, so that the other rank has no gradients of the tower.
    2: none has. 3: three, so that two ranks have not as many."""
    made = [
        [sample(1), sample(2, answers=(2, 7))],
        [sample(3, tiles=2), sample(4, tiles=0)],
        [sample(5, tiles=0), sample(6, tiles=0, words=30)],
        [sample(7, tiles=0, words=3), sample(8), sample(9, tiles=2)],
    ]
    return [batch_of(one) for one in made[step]]


def learn(model: SmolVLMForConditionalGeneration, mine: list[Batch], whole: float) -> float:
    """The gradients of some batches. Returns their loss."""
    total = 0.0
    for batch in mine:
        loss = sharding.within(model, loss_of, model, batch, whole)
        loss.backward()
        total += float(loss.detach())
    return total


def add_up() -> dict[str, Any]:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found: dict[str, Any] = {}
    for step in range(4):
        model, mine = tiny_model(), batches(step)[rank::ranks]
        loss = learn(model, mine, parallel.sum_over_ranks(whole_of(mine)))
        parallel.add_gradients(list(model.parameters()))
        found[f"step {step}"] = [parallel.sum_over_ranks(loss), gradients(model)]
    found["sum, most"] = [parallel.sum_over_ranks(rank + 0.5), parallel.most_over_ranks(-rank)]
    found["any"] = [parallel.any_rank(False), parallel.any_rank(rank == 1), parallel.any_rank(True)]
    other = tiny_model(seed=rank)
    parallel.same_weights(other)
    found["weights"] = dict(other.state_dict())
    parallel.barrier()
    return found


@lru_cache(maxsize=1)
def added() -> list[dict[str, Any]]:
    return run_ranks(add_up, 2)


@pytest.mark.parametrize("step", range(4))
def test_gradients_added_over_two_ranks_are_those_of_one_process(step: int) -> None:
    model = tiny_model()
    loss = learn(model, batches(step), whole_of(batches(step)))
    expected = gradients(model)
    assert all(one is not None for one in expected.values()) == (step != 2)
    for of_rank in added():
        sum_of_losses, found = of_rank[f"step {step}"]
        assert sum_of_losses == pytest.approx(loss, abs=1e-6)
        for name, right in expected.items():
            if right is None:
                assert found[name] is None, f"{name} would be decayed by an optimiser, as in no single process"
            elif step < 3:
                assert torch.equal(found[name], right), name  # two numbers added: the order is no matter
            else:
                torch.testing.assert_close(found[name], right, rtol=1e-4, atol=1e-6)


def test_ranks_agree_on_numbers_and_take_the_weights_of_the_first() -> None:
    first = tiny_model(seed=0).state_dict()
    for of_rank in added():
        assert of_rank["sum, most"] == [2.0, 0.0] and of_rank["any"] == [False, True, True]
        assert all(torch.equal(value, first[name]) for name, value in of_rank["weights"].items())


def test_buckets_hold_one_dtype_and_no_more_than_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "BUCKET", 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.bfloat16), (30, torch.bfloat16)]
    found = list(parallel._buckets(torch.zeros(size, dtype=dtype) for size, dtype in sizes))
    assert [[len(one) for one in bucket] for bucket in found] == [[4, 6], [1], [2], [30]]


def test_alone_nothing_is_initialised_and_everything_does_the_obvious(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.ranks("cpu") as own:
        assert own == Ranks(0, 1, "cpu", 0) and parallel.alone() and not dist.is_initialized()
        assert parallel.sum_over_ranks(2.5) == 2.5 and parallel.any_rank(True) and not parallel.any_rank(False)
        model, given = tiny_model(), batches(3)
        learn(model, sharding.alike(given, model.config), whole_of(given))
        before = gradients(model)
        norm = sum(float(one.double().square().sum()) for one in before.values() if one is not None) ** 0.5
        parallel.add_gradients(list(model.parameters()))
        parallel.same_weights(model)
        parallel.barrier()
        assert sharding.clip_gradients(list(model.parameters()), 1e9) == pytest.approx(norm, rel=1e-4)
        assert all(torch.equal(one, before[name]) for name, one in gradients(model).items())  # type: ignore[arg-type]
        assert sharding.full_state_dict(model).keys() == model.state_dict().keys()


def test_several_processes_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="LOCAL_RANK.*torchrun"):
        parallel.start("cpu")


LIMIT = 0.5  # of the gradient's norm, which is larger
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied, recomputed": {"tie_word_embeddings": True},
}


def made(name: str) -> SmolVLMForConditionalGeneration:
    model = tiny_model(**MODELS[name])
    if "recomputed" in name:
        model.gradient_checkpointing_enable()
    return model


def optimiser_of(model: nn.Module) -> torch.optim.Optimizer:
    """A large eps: where a gradient is all but zero, Adam's step would have the sign of a rounding error."""
    return torch.optim.AdamW(model.parameters(), lr=3e-3, eps=1e-3, weight_decay=0.1, fused=True)


def one_step(
    model: SmolVLMForConditionalGeneration, optimiser: torch.optim.Optimizer, step: int, rank: int = 0, ranks: int = 1
) -> list[float]:
    """[loss of all ranks, norm of the gradient before clipping]."""
    mine, parameters = batches(step)[rank::ranks], list(model.parameters())
    whole = parallel.sum_over_ranks(whole_of(mine))
    loss = parallel.sum_over_ranks(learn(model, sharding.alike(mine, model.config), whole))
    parallel.add_gradients(parameters)
    norm = sharding.clip_gradients(parameters, LIMIT)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return [loss, norm]


@torch.inference_mode()
def told(model: SmolVLMForConditionalGeneration) -> Tensor:
    """Logits of a sample, as an evaluation makes them."""
    return sharding.within(model.eval(), logits_of, model, batch_of(sample(11, tiles=2)))


def share_out() -> dict[str, Any]:
    """Four steps on two ranks; then a new model and optimiser take up the state before the last, and repeat it."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found: dict[str, Any] = {}
    for name in MODELS:
        model = made(name)
        numbers = sum(one.numel() for one in model.parameters())
        sharding.shard(model)
        optimiser = optimiser_of(model)
        own = sum(one.to_local().numel() for one in model.parameters())  # type: ignore[operator]
        taken, logits = [], [told(model)]
        for step in range(4):
            if step == 3:
                state = sharding.whole({"model": dict(model.named_parameters()), "optimiser": optimiser.state_dict()})
                state = copy.deepcopy(state)  # as a file has it: what isn't shared out is the optimiser's own
            taken.append(one_step(model.train(), optimiser, step, rank, ranks))
        logits.append(told(model))
        again = made(name)
        sharding.shard(again)
        resumed = optimiser_of(again)
        with torch.no_grad():
            for key, parameter in again.named_parameters():
                parameter.copy_(sharding.share_of(state["model"][key], parameter))
        sharding.load_optimiser(resumed, state["optimiser"])
        repeated = one_step(again, resumed, 3, rank, ranks)
        found[name] = {
            "steps": taken, "again": repeated, "share": own / numbers, "logits": logits,
            "weights": sharding.full_state_dict(model), "weights again": sharding.full_state_dict(again),
        }  # fmt: skip
    return found


@lru_cache(maxsize=1)
def shared_out() -> list[dict[str, Any]]:
    return run_ranks(share_out, 2)


@pytest.mark.parametrize("name", MODELS)
def test_weights_shared_out_over_two_ranks_learn_as_in_one_process(name: str) -> None:
    model = made(name)
    optimiser = optimiser_of(model)
    logits = [told(model)]
    taken = [one_step(model.train(), optimiser, step) for step in range(4)]
    logits.append(told(model))
    assert all(norm > LIMIT for _, norm in taken) and taken[-1] != taken[0]
    first, second = (of_rank[name] for of_rank in shared_out())
    for found in (first, second):
        assert found["steps"] == [pytest.approx(right, rel=1e-5) for right in taken]
        assert found["share"] == pytest.approx(0.5, abs=0.02)
        for got, right in zip(found["logits"], logits, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4)
    assert second["weights"] == {}, "only rank 0 has whole weights"
    expected = model.state_dict()
    assert first["weights"].keys() == expected.keys()
    for key, right in expected.items():
        torch.testing.assert_close(first["weights"][key], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_shared_out_weights_and_optimisers_are_saved_and_taken_up_to_the_bit(name: str) -> None:
    first = shared_out()[0][name]
    assert first["again"] == first["steps"][3]
    assert all(torch.equal(value, first["weights again"][key]) for key, value in first["weights"].items())


def evened() -> list[Any]:
    """Of each step: (pictures in each batch, numbers of the loss) after alike."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    config, found = tiny_model().config, []
    for step in range(4):
        mine = batches(step)[rank::ranks]
        same = sharding.alike(mine, config)
        assert whole_of(same) == whole_of(mine) and sum(len(one.names) for one in same) == len(mine)
        found.append([len(one.tiles) > 0 for one in same])
    return found


def test_ranks_get_as_many_batches_with_pictures_in_the_same_ones() -> None:
    expected = [[True], [True], [False], [True, True]]
    assert run_ranks(evened, 2) == [expected, expected]
