"""What the desk is working on: an answer or a decision on its way from Inputs to what its caller is told.

When which of them gets its turn is desk.py's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..types import Answer, Decision, Inputs, OutputRule, SamplingParams, TokenLogprob
from .driver import READ_AT_ONCE, finish, to_read
from .spelling import decision_of

if TYPE_CHECKING:
    from ..generation.scheduler import Generation
    from ..generation.scoring import Spelling
    from ..runtimes.motor import LiveAdapter
    from .answers import Writer
    from .driver import Prepared
    from .tiles import Looking
    from .vlm import VLM

READING = SamplingParams(max_new_tokens=1)


@dataclass(frozen=True)
class Work:
    """What is to be answered. adapter: a name that the VLM knows. goes_on: the answer is the rest of a text, and spaces
    at its beginning count."""

    inputs: Inputs
    params: SamplingParams
    rule: OutputRule | None = None
    adapter: str | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Piece:
    """Some more of an answer. tokens: those of the text, when logprobs were asked for; at the end maybe without one."""

    text: str
    tokens: tuple[TokenLogprob, ...] = ()


class Job(ABC):
    """looking: its pictures, while they are looked at; generations: what the engine does for it, from then on.

    cancelled: set from any thread, to give it up.
    """

    def __init__(self, work: Work, tell: Callable[[Any], None]) -> None:
        self.work = work
        self.tell = tell
        self.started = time.perf_counter()
        self.cancelled = False
        self.adapter: LiveAdapter | None = None  # the one that work names, from when it was handed in
        self.looking: Looking | None = None
        self.generations: list[Generation] = []
        self._handed = 0
        self._counted = 0

    def prepare(self, vlm: VLM, features: object) -> Prepared:
        return vlm._prepared(self.work.inputs, features, self.work.params, self.work.rule, self.adapter)

    @abstractmethod
    def begin(self, vlm: VLM, prepared: Prepared) -> list[Generation]:
        """What the engine must do."""

    @abstractmethod
    def news(self) -> Piece | None:
        """What came since the last call."""

    @abstractmethod
    def result(self) -> Answer | Decision:
        """When all generations have ended."""

    def forget_pixels(self) -> None:
        """They are large: once they are looked at, nobody else needs them."""
        self.work = replace(self.work, inputs=replace(self.work.inputs, pixel_values=None))

    @property
    def is_running(self) -> bool:
        return any(one.slot is not None for one in self.generations)

    @property
    def failure(self) -> Exception | None:
        return next((one.failure for one in self.generations if one.failure is not None), None)

    def next_ones(self) -> list[Generation]:
        """Those that the engine shall begin with now: some, once those before have ended."""
        start = self._handed
        if any(not one.ended for one in self.generations[:start]):
            return []
        self._handed = min(start + READ_AT_ONCE, len(self.generations))
        return self.generations[start : self._handed]

    def count_new(self) -> int:
        """Tokens written since the last call."""
        count = sum(len(one.token_ids) for one in self.generations)
        new, self._counted = count - self._counted, count
        return new


class Writing(Job):
    """An answer, piece by piece."""

    def begin(self, vlm: VLM, prepared: Prepared) -> list[Generation]:
        self._writer: Writer = vlm._writer(prepared, self.started, goes_on=self.work.goes_on)
        return [vlm._driver.to_write(prepared, self._writer)]

    def news(self) -> Piece | None:
        text, tokens = self._writer.drain()
        return Piece(text, tokens) if text or tokens else None

    def result(self) -> Answer:
        finish(self._writer, self.generations[0])
        assert self._writer.answer is not None, "it has just finished"
        return self._writer.answer


class Deciding(Job):
    """The probabilities of choices. spellings: of each choice."""

    def __init__(
        self, work: Work, choices: Sequence[str], spellings: list[list[Spelling]], tell: Callable[[Any], None]
    ) -> None:
        super().__init__(work, tell)
        self._choices = choices
        self._spellings = spellings

    def begin(self, vlm: VLM, prepared: Prepared) -> list[Generation]:
        return to_read(prepared, self._spellings)

    def news(self) -> None:
        return None

    def result(self) -> Decision:
        return decision_of(self._choices, self._spellings, self.generations, self.work.inputs.frames)
