"""Losses of training: packed rows equal separate ones, preferences start at ln 2, rewards move the policy."""

from __future__ import annotations

import copy
import dataclasses
import math
from contextlib import nullcontext
from functools import lru_cache
from random import Random

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from smolvlm.errors import ConfigError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.place import planned_for_gpu
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.scenes import draw
from smolvlm.training import objectives
from smolvlm.training.collate import batches_of, collate
from smolvlm.training.data import Encoded, Encoder, Pair, Place, Sample, Source
from smolvlm.training.data.sample import Row, make_sample
from smolvlm.training.halves import weights_in_half
from smolvlm.training.objectives import (
    Trainee,
    answer_loss,
    logits_of,
    pair_losses,
    policy_loss,
    preference_loss,
    preferred,
    said_by,
)
from smolvlm.training.recipe import Preference, Recipe, Reinforcement
from smolvlm.training.rewards import REWARDS, reward_named
from smolvlm.training.rollouts import advantages, roll_out
from smolvlm.training.run import sample_maker
from smolvlm.training.samples import Sample as Branches
from smolvlm.training.steps import as_sample


@lru_cache(maxsize=1)
def nano() -> tuple[SmolVLMForConditionalGeneration, SmolVLMProcessor]:
    return SmolVLMForConditionalGeneration.from_pretrained("nano"), SmolVLMProcessor.from_pretrained("nano")


def trainee(**options: object) -> Trainee:
    return Trainee(copy.deepcopy(nano()[0]), torch.float32, **options)  # type: ignore[arg-type]


def drawn(count: int = 6) -> list[Branches]:
    maker = sample_maker(nano()[1], 16)
    skills = ("scene", "read", "pair", "video", "text", "chart")
    return [maker.make(draw(skills[index % 6], 5, index), Random(index)) for index in range(count)]


def talk(question: str, *answers: str, picture: str | None = "red") -> Encoded | Pair:
    content: list[dict[str, object]] = [{"type": "text", "text": question}]
    if picture:
        content.insert(0, {"type": "image", "image": Image.new("RGB", (40, 30), picture)})
    asked = {"role": "user", "content": content}
    said = [[{"role": "assistant", "content": [{"type": "text", "text": answer}]}] for answer in answers]
    row = Row({}, Place("test", 0))
    sample: Sample = make_sample(row, [asked], *said) if len(said) == 2 else make_sample(row, [asked, *said[0]])
    return Encoder(nano()[1])(sample)


@torch.inference_mode()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_packed_rows_give_the_logits_of_separate_ones(implementation: str) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained("nano", attn_implementation=implementation)
    samples = drawn()
    (packed,) = batches_of(samples, 2, 1000, 1_000_000, pack=True)
    assert len(packed.input_ids) < len(samples)
    alone = {id(sample): logits_of(model, collate([sample], 2)) for sample in samples}
    together = logits_of(model, packed)
    rows = rows_of(samples, packed.input_ids.shape[1])
    expected = torch.cat([alone[id(sample)] for row in rows for sample in row])
    torch.testing.assert_close(together, expected, rtol=0, atol=2e-4)


def rows_of(samples: list[Branches], capacity: int) -> list[list[Branches]]:
    """First fit, the longest first, written again."""
    rows: list[list[Branches]] = []
    for sample in sorted(samples, key=lambda sample: sample.length, reverse=True):
        for row in rows:
            if sum(one.length for one in row) + sample.length <= capacity:
                row.append(sample)
                break
        else:
            rows.append([sample])
    return rows


def test_positions_start_anew_in_every_sample_of_a_row() -> None:
    samples = drawn(2)
    batch = collate([samples], 2)
    starts = [int((batch.sample[0] == number).nonzero()[0]) for number in (0, 1)]
    assert [int(batch.position_ids[0, start]) for start in starts] == [0, 0]
    assert not batch.attention_mask()[0, 0, starts[1] :, : starts[1]].any()


def test_packing_loses_no_sample_and_keeps_the_limits() -> None:
    samples = [dataclasses.replace(sample, name=str(number)) for number, sample in enumerate(drawn(24))]
    batches = list(batches_of(samples, 2, 12, 900, pack=True))
    assert sorted(int(name) for batch in batches for name in batch.names) == list(range(24))
    for batch in batches:
        assert batch.input_ids.numel() <= 900 or len(batch.input_ids) == 1
        assert len(batch.tiles) <= 12 or len(batch.names) == 1
    padded = sum(batch.input_ids.numel() for batch in batches_of(samples, 2, 12, 900, pack=False))
    assert sum(batch.input_ids.numel() for batch in batches) <= padded


