"""From prepared requests to their tokens: the engine of a motor, and the lock around it.

The lock is held during a step, never between two, so that threads share the engine and every request is answered as if
it were alone.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..generation.scoring import Spelling, requests_for, scores_from
from ..types import FramesSeen, SamplingParams
from .answers import Writer

if TYPE_CHECKING:
    from ..generation.scheduler import Generation
    from ..runtimes.motor import Motor


@dataclass(frozen=True)
class Prepared:
    """A request as a model takes it. features: (tiles, image tokens, hidden), None without pictures."""

    input_ids: np.ndarray
    features: Any
    image_tokens: int
    frames: tuple[FramesSeen, ...]
    params: SamplingParams


class Driver:
    """Owns a motor. Several threads may use it."""

    def __init__(self, motor: Motor, end_ids: Collection[int], limits: Mapping[str, int]) -> None:
        """end_ids: token ids that end an answer. limits: memory_bytes and other arguments of Engine."""
        from ..generation.engine import Engine

        self.motor = motor
        self._engine = Engine(motor, **limits)
        self._end_ids = end_ids
        self._lock = threading.Lock()

    def encode(self, pixel_values: np.ndarray) -> Any:
        """(tiles, 3, side, side) -> (tiles, image tokens, hidden)."""
        with self._lock:
            return self.motor.encode(pixel_values)

    def write(self, prepared: Sequence[Prepared], writers: Sequence[Writer]) -> Iterator[None]:
        """Let the writers write; yields after every step."""
        from ..generation.scheduler import Generation

        own = [
            Generation(one.input_ids, _rows(one.features), one.params, self._end_ids, writer.take)
            for one, writer in zip(prepared, writers, strict=True)
        ]
        writer_of = dict(zip(own, writers, strict=True))
        for ended in self._run(own):
            for generation in ended:
                assert generation.finish_reason is not None, "nobody else cancels it"
                writer_of[generation].finish(generation.finish_reason)
            yield

    def score(self, prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[float]:
        """The log probability of each choice, see generation.scoring."""
        own = requests_for(prepared.input_ids, _rows(prepared.features), choices)
        for _ in self._run(own):
            pass
        return scores_from(own, choices)

    def _run(self, own: Sequence[Generation]) -> Iterator[list[Generation]]:
        """Step until these have ended; yields, after every step, those that just did."""
        going = list(own)
        try:
            with self._lock:
                for generation in own:
                    self._engine.submit(generation)
            while going:
                with self._lock:
                    if not any(generation.ended for generation in going):  # else another thread's step ended it
                        self._engine.step()
                ended = [generation for generation in going if generation.ended]
                going = [generation for generation in going if not generation.ended]
                yield ended
        finally:
            for generation in going:
                generation.cancelled = True
            # never wait here: a forgotten stream is collected anywhere, even in this thread's own step
            if going and self._lock.acquire(blocking=False):
                self._engine.drop_ended()
                self._lock.release()


def _rows(features: Any) -> Any:
    """(tiles, image tokens, hidden) -> (all image tokens, hidden)."""
    return None if features is None else features.reshape(-1, features.shape[-1])
