"""The desk: works of many callers share one engine, and each gets what `vlm.ask` gives. No test measures time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from smolvlm.errors import BusyError, ClosedError, InputError, MemoryBudgetError
from smolvlm.runtimes.motor import Span
from smolvlm.types import Answer, Decision, Inputs, SamplingParams
from smolvlm.vlm import VLM, load
from smolvlm.vlm.desk import Desk, Work
from tests.callers import DEMO, QUESTIONS, WAIT_S, Caller, hand_in, prepare, same, story, video, works


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load()


@pytest.fixture(scope="module")
def expected(vlm: VLM) -> list[Answer]:
    """From another VLM, so that nothing is known to the one that is tested."""
    other = load()
    return [other.ask(**asked, **params) for asked, params in QUESTIONS]  # type: ignore[arg-type]


@pytest.fixture
def desk(vlm: VLM) -> Iterator[Desk]:
    desk = Desk(vlm)
    yield desk
    desk.close()
    assert not desk.is_alive
    assert not vlm._driver._engine.busy, "nothing is left in the engine"


@pytest.fixture
def endless(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer ends by itself."""
    monkeypatch.setattr(vlm._driver, "_end_ids", frozenset())


# ---- what is answered ----


def test_works_of_many_threads_get_the_answers_of_ask(vlm: VLM, desk: Desk, expected: list[Answer]) -> None:
    three_times = [*enumerate(works(vlm))] * 3
    Random(0).shuffle(three_times)
    wrong: list[int] = []

    def call(share: list[tuple[int, Work]]) -> None:
        callers = [(number, hand_in(desk, work)[0]) for number, work in share]
        wrong.extend(number for number, caller in callers if not same(caller.answer(), expected[number]))

    threads = [threading.Thread(target=call, args=(three_times[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads) and wrong == []
    load = desk.load()
    assert (load.answered, load.failed, load.cancelled) == (len(three_times), 0, 0)
    assert load.new_tokens == 3 * sum(len(one.token_ids) for one in expected)
    assert load.prompt_tokens == 3 * sum(one.prompt_tokens for one in expected) and load.cached_tokens > 0
    assert (load.running, load.looking, load.waiting) == (0, 0, 0)


@pytest.mark.parametrize("choices", [("yes", "no"), ("a red circle", "a red square", "a blue star")])
def test_decisions_are_those_of_decide(vlm: VLM, desk: Desk, choices: tuple[str, ...]) -> None:
    asked = {"question": "Is there a circle?", "images": [DEMO / "picture.png"]}
    caller = Caller()
    desk.decide(prepare(vlm, asked), choices, caller.told.put)
    told, by_ask = caller.result(), vlm.decide(choices=choices, **asked)  # type: ignore[arg-type]
    assert isinstance(told, Decision) and told.choice == by_ask.choice
    assert told.probabilities == pytest.approx(by_ask.probabilities, abs=1e-5)
    assert told.label_mass == pytest.approx(by_ask.label_mass, abs=1e-5)
    assert told.prompt_tokens == by_ask.prompt_tokens == len(prepare(vlm, asked).input_ids)
    with pytest.raises(InputError, match="at least two"):
        desk.decide(prepare(vlm, asked), ["yes"], caller.told.put)


def test_decisions_may_have_more_choices_than_requests_may_wait(
    vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices, caller = [f"a red {number} b" for number in range(20)], Caller()
    monkeypatch.setattr(vlm._driver._engine.scheduler, "most_waiting", 100)
    assert sum(map(len, vlm._spell(choices))) > 100
    monkeypatch.setattr("smolvlm.vlm.jobs.READ_AT_ONCE", 40)
    monkeypatch.setattr("smolvlm.vlm.driver.READ_AT_ONCE", 40)
    desk.decide(prepare(vlm, {"question": "Which?"}), choices, caller.told.put)
    by_ask = vlm.decide("Which?", choices=choices)
    told = caller.result()
    assert isinstance(told, Decision) and told.choice == by_ask.choice
    assert told.probabilities == pytest.approx(by_ask.probabilities, rel=1e-3)


def test_calls_of_the_same_model_go_on_beside_the_desk(vlm: VLM, desk: Desk, expected: list[Answer]) -> None:
    callers = [hand_in(desk, work)[0] for work in works(vlm)]
    beside = [vlm.ask(**asked, **params) for asked, params in QUESTIONS]  # type: ignore[arg-type]
    assert all(same(*pair) for pair in zip(beside, expected, strict=True))
    assert all(same(caller.answer(), one) for caller, one in zip(callers, expected, strict=True))


def test_the_answer_says_how_much_of_the_prompt_was_known(vlm: VLM, desk: Desk) -> None:
    long = {"question": "Where is the star that is left of the circle, and how many squares are below the two of them?"}
    first, second = (hand_in(desk, Work(prepare(vlm, long), SamplingParams(4)))[0].answer() for _ in range(2))
    assert first.cached_tokens < second.cached_tokens == second.prompt_tokens - 1
    assert vlm.ask(**long, max_new_tokens=4).cached_tokens == second.cached_tokens  # type: ignore[arg-type]


# ---- what ends early ----


def test_works_can_be_cancelled_at_any_moment(vlm: VLM, desk: Desk, expected: list[Answer]) -> None:
    random = Random(1)
    left: list[tuple[int, Caller]] = []
    for _ in range(6):
        for number, work in enumerate(works(vlm)):
            caller, ticket = hand_in(desk, work)
            if random.random() < 0.5:
                left.append((number, caller))
                continue
            told: object = None
            for _ in range(random.choice((0, 0, 1, 3))):  # waiting, looked at, or written
                if not isinstance(told, Answer):
                    told = caller.told.get(timeout=WAIT_S)
            ticket.cancel()
            ticket.cancel()
    assert all(same(caller.answer(), expected[number]) for number, caller in left)
    desk.close(WAIT_S)
    load = desk.load()
    assert load.answered + load.cancelled == 48 and load.failed == 0 and load.cancelled > 0
    assert (load.running, load.looking, load.waiting) == (0, 0, 0)


@pytest.mark.usefixtures("endless")
def test_nothing_is_told_after_a_cancel(vlm: VLM, desk: Desk) -> None:
    told: list[object] = []
    ready, cancelled = threading.Event(), threading.Event()

    def tell(what: object) -> None:
        told.append(what)
        ready.set()
        assert cancelled.wait(WAIT_S)

    ticket = desk.write(story(vlm, 400), tell)
    assert ready.wait(WAIT_S)
    ticket.cancel()
    cancelled.set()
    desk.close(WAIT_S)
    assert len(told) == 1 and desk.load().cancelled == 1


def test_what_a_caller_raises_ends_its_own_work_only(vlm: VLM, desk: Desk, expected: list[Answer]) -> None:
    told: list[object] = []

    def broken(what: object) -> None:
        told.append(what)
        raise KeyboardInterrupt if len(told) > 1 else OSError

    desk.write(story(vlm, 200), broken)
    caller, _ = hand_in(desk, works(vlm)[1])
    desk.write(story(vlm, 200, seed=2), broken)
    assert same(caller.answer(), expected[1])
    desk.close(WAIT_S)
    assert len(told) == 2 and desk.load().cancelled == 2


@pytest.mark.usefixtures("endless")
def test_too_many_works_are_refused_at_once(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    forward = vlm._driver.motor.forward

    def slow(*arguments: object) -> np.ndarray:
        assert goes_on.wait(WAIT_S)
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(vlm._driver.motor, "forward", slow)
    monkeypatch.setattr(vlm._driver._engine.scheduler, "most_running", 1)
    desk = Desk(vlm, most_waiting=2)
    callers = [hand_in(desk, story(vlm, 5, seed))[0] for seed in range(3)]
    with pytest.raises(BusyError, match="3 requests are being answered or wait already"):
        desk.write(story(vlm, 5), print)
    goes_on.set()
    assert all(len(caller.answer().token_ids) == 5 for caller in callers)
    hand_in(desk, story(vlm, 5))[0].answer()
    desk.close()


def test_a_closing_desk_finishes_what_it_has_and_takes_no_more(vlm: VLM, expected: list[Answer]) -> None:
    desk = Desk(vlm)
    callers = [hand_in(desk, work)[0] for work in works(vlm)]
    desk.close(WAIT_S)
    assert all(same(caller.answer(), one) for caller, one in zip(callers, expected, strict=True))
    with pytest.raises(ClosedError, match="shutting down"):
        desk.write(works(vlm)[0], print)
    desk.close()


@pytest.mark.usefixtures("endless")
def test_a_closing_desk_cuts_off_what_takes_longer_than_its_grace(vlm: VLM) -> None:
    desk = Desk(vlm)
    callers = [hand_in(desk, story(vlm, 3000, seed))[0] for seed in range(3)]
    callers.append(hand_in(desk, Work(video(vlm, 64), SamplingParams(5)))[0])
    callers[0].told.get(timeout=WAIT_S)
    desk.close(0)
    assert all(isinstance(caller.result(), ClosedError) for caller in callers)
    assert not vlm._driver._engine.busy


# ---- what fails ----


def test_a_work_that_the_motor_cannot_read_ends_alone(
    vlm: VLM, desk: Desk, expected: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, forward = Work(Inputs(np.arange(100, 140), None), SamplingParams(5)), vlm._driver.motor.forward

    def picky(spans: list[Span], wanted: list[int]) -> np.ndarray:
        if any(np.isin(span.ids, 120).any() and len(span.ids) == 40 for span in spans):
            raise FloatingPointError("not this one")
        return forward(spans, wanted)

    monkeypatch.setattr(vlm._driver.motor, "forward", picky)
    callers = [hand_in(desk, work)[0] for work in works(vlm)]
    failing = [hand_in(desk, bad)[0] for _ in range(2)]
    callers += [hand_in(desk, work)[0] for work in works(vlm)]
    assert all(isinstance(caller.result(), FloatingPointError) for caller in failing)
    assert all(same(caller.answer(), one) for caller, one in zip(callers, expected * 2, strict=True))
    assert desk.load().failed == 2


def test_a_broken_motor_ends_works_but_not_the_desk(
    vlm: VLM, desk: Desk, expected: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> np.ndarray:
        raise MemoryError

    for part in ("forward", "encode", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(vlm._driver.motor, part, broken)
            if part == "encode":
                work = Work(video(vlm, 3, seed=9), SamplingParams(5))
            else:
                work = Work(Inputs(np.arange(200, 260), None), SamplingParams(5))
            callers = [hand_in(desk, work)[0] for _ in range(3)]
            assert all(isinstance(caller.result(), MemoryError) for caller in callers), part
        assert same(hand_in(desk, works(vlm)[2])[0].answer(), expected[2]), part
        assert not vlm._driver._engine.scheduler.running


@pytest.mark.usefixtures("endless")
def test_works_that_can_never_fit_are_refused(vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm._driver._engine.scheduler, "memory_bytes", vlm._driver.motor.slot_bytes(64))
    caller, _ = hand_in(desk, story(vlm, 900))
    assert isinstance(caller.result(), MemoryBudgetError)
    assert len(hand_in(desk, story(vlm, 20))[0].answer().token_ids) == 20


def test_a_fault_of_the_desk_itself_leaves_nobody_waiting(
    vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(vlm._driver._engine, "step", lambda: 1 / 0)
        callers = [hand_in(desk, work)[0] for work in works(vlm)]
        assert all(isinstance(caller.result(), ZeroDivisionError) for caller in callers)
    assert hand_in(desk, works(vlm)[0])[0].answer().text


# ---- who waits for whom ----


@pytest.mark.usefixtures("endless")
def test_a_long_video_does_not_stop_the_stream_of_another(
    vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    encode, forward = vlm._driver.motor.encode, vlm._driver.motor.forward

    def counted(name: str, call: object) -> object:
        def run(*arguments: object) -> object:
            done.append(name)
            return call(*arguments)  # type: ignore[operator]

        return run

    seen = video(vlm, 64, seed=3)
    assert seen.pixel_values is not None and len(seen.pixel_values) == 64
    monkeypatch.setattr(vlm._driver.motor, "encode", counted("look", encode))
    monkeypatch.setattr(vlm._driver.motor, "forward", counted("step", forward))
    monkeypatch.setattr(vlm._tiles, "at_once", 2)
    stream, ticket = hand_in(desk, story(vlm, 3000))
    stream.told.get(timeout=WAIT_S)
    watching, _ = hand_in(desk, Work(seen, SamplingParams(2)))
    small, _ = hand_in(desk, Work(video(vlm, 2, seed=4), SamplingParams(1)))
    small.answer()
    assert done.count("look") <= 3, "a small picture doesn't wait for a long video"
    watching.answer()
    ticket.cancel()
    looks = [number for number, name in enumerate(done) if name == "look"]
    assert len(looks) == 32 + 1
    assert all(later - earlier > 1 for earlier, later in zip(looks, looks[1:], strict=False)), (
        "a step between two looks"
    )
    assert stream.told.qsize() > len(looks) / 2, "pieces came all the time"


def test_pixels_are_let_go_as_soon_as_they_are_looked_at(vlm: VLM, desk: Desk) -> None:
    inputs = video(vlm, 3, seed=5)
    assert inputs.pixel_values is not None
    pixels = weakref.ref(inputs.pixel_values)
    caller, ticket = hand_in(desk, Work(inputs, SamplingParams(500, temperature=2.0, seed=1)))
    del inputs
    caller.told.get(timeout=WAIT_S)
    assert pixels() is None
    ticket.cancel()


def test_the_same_picture_of_several_callers_is_looked_at_once(
    vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, encode = [0], vlm._driver.motor.encode

    def counting(pixel_values: np.ndarray, *more: object) -> object:
        count[0] += len(pixel_values)
        return encode(pixel_values, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(vlm._driver.motor, "encode", counting)
    inputs = video(vlm, 4, seed=6)
    callers = [hand_in(desk, Work(inputs, SamplingParams(3)))[0] for _ in range(5)]
    assert len({caller.answer().token_ids for caller in callers}) == 1
    assert count == [4] and desk.load().known_tiles >= 16


@pytest.mark.usefixtures("endless")
def test_a_long_prompt_is_read_in_smaller_pieces_while_others_write(
    vlm: VLM, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, read = vlm._driver.motor.forward, list[int]()

    def counting(spans: list[Span], wanted: list[int]) -> np.ndarray:
        read.append(max(len(span.ids) for span in spans))
        return forward(spans, wanted)

    monkeypatch.setattr(vlm._driver.motor, "forward", counting)
    long = Work(Inputs(np.random.default_rng(0).integers(10, 500, 1500), None), SamplingParams(1))
    hand_in(desk, long)[0].answer()
    assert max(read) == 1024
    stream, ticket = hand_in(desk, story(vlm, 3000))
    stream.told.get(timeout=WAIT_S)
    read.clear()
    other = Work(Inputs(np.random.default_rng(1).integers(10, 500, 1500), None), SamplingParams(1))
    hand_in(desk, other)[0].answer()
    assert max(read) == 256
    ticket.cancel()