def test_how_a_step_is_cut_changes_no_gradient() -> None:
    samples, found = drawn(), []
    for tiles, tokens, pack in ((1000, 100_000, True), (1, 1, False), (6, 1200, True)):
        one = trainee()
        batches = list(batches_of(samples, 2, tiles, tokens, pack=pack, even_answers=0.5))
        whole = sum(float(batch.weight.sum()) for batch in batches)
        for batch in batches:
            answer_loss(one, batch, whole).backward()
        found.append([parameter.grad for parameter in one.model.parameters()])
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)


def test_the_loss_of_many_answers_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = collate(drawn(), 2), []
    for most in (2**24, 7 * 1024):
        monkeypatch.setattr(objectives, "LOGITS_AT_ONCE", most)
        one = trainee()
        loss = answer_loss(one, batch, 1.0)
        loss.backward()
        found.append((loss, one.model.lm_head.weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_the_way_of_a_gpu_gives_the_same_loss_and_gradients() -> None:
    """Fused norms, one mask for all layers, all weights cast at once: on a CPU's tensors.

    In bfloat16 it may be as far from float32's gradient as the way of a CPU is, and half as far again.
    """
    batch, losses, gradients = collate(drawn(), 2), {}, {}
    recipe = Recipe("way", 1, start="nano", data=(Source("none"),))
    for compute in (torch.float32, torch.bfloat16):
        for way in (nullcontext, planned_for_gpu):
            one = Trainee(trainee().model, compute)
            with way():
                loss = objectives.loss_of(one, recipe)(batch, 100.0, 0.0)
                loss.backward()
            learned = [value.grad.flatten() for value in one.model.parameters() if value.grad is not None]
            losses[compute, way], gradients[compute, way] = float(loss.detach()), torch.cat(learned)
    exact = gradients[torch.float32, nullcontext]
    away = {key: float((gradient - exact).norm() / exact.norm()) for key, gradient in gradients.items()}
    assert away[torch.float32, planned_for_gpu] < 1e-4
    assert away[torch.bfloat16, planned_for_gpu] < 1.5 * away[torch.bfloat16, nullcontext] < 0.1
    assert losses[torch.float32, planned_for_gpu] == pytest.approx(losses[torch.float32, nullcontext], rel=1e-5)
    assert losses[torch.bfloat16, planned_for_gpu] == pytest.approx(losses[torch.float32, nullcontext], rel=0.05)


def test_weights_cast_at_once_are_autocasts_and_go_back_where_they_were() -> None:
    one, batch = Trainee(trainee().model, torch.bfloat16), collate(drawn(), 2)
    names, found = list(one.model.state_dict()), []
    for cast in (nullcontext(), weights_in_half(one.model)):
        with objectives.autocast(one, batch), cast:
            loss = answer_loss(one, batch, 100.0)
        loss.backward()
        found.append([value.grad for value in one.model.parameters()])
        one.model.zero_grad()
    assert list(one.model.state_dict()) == names
    for first, second in zip(*found, strict=True):
        assert (first is None and second is None) or torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_likelihoods_and_their_gradient_are_those_of_cross_entropy(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "FLOATS_AT_ONCE", 3 * 500)  # three rows at a time
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(11, 500, generator=generator)).to(dtype)
    target, weight = torch.randint(500, (11,), generator=generator), torch.randn(11, generator=generator)
    found = []
    for likelihood in (
        objectives.TargetLikelihood.apply,
        lambda given, wanted: -F.cross_entropy(given.float(), wanted, reduction="none"),
    ):
        given = logits.clone().requires_grad_()
        said = likelihood(given, target)
        (said * weight).sum().backward()
        found.append((said.detach(), given.grad))
    # sums of 500 numbers in another order; the gradient is then rounded to the logits' dtype
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=max(1e-5, torch.finfo(dtype).eps), atol=1e-6)


def test_a_pair_shares_its_question_and_is_scored_as_two_conversations() -> None:
    pair = talk("What colour is it?", "red", "a blue square")
    assert isinstance(pair, Pair)
    sample = as_sample(pair)
    assert len(sample.branches) == 2 and len(sample.tiles) == 1
    batch = collate([sample], 2)
    scores = batch.per_talk(said_by(nano()[0], batch))
    for one, score in zip((pair.chosen, pair.rejected), scores, strict=True):
        ids = torch.from_numpy(one.ids)[None]
        pixels = torch.from_numpy(one.tiles).permute(0, 3, 1, 2).float()[None] / 127.5 - 1
        logits = nano()[0](ids, pixel_values=pixels).logits[0, :-1]
        losses = F.cross_entropy(logits, ids[0, 1:], reduction="none")
        expected = -(losses * torch.from_numpy(one.learned[1:])).sum()
        torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-4)


def test_preference_training_starts_at_ln_2_and_comes_to_prefer_the_better() -> None:
    pairs = [talk("What colour is it?", word, "I will not say.", picture=word) for word in ("red", "blue", "green")]
    batch = collate([as_sample(pair) for pair in pairs], 2)
    one = trainee(reference=copy.deepcopy(nano()[0]))
    first = preference_loss(one, batch, Preference()) / 3
    assert first.item() == pytest.approx(math.log(2), abs=1e-4)
    optimiser = torch.optim.AdamW(one.model.parameters(), lr=1e-4)
    for _ in range(5):
        loss = preference_loss(one, batch, Preference()) / 3
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < first.item() and preferred(one, batch).all()


