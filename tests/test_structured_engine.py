"""The engine under masks: with its guesses, prefixes and neighbours it writes what the plain loop writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smolvlm
from smolvlm.errors import InputError
from smolvlm.generation.engine import Engine, run
from smolvlm.generation.generate import generate
from smolvlm.generation.scheduler import Generation
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.processing import grammar as grammar_room
from smolvlm.processing.grammar import Grammars, Mask
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Motor
from smolvlm.runtimes.native import NativeMotor
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.types import OutputRule, SamplingParams
from smolvlm.vlm import VLM
from tests.test_structured import Thing
from tests.tiny import tiny_checkpoint, tiny_token_ids

pytest.importorskip("llguidance", reason="pip install 'smolvlm[structured]'")
END = tiny_token_ids()["<end_of_utterance>"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return smolvlm.load(directory)


@pytest.fixture(scope="module")
def model(directory: Path) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(directory)


@pytest.fixture(scope="module", params=["native", "torch"])
def motor(request: pytest.FixtureRequest, directory: Path) -> Motor:
    if request.param == "torch":
        return TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(directory))
    if not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    return NativeMotor(directory, "float32", threads=1)


@pytest.fixture(scope="module")
def grammars(directory: Path) -> Grammars:
    return Grammars(SmolVLMProcessor.from_pretrained(directory).tokenizer, [END], tiny_token_ids()["size"])


RULES = (
    None,
    OutputRule(json_object=True),
    OutputRule(json_schema=json.dumps(Thing.model_json_schema())),
    OutputRule(regex=r"(the \w+ ){2,40}"),
    OutputRule(choices=("yes", "no", "no picture")),
)


def mask_of(grammars: Grammars, rule: OutputRule | None) -> Mask | None:
    return None if rule is None else grammars.grammar(rule).mask()


def words(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 500, 40)


@settings(max_examples=12)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(RULES),
            st.integers(0, 2),  # which prompt: often one that was read before
            st.sampled_from([0.0, 1.5]),
            st.integers(0, 10),  # the step it comes at
            st.one_of(st.none(), st.integers(2, 30)),  # cancelled so many steps later
        ),
        min_size=1,
        max_size=5,
    ),
    lookup=st.sampled_from([0, 6]),
)
def test_masked_requests_that_come_and_go_get_the_answers_of_the_plain_loop(
    motor: Motor, model: SmolVLMForConditionalGeneration, grammars: Grammars, asked: list[tuple], lookup: int
) -> None:
    engine = Engine(motor, memory_bytes=2**30, tokens_a_step=30, most_running=3, lookup_tokens=lookup)
    generations: dict[int, Generation] = {}
    step = 0
    while step <= 10 or engine.busy:
        for number, (rule, seed, temperature, start, wait) in enumerate(asked):
            params = SamplingParams(max_new_tokens=40, temperature=temperature, seed=number)
            if start == step:
                new = Generation(words(seed), None, params, [END], mask=mask_of(grammars, rule))
                generations[number] = engine.submit(new)
            if wait is not None and step == start + wait and not generations[number].ended:
                generations[number].cancelled = True
        engine.step()
        step += 1
    for number, generation in generations.items():
        rule, seed, *_ = asked[number]
        (expected,) = generate(
            model, {"input_ids": torch.from_numpy(words(seed))[None]}, generation.params,
            eos_token_ids=[END], masks=[mask_of(grammars, rule)],
        )  # fmt: skip
        got = tuple(generation.token_ids)
        assert got == expected.token_ids[: len(got)]
        assert generation.cancelled or (got, generation.finish_reason) == (expected.token_ids, expected.finish_reason)


@pytest.mark.parametrize("runtime", ["native", "torch"])
def test_what_a_schema_leaves_no_choice_about_is_read_at_once(directory: Path, runtime: str) -> None:
    """Several of a native motor side by side, else one that is alone."""
    if runtime == "native" and not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    vlm = smolvlm.load(directory, runtime=runtime)
    steps, step = [0], Engine.step

    def counted(engine: Engine) -> object:
        steps[0] += 1
        return step(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", counted)
        forced = vlm.ask("Go", schema=Thing, max_new_tokens=200)
        alone = steps[0]
        both = vlm.ask_batch([{"question": "Go", "schema": Thing, "max_new_tokens": 200}] * 2)
        together = steps[0] - alone
        patch.setattr(Mask, "forced", lambda mask: [])
        plain = vlm.ask("Go", schema=Thing, max_new_tokens=200)
    assert alone < 0.7 * (steps[0] - alone - together), "most of it is names of properties"
    assert (together < 0.7 * (steps[0] - alone - together)) == (runtime == "native")
    for answer in (forced, *both):
        assert answer.token_ids == plain.token_ids and answer.finish_reason == plain.finish_reason


def test_rows_of_a_plain_batch_have_masks_of_their_own(
    model: SmolVLMForConditionalGeneration, grammars: Grammars
) -> None:
    batch = {"input_ids": torch.from_numpy(np.stack([words(0)] * len(RULES)))}
    params = SamplingParams(max_new_tokens=30, temperature=1.0, seed=0)
    together = generate(model, batch, params, eos_token_ids=[END], masks=[mask_of(grammars, rule) for rule in RULES])
    for rule, got in zip(RULES, together, strict=True):
        one = {"input_ids": batch["input_ids"][:1]}
        assert generate(model, one, params, eos_token_ids=[END], masks=[mask_of(grammars, rule)]) == [got]


class Stubborn:
    """A mask that fails at its third token."""

    complete = False
    left = 2

    def allowed(self) -> np.ndarray:
        if not self.left:
            raise InputError("It can't be followed.")
        self.left -= 1
        return np.arange(10, 20)

    def accept(self, token_id: int) -> None:
        pass

    def forced(self) -> list[int]:
        return []


def test_a_mask_that_fails_ends_its_own_request_only(model: SmolVLMForConditionalGeneration) -> None:
    engine = Engine(TorchMotor(model), memory_bytes=2**30)
    params = SamplingParams(max_new_tokens=8)
    good = [engine.submit(Generation(words(seed), None, params, ())) for seed in (0, 1)]
    bad = engine.submit(Generation(words(2), None, params, (), mask=Stubborn()))
    run(engine, good)
    assert [len(one.token_ids) for one in good] == [8, 8]
    assert isinstance(bad.failure, InputError) and len(bad.token_ids) == 2


def test_an_answer_is_not_ended_where_nothing_fits(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grammar's author sees no dead end, and llguidance would let the answer end in it."""
    monkeypatch.setattr(grammar_room, "_write", lambda rule: ("The rule", 'text: "b" "b" /[a&&b]/ | "a"'))
    mask = grammars.grammar(OutputRule(regex="a dead end")).mask()
    (letter,) = grammars._tokenizer.encode("b")
    for _ in range(2):
        assert letter in mask.allowed() and END not in mask.allowed()
        mask.accept(letter)
    with pytest.raises(InputError, match="The rule couldn't be followed .*: nothing"):
        mask.allowed()


def test_a_rule_that_grows_too_complex_is_an_error_and_made_anew(vlm: VLM) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"\(a\{1000\}\)\{1000\}' couldn't be followed .*: it has too many cases"):
            vlm.ask("Go", regex="(a{1000}){1000}", max_new_tokens=50)
    assert vlm.ask("Go", regex="(a{10}){10}", max_new_tokens=101).text == "a" * 100


def test_rules_are_made_ready_once_and_the_oldest_forgotten(grammars: Grammars) -> None:
    rule = OutputRule(choices=("once", "twice"))
    first = grammars.grammar(rule)
    assert grammars.grammar(OutputRule(choices=("once", "twice"))) is first
    for number in range(grammar_room.MOST_KEPT):
        grammars.grammar(OutputRule(choices=(f"{number}",)))
    assert grammars.grammar(rule) is not first
    assert len(grammars._kept) == grammar_room.MOST_KEPT
