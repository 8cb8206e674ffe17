"""Many requests through one motor: they join and leave a running batch at any step. Must equal generate.py.

A long prompt is read in pieces between the others' tokens, so it holds no one up for longer than a piece. The engine
knows no text: stop checks are handed in. One thread at a time may call it; vlm/ holds the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtimes.motor import Motor, Span
from ..types import FinishReason
from .scheduler import MOST_RUNNING, MOST_WAITING, PREFIX_BYTES, Generation, Scheduler

TOKENS_A_STEP = 1024  # prompt tokens read in one step, beside one token of each running request


class Engine:
    """submit() queues a request, step() advances everyone. Arguments: see Scheduler."""

    def __init__(
        self,
        motor: Motor,
        *,
        memory_bytes: int,
        tokens_a_step: int = TOKENS_A_STEP,
        most_running: int = MOST_RUNNING,
        most_waiting: int = MOST_WAITING,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        self.motor = motor
        self.tokens_a_step = tokens_a_step
        self.scheduler = Scheduler(
            motor,
            memory_bytes=memory_bytes,
            most_running=most_running,
            most_waiting=most_waiting,
            prefix_bytes=prefix_bytes,
        )

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting)

    def submit(self, generation: Generation) -> Generation:
        """Raises InputError, MemoryBudgetError, BusyError: see Scheduler."""
        return self.scheduler.submit(generation)

    def drop_ended(self) -> None:
        self.scheduler.drop_ended()

    def step(self) -> list[tuple[Generation, int]]:
        """One forward pass over everyone's next tokens. Returns the new tokens, if any: prompts are read in pieces."""
        self.scheduler.drop_ended()
        self.scheduler.admit()
        pieces = self._next_pieces()
        if not pieces:
            return []
        spans: list[Span] = []
        wanted: list[int] = []
        read = 0
        for piece in pieces:
            spans.append(piece.span)
            wanted += range(read + piece.wanted_from, read + len(piece.span.ids))
            read += len(piece.span.ids)
        logits = self.motor.forward(spans, wanted)  # (wanted, vocabulary)
        news, row = [], 0
        for piece in pieces:
            rows = logits[row : row + len(piece.span.ids) - piece.wanted_from]
            row += len(rows)
            news += _take(piece.generation, rows)
        self.scheduler.drop_ended()
        return news

    def _next_pieces(self) -> list[_Piece]:
        """What is read in this step: a token of each request that writes, and of the prompts as much as the budget."""
        pieces, budget = [], self.tokens_a_step
        for generation in self.scheduler.running:
            slot = generation.slot
            assert slot is not None, "running requests have slots"
            left = len(generation.prompt_ids) - slot.length
            if left <= 0:
                pieces.append(_Piece(generation, Span(slot, np.array(generation.token_ids[-1:])), 0))
            elif budget:
                count = min(left, budget)
                budget -= count
                pieces.append(_prompt_piece(generation, slot.length, count))
        return pieces


@dataclass(frozen=True)
class _Piece:
    """Tokens of one request. wanted_from: the logits of the span's tokens from this one on are wanted."""

    generation: Generation
    span: Span
    wanted_from: int


def _prompt_piece(generation: Generation, start: int, count: int) -> _Piece:
    assert generation.slot is not None, "running requests have slots"
    ids = generation.prompt_ids[start : start + count]
    pictures = None
    if generation.pictures is not None:
        before, after = (int(np.count_nonzero(generation.is_picture[:at])) for at in (start, start + count))
        pictures = generation.pictures[before:after]
    first = len(generation.prompt_ids) - 1 if generation.keep_logits is None else generation.keep_logits
    return _Piece(generation, Span(generation.slot, ids, pictures), min(max(first - start, 0), count))


def _take(generation: Generation, logits: np.ndarray) -> list[tuple[Generation, int]]:
    """Use a request's new logits: keep them, or choose its next token."""
    slot, sampler = generation.slot, generation.sampler
    assert slot is not None and sampler is not None, "running requests have them"
    if generation.keep_logits is not None:
        generation.logits += list(logits)
        if slot.length == len(generation.prompt_ids):
            generation.finish_reason = "length"
        return []
    if not len(logits):
        return []
    token_id = sampler.choose(logits[-1])
    generation.token_ids.append(token_id)
    generation.finish_reason = _ending(generation, token_id)
    return [(generation, token_id)]


def run(engine: Engine, generations: Sequence[Generation]) -> None:
    """Step until these have ended."""
    while not all(generation.ended for generation in generations):
        engine.step()


def _ending(generation: Generation, token_id: int) -> FinishReason | None:
    stopped = generation.stop_check is not None and generation.stop_check(token_id)
    if stopped or token_id in generation.eos_token_ids:
        return "stop"
    return "length" if len(generation.token_ids) == generation.params.max_new_tokens else None