def test_the_better_answer_can_be_learned_beside_its_preference() -> None:
    pairs = [talk("What colour is it?", words, "I will not say.") for words in ("red", "blue and black")]
    one = trainee(reference=copy.deepcopy(nano()[0]))
    both = [as_sample(pair) for pair in pairs]
    beside = preference_loss(one, collate(both, 2), Preference(sft=0.5)) - preference_loss(
        one, collate(both, 2), Preference()
    )
    better = [collate([as_sample(pair.chosen)], 2) for pair in pairs if isinstance(pair, Pair)]
    expected = 0.5 * sum(answer_loss(one, batch, float(batch.weight.sum())) for batch in better)
    torch.testing.assert_close(beside, expected, rtol=1e-4, atol=1e-4)


def test_preference_losses_are_those_of_the_papers() -> None:
    delta = torch.tensor([0.3, -2.0])
    torch.testing.assert_close(pair_losses(delta, Preference(beta=0.5)), -torch.log(torch.sigmoid(0.5 * delta)))
    smooth = Preference(beta=0.5, label_smoothing=0.1)
    expected = -0.9 * torch.log(torch.sigmoid(0.5 * delta)) - 0.1 * torch.log(torch.sigmoid(-0.5 * delta))
    torch.testing.assert_close(pair_losses(delta, smooth), expected)
    torch.testing.assert_close(pair_losses(delta, Preference(beta=0.5, kind="ipo")), (delta - 1) ** 2)


def test_a_group_of_answers_reads_the_question_once_and_is_the_same_for_the_same_key() -> None:
    model, processor = nano()
    question = talk("What colour is it?", "red")
    assert isinstance(question, Encoded)
    settings = Reinforcement("exact", group=4, max_new_tokens=6, temperature=2.0)
    first, again, other = (
        roll_out(model, processor.tokenizer, question, settings, REWARDS["exact"], *key) for key in ((1,), (1,), (2,))
    )
    assert first.sample.branches == again.sample.branches != other.sample.branches
    assert first.sample.prefix == tuple(question.ids[: int(question.learned.argmax())]) and len(first.sample.tiles) == 1
    assert sum(branch.weight for branch in first.sample.branches) == pytest.approx(0, abs=1e-6)
    assert not model.training


def test_advantages_are_standard_scores_and_nothing_where_all_earn_the_same() -> None:
    assert advantages([1.0, 1.0, 1.0]) == [0, 0, 0]
    found = advantages([1.0, 0.0, 0.0, 1.0])
    assert found == pytest.approx([1, -1, -1, 1], abs=1e-3)


def test_the_policy_loss_makes_what_earned_more_likelier_and_is_clipped() -> None:
    batch = collate([as_sample(talk("What?", "red", "blue"))], 2)
    batch.weight = torch.where(batch.talk == 0, 1.0, -1.0)
    old = torch.full_like(batch.weight, -2.0)
    said = old.clone().requires_grad_(True)
    settings = Reinforcement("exact", clip_ratio=0.2)
    policy_loss(said, old, None, batch, settings).backward()
    assert (said.grad == -batch.weight).all()
    far = (old + torch.where(batch.talk == 0, 1.0, -1.0)).requires_grad_(True)  # beyond 1 + 0.2 and 1 - 0.2
    policy_loss(far, old, None, batch, settings).backward()
    assert not far.grad.any()
    kl = policy_loss(old, old, old - 0.5, batch, dataclasses.replace(settings, kl=1.0))
    plain = policy_loss(old, old, None, batch, settings)
    assert (kl - plain).item() == pytest.approx(len(old) * (math.exp(-0.5) + 0.5 - 1), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "answer", "expected", "earned"),
    [
        ("exact", " Red. ", "red", 1.0), ("exact", "red one", "red", 0.0), ("contains", "A red circle", "red", 1.0),
        ("contains", "reddish", "red", 0.0), ("number", "I see 3 of 4", "4", 1.0), ("number", "5", "4", 0.5),
        ("number", "none", "4", 0.0), ("brief", "it is red", "red", 0.8), ("brief", "blue", "red", 0.0),
    ],
)  # fmt: skip
def test_rewards(name: str, answer: str, expected: str, earned: float) -> None:
    assert REWARDS[name](answer, expected) == pytest.approx(earned)


def test_a_reward_of_your_own_is_found_by_module_and_name() -> None:
    assert reward_named("math:copysign") is math.copysign
    for name in ("nothing", "math:nothing", "no.such.module:f"):
        with pytest.raises(ConfigError, match="reward"):
            reward_named(name)
