"""The loop guard ends what only repeats itself, and nothing that an honest answer says twice."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
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
from smolvlm.generation.loops import LONGEST, REPEATS, SHORTEST, LoopGuard
from smolvlm.generation.scheduler import Generation
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint

GRID = "\n".join(" ".join("0" for _ in range(10)) for _ in range(10))
ROWS = "\n".join("0,0,0,0,0,0" for _ in range(20))
CSV = "day,sold,returned\n" + "\n".join(f"2024-03-{day:02},0,0" for day in range(1, 32))
TABLE = "| a | b | c |\n| --- | --- | --- |\n" + "| no | no | yes |\n" * 15
LIST = "\n".join(f"{number}. A small red circle." for number in range(1, 41))
DOTS = "\n".join(f"Chapter {number} {'.' * 100} {number}" for number in range(1, 20))
HA = "ha" * 60
LINE = "-" * 200
SONG = "The wheels on the bus go round and round, round and round, round and round.\n" * 6


@pytest.fixture(scope="module")
def processor() -> SmolVLMProcessor:
    return smolvlm.SmolVLMProcessor.from_pretrained("nano")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(directory: Path) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(directory)


@pytest.mark.parametrize("text", [GRID, ROWS, CSV, TABLE, LIST, DOTS, HA, LINE, SONG])
def test_honest_repetition_is_no_loop(processor: SmolVLMProcessor, text: str) -> None:
    assert loops_at(processor.tokenizer.encode(text)) is None


@pytest.mark.parametrize(
    "text", ["0", "0 ", "ha ha ", "The picture shows a red circle. ", "a, b, c, d, e, f, g, h, ", " \n", "{}, "]
)
def test_a_loop_is_found_behind_an_honest_beginning(processor: SmolVLMProcessor, text: str) -> None:
    start = processor.tokenizer.encode("The picture shows three shapes, in this order: ")
    cycle = processor.tokenizer.encode(text)
    found = loops_at(start + cycle * 600)
    assert found is not None
    assert found <= len(start) + max(SHORTEST, REPEATS * len(cycle)) + 1


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_the_guard_says_what_the_rule_says(start: list[int], cycle: list[int]) -> None:
    """The oracle looks at the whole text anew for each token."""
    tokens = start + cycle * (SHORTEST * 2 // len(cycle) + REPEATS + 2)
    expected = next((at for at in range(1, len(tokens) + 1) if is_loop(tokens[:at])), None)
    assert loops_at(tokens) == expected


def test_a_cycle_longer_than_the_longest_is_not_looked_for() -> None:
    assert loops_at(list(range(LONGEST + 1)) * 20) is None
    assert loops_at(list(range(LONGEST)) * 20) == LONGEST * REPEATS


class Cycle:
    """A mask that lets an answer begin as it likes and then allows the same tokens again and again."""

    complete = False

    def __init__(self, free: int = 30) -> None:
        self._left = free
        self._cycle = itertools.cycle([21, 22, 23])

    def allowed(self) -> np.ndarray:
        self._left -= 1
        return np.arange(10, 500) if self._left >= 0 else np.array([next(self._cycle)])

    def accept(self, token_id: int) -> None:
        pass

    def forced(self) -> list[int]:
        return []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lookup", [0, 8])
def test_engine_and_plain_loop_end_at_the_same_token(
    model: SmolVLMForConditionalGeneration, temperature: float, lookup: int
) -> None:
    ids = np.arange(10, 20)
    params = SamplingParams(max_new_tokens=400, loop_guard=True, temperature=temperature, seed=1)
    batch = {"input_ids": torch.from_numpy(ids)[None]}
    (expected,) = generate(model, batch, params, eos_token_ids=(), masks=[Cycle()])
    assert expected.finish_reason == "loop" and len(expected.token_ids) == 30 + SHORTEST
    engine = Engine(TorchMotor(model), memory_bytes=2**30, lookup_tokens=lookup)
    looping = engine.submit(Generation(ids, None, params, (), mask=Cycle()))
    free = engine.submit(Generation(ids, None, dataclasses.replace(params, loop_guard=False), (), mask=Cycle()))
    run(engine, [looping, free])
    assert tuple(looping.token_ids) == expected.token_ids and looping.finish_reason == "loop"
    assert tuple(free.token_ids[: len(looping.token_ids)]) == expected.token_ids and free.finish_reason == "length"


def test_an_answer_that_loops_keeps_what_it_said_and_follows_its_rule_no_further(directory: Path) -> None:
    vlm = smolvlm.load(directory)
    stream = vlm.stream("Go on", regex="(ab ){500}", max_new_tokens=1000, loop_guard=True)
    pieces = "".join(stream)
    assert stream.answer.finish_reason == "loop" and stream.answer.text == pieces
    assert pieces.startswith("ab ab ") and len(stream.answer.token_ids) >= SHORTEST
    assert ("ab " * 500).startswith(pieces)


def test_nothing_but_true_and_false_is_taken() -> None:
    with pytest.raises(InputError, match="loop_guard=3 is out of range: it must be True or False"):
        SamplingParams(loop_guard=3)  # type: ignore[arg-type]


def loops_at(tokens: Iterable[int]) -> int | None:
    """How many tokens were written when the guard says so."""
    guard = LoopGuard()
    return next((count for count, token_id in enumerate(tokens, 1) if guard.add(token_id)), None)


def is_loop(tokens: list[int]) -> bool:
    for length in range(1, LONGEST + 1):
        tail = tokens[-max(SHORTEST, REPEATS * length) :]
        if len(tail) == max(SHORTEST, REPEATS * length) and tail[length:] == tail[:-length]:
            return True
    return False
