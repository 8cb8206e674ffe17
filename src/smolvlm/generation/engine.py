"""Many requests through one motor: they join and leave a running batch at any step. Must equal generate.py.

A long prompt is read in pieces between the others' tokens, so it holds no one up for longer than a piece. The engine
knows no text: stop checks and token masks are handed in. One thread at a time may call it; vlm/ holds the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtimes.motor import Motor, Span
from ..types import FinishReason
from .lookup import Lookup
from .scheduler import MOST_RUNNING, MOST_WAITING, PREFIX_BYTES, Generation, Scheduler

FORCED_AT_ONCE = 32  # tokens that a mask leaves no choice about, read in one step
TOKENS_A_STEP = 1024  # prompt tokens read in one step, beside one token of each running request
TOKENS_BESIDE = 256  # the same on a CPU while others write: a quarter of the wait for a tenth of the speed


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
        lookup_tokens: int = 0,
    ) -> None:
        """lookup_tokens: most tokens of a request that are guessed at a time, see lookup.py; 0: none."""
        self.motor = motor
        self.tokens_a_step = tokens_a_step
        self.lookup_tokens = lookup_tokens
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
        news = self._read(pieces) if pieces else []
        self.scheduler.drop_ended()
        return news

    def _read(self, pieces: Sequence[_Piece]) -> list[tuple[Generation, int]]:
        """One forward pass. When it fails, each piece is read alone, so that a request can't end another's."""
        spans: list[Span] = []
        wanted: list[int] = []
        read = 0
        for piece in pieces:
            spans.append(piece.span)
            wanted += range(read + piece.wanted_from, read + len(piece.span.ids))
            read += len(piece.span.ids)
        lengths = [span.slot.length for span in spans]
        try:
            logits = self.motor.forward(spans, wanted)  # (wanted, vocabulary)
        except Exception as error:
            for span, length in zip(spans, lengths, strict=True):
                span.slot.length = length
            if len(pieces) > 1:
                return [new for piece in pieces for new in self._read([piece])]
            pieces[0].generation.failure = error
            return []
        news, row = [], 0
        for piece in pieces:
            rows = logits[row : row + len(piece.span.ids) - piece.wanted_from]
            row += len(rows)
            try:
                news += [(piece.generation, token_id) for token_id in _take(piece, rows)]
            except Exception as error:  # of a stop check, a mask: the others' tokens are due all the same
                piece.generation.failure = error
        return news

    def _next_pieces(self) -> list[_Piece]:
        """What is read in this step: a token of each request that writes, and of the prompts as much as the budget."""
        pieces, budget = [], self._budget()
        for generation in self.scheduler.running:
            slot = generation.slot
            assert slot is not None, "running requests have slots"
            left = len(generation.prompt_ids) - slot.length
            if _writes(generation):
                ids = generation.token_ids[-1:] + self._guess(generation)
                pieces.append(_Piece(generation, Span(slot, np.array(ids), adapter=generation.adapter), 0))
            elif budget:
                count = min(left, budget)
                budget -= count
                pieces.append(_prompt_piece(generation, slot.length, count))
        # side by side, so that a motor reads once what several of them have from their adapter
        return sorted(pieces, key=lambda piece: piece.generation.adapter_number)

    def _budget(self) -> int:
        """Prompt tokens of this step. On a CPU fewer, while others write: each of them waits until they are read."""
        running = self.scheduler.running
        if self.motor.device != "cpu" or not any(_writes(generation) for generation in running):
            return self.tokens_a_step
        return min(self.tokens_a_step, TOKENS_BESIDE)

    def _guess(self, generation: Generation) -> list[int]:
        """The tokens after its last one, as far as there is an answer to come: the last one is never read."""
        most = generation.params.max_new_tokens - len(generation.token_ids) - 1
        return (self._forced(generation) or self._looked_up(generation))[:most]

    def _forced(self, generation: Generation) -> list[int]:
        """What its mask leaves no choice about, such as the keys of JSON; not where that would take others' time."""
        if generation.mask is None or not (self.motor.reads_together or len(self.scheduler.running) == 1):
            return []
        return generation.mask.forced()[:FORCED_AT_ONCE]

    def _looked_up(self, generation: Generation) -> list[int]:
        if not self.lookup_tokens:
            return []
        if generation.lookup is None:
            picture = self.motor.config.image_token_id
            generation.lookup = Lookup(generation.prompt_ids, self.lookup_tokens, never=(picture,))
            generation.lookup.add(generation.token_ids)
        return generation.lookup.guess()


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
    span = Span(generation.slot, ids, pictures, generation.adapter)
    return _Piece(generation, span, min(max(first - start, 0), count))


def _writes(generation: Generation) -> bool:
    return generation.slot is not None and generation.slot.length >= len(generation.prompt_ids)


def _take(piece: _Piece, logits: np.ndarray) -> list[int]:
    """Use a request's new logits: keep them, or choose its next tokens. logits: (wanted, vocabulary)."""
    generation, slot = piece.generation, piece.span.slot
    if generation.keep_logits is not None:
        for row in logits:
            kept = len(generation.logits)
            generation.logits.append(row if generation.keep is None else generation.keep(kept, row))
        if slot.length == len(generation.prompt_ids):
            generation.finish_reason = "length"
        return []
    if not len(logits):
        return []
    guessed = piece.span.ids[piece.wanted_from + 1 :].tolist()
    chosen = _choose(generation, guessed, logits)
    slot.length -= len(guessed) + 1 - len(chosen)  # what was guessed wrong is forgotten
    if generation.lookup is not None:
        generation.lookup.add(chosen)
        generation.lookup.learn(len(guessed), len(chosen) - 1)
    return chosen


def _choose(generation: Generation, guessed: Sequence[int], logits: np.ndarray) -> list[int]:
    """Tokens, as long as the guesses that they were read after are right."""
    assert generation.sampler is not None, "running requests have one"
    chosen: list[int] = []
    for row, guess in zip(logits, [*guessed, None], strict=True):
        token_id = generation.sampler.choose(row)
        chosen.append(token_id)
        generation.token_ids.append(token_id)
        generation.finish_reason = _ending(generation, token_id)
        if generation.ended or token_id != guess:
            break
    return chosen


def run(engine: Engine, generations: Sequence[Generation]) -> None:
    """Step until these have ended. Raises what made one of them fail."""
    while not all(generation.ended for generation in generations):
        engine.step()
    for generation in generations:
        if generation.failure is not None:
            raise generation.failure


def _ending(generation: Generation, token_id: int) -> FinishReason | None:
    sampler = generation.sampler
    assert sampler is not None, "it has chosen the token"
    if generation.tell_likely is not None and sampler.likely is not None:
        generation.tell_likely(sampler.likely)
    stopped = generation.stop_check is not None and generation.stop_check(token_id)
    if stopped or token_id in generation.eos_token_ids:
        return "stop"
    if sampler.ending is not None:
        return sampler.ending
    return "length" if len(generation.token_ids) == generation.params.max_new_tokens else None
