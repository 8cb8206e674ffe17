"""What goes wrong for one request in the engine ends that request, and no other that shares its steps."""

from __future__ import annotations

import numpy as np
import pytest

from smolvlm.generation.engine import Engine, run
from smolvlm.generation.scheduler import Generation
from smolvlm.generation.scoring import requests_for
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Slot
from smolvlm.runtimes.native import NativeMotor
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
IDS = [np.random.default_rng(seed).integers(10, 500, 40) for seed in range(4)]


@pytest.fixture(scope="module")
def motor(tmp_path_factory: pytest.TempPathFactory) -> NativeMotor:
    return NativeMotor(tiny_checkpoint(tmp_path_factory.mktemp("faults")), "float32", threads=1)


@pytest.fixture
def engine(motor: NativeMotor) -> Engine:
    return Engine(motor, memory_bytes=2**30)


def ask(number: int, **options: object) -> Generation:
    return Generation(IDS[number], None, SamplingParams(max_new_tokens=6), (), **options)  # type: ignore[arg-type]


def alone(motor: NativeMotor, number: int) -> list[int]:
    engine = Engine(motor, memory_bytes=2**30)
    run(engine, [engine.submit(asked := ask(number))])
    return asked.token_ids


def failing_after(count: int) -> object:
    seen = []

    def check(token_id: int) -> bool:
        seen.append(token_id)
        if len(seen) > count:
            raise LookupError("of this request")
        return False

    return check


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_check_that_raises_ends_its_own_request(engine: Engine, motor: NativeMotor, place: int) -> None:
    asked = [ask(number) for number in range(3)]
    asked.insert(place, broken := ask(3, stop_check=failing_after(2)))
    for one in asked:
        engine.submit(one)
    while not all(one.ended for one in asked):
        engine.step()
    assert isinstance(broken.failure, LookupError) and len(broken.token_ids) == 3
    assert [one.token_ids for one in asked if one is not broken] == [alone(motor, number) for number in range(3)]
    assert not engine.busy and broken.slot is None
    with pytest.raises(LookupError, match="of this request"):
        run(engine, asked)


def test_no_memory_for_the_place_of_one_request_holds_up_no_other(
    engine: Engine, motor: NativeMotor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = motor.open

    def scarce(tokens: int) -> Slot:
        if tokens > 100:
            raise MemoryError
        return opened(tokens)

    monkeypatch.setattr(motor, "open", scarce)
    large = Generation(IDS[3], None, SamplingParams(max_new_tokens=200), ())
    asked = [engine.submit(one) for one in (ask(0), large, ask(1))]
    while not all(one.ended for one in asked):
        engine.step()
    assert isinstance(large.failure, MemoryError)
    assert [asked[0].token_ids, asked[2].token_ids] == [alone(motor, 0), alone(motor, 1)]


def test_what_failed_is_not_kept_as_a_beginning(engine: Engine) -> None:
    engine.submit(broken := ask(0, stop_check=failing_after(0)))
    while not broken.ended:
        engine.step()
    assert not engine.scheduler.prefixes.prefixes
    run(engine, [engine.submit(again := ask(0))])
    assert again.cached_tokens == 0


def test_endings_of_choices_are_not_kept_as_beginnings(engine: Engine) -> None:
    read = requests_for(IDS[0], None, [[(20, number, 5)] for number in range(30)])
    run(engine, [engine.submit(one) for one in read])
    assert len(engine.scheduler.prefixes.prefixes) <= 2
    assert all(row.size == 1 for one in read for row in one.logits), "large rows of logits are not kept"
    run(engine, [engine.submit(again := requests_for(IDS[0], None, [[(1,)], [(2,)]])[0])])
    assert again.cached_tokens == len(IDS[0]) - 1
