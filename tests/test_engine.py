"""The engine: requests that come, go and share a motor get the answers of the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.errors import BusyError, InputError, MemoryBudgetError
from smolvlm.generation.engine import TOKENS_A_STEP, Engine, run
from smolvlm.generation.generate import generate
from smolvlm.generation.lookup import Lookup
from smolvlm.generation.scheduler import Generation
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Motor, Slot, Span
from smolvlm.runtimes.native import NativeMotor
from smolvlm.runtimes.onnx import OnnxMotor
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint, tiny_token_ids
from tests.tiny_batches import tiny_model

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")


@pytest.fixture(scope="module")
def motor(tmp_path_factory: pytest.TempPathFactory) -> NativeMotor:
    return NativeMotor(tiny_checkpoint(tmp_path_factory.mktemp("engine")), "float32", threads=1)


@pytest.fixture(scope="module", params=["native", "torch", "onnx"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Motor:
    directory = tiny_checkpoint(tmp_path_factory.mktemp("either"))
    if request.param == "native":
        return NativeMotor(directory, "float32", threads=1)
    if request.param == "onnx":
        return OnnxMotor(directory, "float32", threads=1)
    return TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(directory))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("plain")))


asked = st.tuples(
    st.integers(0, 2) | st.integers(0, 10**6),  # seed of prompt and pixels: often the same
    st.integers(1, 60),  # text tokens
    st.integers(0, 2),  # tiles
    st.integers(1, 8),  # new tokens
    st.sampled_from([0.0, 0.9]),  # temperature
    st.integers(0, 12),  # the step it comes at
    st.one_of(st.none(), st.integers(0, 6)),  # cancelled so many steps later
)


@settings(max_examples=25)
@given(
    requests=st.lists(asked, min_size=1, max_size=6),
    piece=st.sampled_from([7, 40, TOKENS_A_STEP]),
    memory=st.sampled_from([2, 3, 5, 1000]),
    lookup=st.sampled_from([0, 5]),
)
def test_requests_that_come_and_go_get_the_answers_of_the_plain_loop(
    either: Motor,
    plain: SmolVLMForConditionalGeneration,
    requests: list[tuple],
    piece: int,
    memory: int,
    lookup: int,
) -> None:
    engine = Engine(
        either,
        memory_bytes=memory * either.slot_bytes(64),
        tokens_a_step=piece,
        most_running=3,
        lookup_tokens=lookup,
    )
    generations: list[Generation] = []
    step = 0
    while step <= 20 or engine.busy:
        for number, (seed, text, tiles, count, temperature, start, _) in enumerate(requests):
            if start == step:
                ids, pixels = prompt(seed, text, tiles)
                pictures = either.encode(pixels).reshape(-1, 64) if tiles else None
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
    """Of the same seed: the same tiles, and the same words as far as they go."""
    words = np.random.default_rng(seed).integers(10, 500, text)
    image = np.full(16 * tiles, tiny_token_ids()["<image>"])
    pixels = np.random.default_rng(seed).uniform(-1, 1, (tiles, 3, 32, 32)).astype(np.float32)
    return np.concatenate([words[:1], image, words[1:]]), pixels


def ask(motor: NativeMotor, seed: int, text: int, tiles: int, **options: object) -> Generation:
    ids, pixels = prompt(seed, text, tiles)
    pictures = motor.encode(pixels).reshape(-1, 64) if tiles else None
    return Generation(ids, pictures, SamplingParams(max_new_tokens=4), (), **options)  # type: ignore[arg-type]


class Counting:
    """A motor that counts the tokens it reads."""

    def __init__(self, motor: NativeMotor) -> None:
        self._motor = motor
        self.read = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._motor, name)

    def forward(self, spans: list, wanted: list[int]) -> np.ndarray:
        self.read += sum(len(span.ids) for span in spans)
        return self._motor.forward(spans, wanted)


@pytest.fixture
def counting(motor: NativeMotor) -> Counting:
    return Counting(motor)


def new_engine(motor: object, **options: int) -> Engine:
    return Engine(motor, **{"memory_bytes": 2**30} | options)  # type: ignore[arg-type]


def test_the_next_question_about_a_picture_reads_only_its_own_tokens(counting: Counting, motor: NativeMotor) -> None:
    engine = new_engine(counting)
    first, second = ask(motor, 1, 40, 2), ask(motor, 1, 44, 2)
    run(engine, [engine.submit(first)])
    before = counting.read
    run(engine, [engine.submit(second)])
    assert second.cached_tokens == len(first.prompt_ids)  # all of it: the second prompt goes on where the first ends
    assert counting.read - before == len(second.prompt_ids) - second.cached_tokens + 3  # the last token is never read
    alone = ask(motor, 1, 44, 2)
    other = new_engine(motor)
    run(other, [other.submit(alone)])
    assert second.token_ids == alone.token_ids


def test_another_picture_shares_nothing_behind_it(counting: Counting, motor: NativeMotor) -> None:
    engine = new_engine(counting)
    run(engine, [engine.submit(ask(motor, 1, 40, 2))])
    ids, _ = prompt(1, 40, 2)
    other = Generation(ids, motor.encode(prompt(2, 40, 2)[1]).reshape(-1, 64), SamplingParams(max_new_tokens=4), ())
    run(engine, [engine.submit(other)])
    assert other.cached_tokens == 0


def test_questions_that_come_together_read_their_common_picture_once(counting: Counting, motor: NativeMotor) -> None:
    engine = new_engine(counting, tokens_a_step=20)
    asked = [engine.submit(ask(motor, 1, 40 + extra, 2)) for extra in (0, 3, 6)]
    run(engine, asked)
    assert [one.cached_tokens for one in asked] == [0, 72, 75]
    assert counting.read == 78 + 3 * 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_nothing(motor: NativeMotor, plain: SmolVLMForConditionalGeneration, temperature: float) -> None:
    ids = np.tile(np.random.default_rng(0).integers(10, 500, 6), 4)
    params = SamplingParams(max_new_tokens=60, temperature=temperature, top_k=2, seed=1)
    (expected,) = generate(plain, {"input_ids": torch.from_numpy(ids)[None]}, params, eos_token_ids=())
    engine = new_engine(motor, lookup_tokens=8)
    request = engine.submit(Generation(ids, None, params, ()))
    run(engine, [request])
    assert tuple(request.token_ids) == expected.token_ids


class Parrot(Counting):
    """A model that says again what was said six tokens before, and `off` instead of every 20th token."""

    def open(self, tokens: int) -> Slot:
        return Slot(tokens, np.zeros(tokens, np.int64))

    def forward(self, spans: list, wanted: list[int]) -> np.ndarray:
        rows = []
        for span in spans:
            start, end = span.slot.length, span.slot.length + len(span.ids)
            span.slot.memory[start:end] = span.ids
            span.slot.length = end
            rows += range(start, end)
        memory = spans[0].slot.memory
        logits = np.zeros((len(wanted), 600), np.float32)
        for row, place in enumerate(wanted):
            at = rows[place] + 1
            logits[row, memory[at - 6] if at % 20 else 599] = 1
        return logits


@pytest.mark.parametrize("end", [None, 15])
def test_right_guesses_save_steps(motor: NativeMotor, end: int | None) -> None:
    ids = np.tile([11, 12, 13, 14, 15, 16], 3)
    found, steps = [], []
    for most in (0, 8):
        engine = new_engine(Parrot(motor), lookup_tokens=most)
        request = Generation(ids, None, SamplingParams(max_new_tokens=100), () if end is None else (end,))
        engine.submit(request)
        steps.append(0)
        while not request.ended:
            engine.step()
            steps[-1] += 1
        found.append((request.token_ids, request.finish_reason))
    assert found[0] == found[1]
    assert found[0][1] == ("length" if end is None else "stop")
    assert steps[1] < (40 if end is None else steps[0])


def test_lookup_guesses_what_followed_before() -> None:
    lookup = Lookup(np.array([1, 2, 3, 4, 99, 1, 2, 3]), most=8, never=(99,))
    assert lookup.guess() == [4]  # up to a token that is never guessed
    lookup.add([4, 7, 8, 9, 1, 2, 3, 4])
    assert lookup.guess() == [7, 8, 9]
    lookup.learn(3, 3)
    assert lookup.guess() == [7, 8, 9, 1, 2, 3]
    lookup.learn(6, 2)
    assert lookup.guess() == [7, 8, 9]
    lookup.add([5])
    assert lookup.guess() == []


def test_prefixes_go_when_there_is_no_room_for_them(motor: NativeMotor) -> None:
    engine = new_engine(motor, memory_bytes=motor.slot_bytes(64) * 4)
    run(engine, [engine.submit(ask(motor, 1, 40, 2))])
    assert engine.scheduler.prefixes.num_bytes == motor.slot_bytes(128)
    big = ask(motor, 2, 150, 0)
    run(engine, [engine.submit(big)])
    assert len(big.token_ids) == 4 and engine.scheduler.prefixes.num_bytes == motor.slot_bytes(192)
    engine = new_engine(motor, prefix_bytes=0)
    run(engine, [engine.submit(ask(motor, 1, 40, 2))])
    assert not engine.scheduler.prefixes.prefixes


def test_what_can_never_fit_and_what_is_too_much_is_refused(motor: NativeMotor) -> None:
    engine = new_engine(motor, memory_bytes=motor.slot_bytes(64), most_waiting=2)
    with pytest.raises(MemoryBudgetError, match=r"103 tokens of prompt and answer need \d+ MiB"):
        engine.submit(ask(motor, 1, 100, 0))
    waiting = [engine.submit(ask(motor, 1, 10, 0)) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests are waiting"):
        engine.submit(ask(motor, 1, 10, 0))
    run(engine, waiting)
    engine.submit(ask(motor, 1, 10, 0))


def test_logits_of_a_prompt_are_kept_from_a_place_on(
    motor: NativeMotor, plain: SmolVLMForConditionalGeneration
) -> None:
    engine = new_engine(motor, tokens_a_step=11)
    asked = [ask(motor, 3, 50, 0, keep_logits=place) for place in (49, 45, 20)]
    for one in asked:
        engine.submit(one)
    run(engine, asked)
    with torch.inference_mode():
        expected = plain(torch.from_numpy(prompt(3, 50, 0)[0])[None]).logits[0].numpy()
    for one, place in zip(asked, (49, 45, 20), strict=True):
        np.testing.assert_allclose(np.stack(one.logits), expected[place:], rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_prompt_without_its_pictures_features_is_refused(motor: NativeMotor) -> None:
    ids, _ = prompt(0, 5, 2)
    with pytest.raises(InputError, match="32 image tokens, its pictures give 16 features"):
        new_engine(motor).submit(Generation(ids, np.zeros((16, 64), np.float32), SamplingParams(), ()))


def test_the_torch_motor_copies_prefixes_and_gives_rows_back() -> None:
    motor = TorchMotor(tiny_model())
    ids = np.random.default_rng(0).integers(10, 500, 60)
    source = motor.open(60)
    motor.forward([Span(source, ids[:50])], [])
    target = motor.open(700)
    motor.copy_prefix(source, target, 40)
    source.length = 40
    expected = motor.forward([Span(source, ids[40:45])], [4])
    np.testing.assert_allclose(motor.forward([Span(target, ids[40:45])], [4]), expected, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="can't be copied"):
        motor.copy_prefix(source, target, 1)
    with pytest.raises(InputError, match="slot of 256"):
        motor.forward([Span(source, np.zeros(300, np.int64))], [])
    slots = [motor.open(60) for _ in range(5)]
    slab = slots[0].memory.slab
    rows = len(slab.keys[0])
    del slots
    again = [motor.open(60) for _ in range(5)]
    assert len(slab.keys[0]) == rows and len({slot.memory.row for slot in [source, *again]}) == 6


def test_the_torch_motor_reads_slots_of_many_lengths_in_one_step() -> None:
    motor = TorchMotor(tiny_model())
    rng = np.random.default_rng(0)
    slots = [motor.open(count) for count in (20, 300, 100, 90)]
    for slot, count in zip(slots, (5, 290, 1, 77), strict=True):
        motor.forward([Span(slot, rng.integers(10, 500, count))], [])
    del slots[2]  # leaves an idle row between the others
    new = rng.integers(10, 500, 3)
    together = motor.forward([Span(slot, new[at : at + 1]) for at, slot in enumerate(slots)], range(3))
    for at, slot in enumerate(slots):
        slot.length -= 1
        alone = motor.forward([Span(slot, new[at : at + 1])], [0])
        np.testing.assert_allclose(together[at], alone[0], rtol=0, atol=1e-5 * np.abs(alone).max())
