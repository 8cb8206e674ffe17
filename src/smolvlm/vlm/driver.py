"""From prepared requests to their tokens: the engine of a motor, and the lock around it.

The lock is held during a step, never between two, so that threads share the engine and every request is answered as if
it were alone. Callers step it inline here; desk.py steps it in a thread of its own, with the same calls.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..generation.scoring import Spelling, requests_for
from ..runtimes.memory import CPU_PATCHES_AT_ONCE, GPU_PATCHES_AT_ONCE
from ..types import FramesSeen, SamplingParams
from .answers import Writer
from .rules import Parse

if TYPE_CHECKING:
    from ..generation.scheduler import Generation
    from ..processing.grammar import Grammar
    from ..runtimes.motor import LiveAdapter, Motor


READ_AT_ONCE = 64  # prompts of one decision: others want to be answered, too


@dataclass(frozen=True)
class Prepared:
    """A request as a model takes it. features: (tiles, image tokens, hidden), None without pictures.

    grammar: of the rule that its answer follows; parse: what an answer that does stands for. adapter: to answer with.
    """

    input_ids: np.ndarray
    features: Any
    image_tokens: int
    frames: tuple[FramesSeen, ...]
    params: SamplingParams
    grammar: Grammar | None = None
    parse: Parse | None = None
    adapter: LiveAdapter | None = None


class Driver:
    """Owns a motor. Several threads may use it."""

    def __init__(self, motor: Motor, end_ids: Collection[int], limits: Mapping[str, int]) -> None:
        """end_ids: token ids that end an answer. limits: memory_bytes and other arguments of Engine."""
        from ..generation.engine import Engine

        self.motor = motor
        self._engine = Engine(motor, **limits)
        self._end_ids = end_ids
        self._lock = threading.Lock()

    @property
    def tiles_at_once(self) -> int:
        """Tiles that are worth looking at in one go; more hold others up and are hardly faster."""
        most = GPU_PATCHES_AT_ONCE if self.motor.device.startswith("cuda") else CPU_PATCHES_AT_ONCE
        return max(1, most // self.motor.config.vision_config.patches_per_side**2)

    @property
    def places(self) -> int:
        """Requests that run side by side; more wait."""
        return self._engine.scheduler.most_running

    def load_adapter(self, directory: Path) -> LiveAdapter:
        """See runtimes.motor.Motor."""
        with self._lock:
            return self.motor.load_adapter(directory)

    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> Any:
        """(tiles, 3, side, side) -> (tiles, image tokens, hidden)."""
        with self._lock:
            return self.motor.encode(pixel_values, adapter)

    def write(self, prepared: Sequence[Prepared], writers: Sequence[Writer]) -> Iterator[None]:
        """Let the writers write; yields after every step."""
        own = [self.to_write(one, writer) for one, writer in zip(prepared, writers, strict=True)]
        writer_of = dict(zip(own, writers, strict=True))
        for ended in self._run(own):
            for generation in ended:
                finish(writer_of[generation], generation)
            yield

    def read(self, prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[Generation]:
        """What scores_from takes to score the choices."""
        own = to_read(prepared, choices)
        for start in range(0, len(own), READ_AT_ONCE):
            for _ in self._run(own[start : start + READ_AT_ONCE]):
                pass
        return own

    # ---- what a thread does that steps the engine ----

    def to_write(self, prepared: Prepared, writer: Writer) -> Generation:
        """What the engine must do so that this writer can write."""
        from ..generation.scheduler import Generation

        return Generation(
            prepared.input_ids, _rows(prepared.features), prepared.params, self._end_ids, writer.take,
            mask=None if prepared.grammar is None else prepared.grammar.mask(), tell_likely=writer.note,
            adapter=prepared.adapter,
        )  # fmt: skip

    def submit(self, generations: Sequence[Generation]) -> None:
        """Queue all or none. Raises what Engine.submit does."""
        with self._lock:
            try:
                for generation in generations:
                    self._engine.submit(generation)
            except Exception:
                for generation in generations:
                    generation.cancelled = True
                self._engine.drop_ended()
                raise

    def step(self, generations: Sequence[Generation]) -> None:
        """A step for everyone, unless one of these has ended already in another thread's."""
        with self._lock:
            if not any(generation.ended for generation in generations):
                self._engine.step()

    def give_up(self, generations: Sequence[Generation]) -> None:
        """They end as they are, now or in the next step. Never waits."""
        for generation in generations:
            generation.cancelled = True
        # never wait here: a forgotten stream is collected anywhere, even in this thread's own step
        if generations and self._lock.acquire(blocking=False):
            self._engine.drop_ended()
            self._lock.release()

    def _run(self, own: Sequence[Generation]) -> Iterator[list[Generation]]:
        """Step until these have ended; yields, after every step, those that just did. Raises what made one fail."""
        going = list(own)
        try:
            self.submit(own)
            while going:
                self.step(going)
                ended = [generation for generation in going if generation.ended]
                for generation in ended:
                    if generation.failure is not None:
                        raise generation.failure
                going = [generation for generation in going if not generation.ended]
                yield ended
        finally:
            self.give_up(going)


def to_read(prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[Generation]:
    """What the engine must read to score the choices, see generation/scoring.py."""
    return requests_for(prepared.input_ids, _rows(prepared.features), choices, prepared.adapter)


def finish(writer: Writer, generation: Generation) -> None:
    """Let a writer end as its generation did."""
    assert generation.finish_reason is not None, "nobody else cancels it"
    writer.finish(generation.finish_reason, generation.cached_tokens)


def _rows(features: Any) -> Any:
    """(tiles, image tokens, hidden) -> (all image tokens, hidden)."""
    return None if features is None else features.reshape(-1, features.shape[-1])
