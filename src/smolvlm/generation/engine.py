"""Many requests through one motor: they join and leave a running batch at any step. Must equal generate.py.

A long prompt is read in pieces between the others' tokens, so it holds no one up for longer than a piece. The engine
knows no text: stop checks are handed in. One thread at a time may call it; vlm.py holds the lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..runtimes.motor import Motor, Slot, Span
from ..types import FinishReason, SamplingParams
from .sampling import Sampler

TOKENS_A_STEP = 1024  # prompt tokens read in one step, beside one token of each running request
MOST_RUNNING = 16  # more rows a step are slower for everyone and hardly faster in all


@dataclass(eq=False)
class Generation:
    """A request on its way. token_ids: what was chosen so far; finish_reason: None until it has ended.

    stop_check: token id -> True when the answer ends with it; called once for each new token. cancelled: set it, from
    any thread, to give the request up; what it had written stays.
    """

    prompt_ids: np.ndarray
    pictures: np.ndarray | None
    params: SamplingParams
    eos_token_ids: Collection[int]
    stop_check: Callable[[int], bool] | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cancelled: bool = False
    _slot: Slot | None = None
    _sampler: Sampler | None = None
    _pictures_read: int = 0

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.cancelled


class Engine:
    """Owns the slots of a motor. submit() queues a request, step() advances everyone."""

    def __init__(self, motor: Motor, *, tokens_a_step: int = TOKENS_A_STEP, most_running: int = MOST_RUNNING) -> None:
        self.motor = motor
        self.tokens_a_step = tokens_a_step
        self.most_running = most_running
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []

    def submit(self, generation: Generation) -> Generation:
        """Queue a request; it is read when a place is free. Raises InputError when pictures and placeholders differ."""
        places = int((generation.prompt_ids == self.motor.config.image_token_id).sum())
        features = 0 if generation.pictures is None else len(generation.pictures)
        if generation.pictures is not None and places != features:
            raise InputError(f"The prompt has {places} image tokens, its pictures give {features} features.")
        self.waiting.append(generation)
        return generation

    def drop_ended(self) -> None:
        """Forget the requests that have ended or were given up, and free their slots."""
        for generation in [one for one in (*self.running, *self.waiting) if one.ended]:
            generation._slot = None
            (self.running if generation in self.running else self.waiting).remove(generation)

    def step(self) -> list[tuple[Generation, int]]:
        """One forward pass over everyone's next tokens. Returns the new tokens, if any: prompts are read in pieces."""
        self.drop_ended()
        self._admit()
        chosen, spans, wanted = self._next_spans()
        if not spans:
            return []
        logits = self.motor.forward(spans, wanted)  # (those that get a token, vocabulary)
        news = []
        for generation, scores in zip(chosen, logits, strict=True):
            assert generation._sampler is not None, "set when it was admitted"
            token_id = generation._sampler.choose(scores)
            generation.token_ids.append(token_id)
            generation.finish_reason = _ending(generation, token_id)
            news.append((generation, token_id))
        self.drop_ended()
        return news

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.most_running:
            generation = self.waiting.popleft()
            # the last token is never read
            generation._slot = self.motor.open(len(generation.prompt_ids) + generation.params.max_new_tokens - 1)
            generation._sampler = Sampler(generation.params, generation.prompt_ids)
            self.running.append(generation)

    def _next_spans(self) -> tuple[list[Generation], list[Span], list[int]]:
        """Who gets a token in this step, what is read, and where among it the logits are wanted."""
        chosen, spans, wanted = [], [], []
        read, budget = 0, self.tokens_a_step
        for generation in self.running:
            slot = generation._slot
            assert slot is not None, "running requests have slots"
            left = len(generation.prompt_ids) - slot.length
            if left > 0:
                count = min(left, budget)
                budget -= count
                ids = generation.prompt_ids[slot.length : slot.length + count]
            else:
                count, ids = 1, np.array(generation.token_ids[-1:])
            if not count:
                continue
            spans.append(Span(slot, ids, self._pictures(generation, ids) if left > 0 else None))
            read += count
            if count >= left:  # the prompt is complete
                chosen.append(generation)
                wanted.append(read - 1)
        return chosen, spans, wanted

    def _pictures(self, generation: Generation, ids: np.ndarray) -> np.ndarray | None:
        """The features that belong to the image tokens of this piece of the prompt."""
        if generation.pictures is None:
            return None
        count = int((ids == self.motor.config.image_token_id).sum())
        start = generation._pictures_read
        generation._pictures_read += count
        return generation.pictures[start : start + count]


def run(engine: Engine, generations: Sequence[Generation]) -> None:
    """Step until these have ended."""
    while not all(generation.ended for generation in generations):
        engine.step()


def _ending(generation: Generation, token_id: int) -> FinishReason | None:
    stopped = generation.stop_check is not None and generation.stop_check(token_id)
    if stopped or token_id in generation.eos_token_ids:
        return "stop"
    return "length" if len(generation.token_ids) == generation.params.max_new_tokens else None
