"""The desk: one thread that answers the requests of many callers side by side, on the engine of a VLM.

Callers hand in work from any thread and are told what comes of it. Pictures are looked at a few tiles at a time between
the others' steps, so that nobody's words stop for somebody's video. Answers are those of `VLM.ask`. Calls of the same
VLM may go on beside it. Messages and media become Inputs elsewhere, and sockets are server/'s.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..errors import BusyError, ClosedError
from ..types import Answer, Decision, Inputs, OutputRule, SamplingParams
from .jobs import READING, Deciding, Job, Piece, Work, Writing
from .memory import require_memory

if TYPE_CHECKING:
    from .vlm import VLM

MOST_WAITING = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Load:
    """What a desk has to do, and what it has done since it opened.

    running: works that are read or written; looking: whose pictures are looked at; waiting: for a place. prompt_tokens:
    of works that were answered; cached_tokens: of these, read for others before. tiles: looked at; known_tiles: seen
    before. steps: of the engine.
    """

    running: int
    looking: int
    waiting: int
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    tiles: int = 0
    known_tiles: int = 0
    steps: int = 0


class Ticket:
    """A work that was handed in."""

    def __init__(self, job: Job, wake: Callable[[], None]) -> None:
        self._job = job
        self._wake = wake

    def cancel(self) -> None:
        """Give the work up. From any thread; never blocks. Nothing more is told, and its place is free soon."""
        self._job.cancelled = True
        self._wake()


class Desk:
    """Answers works in a thread of its own, which lives on whatever happens to one of them."""

    def __init__(self, vlm: VLM, *, most_waiting: int = MOST_WAITING) -> None:
        """most_waiting: works that may wait beside as many as the engine has places for."""
        self._vlm = vlm
        self.most = most_waiting + vlm._driver.places
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()  # None: look around
        self._lock = threading.Lock()  # around the next two
        self._inside = 0
        self._closed = False
        self._cut = False
        self._looking: deque[Job] = deque()
        self._going: list[Job] = []  # in the engine
        self._done: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._work, name="smolvlm-desk", daemon=True)
        self._thread.start()

    # ---- for callers, from any thread ----

    def write(self, work: Work, tell: Callable[[Piece | Answer | Exception], None]) -> Ticket:
        """Answer a work. `tell` is called in the desk's thread: with pieces, then with one Answer or one exception.

        What tell raises ends the work. Raises BusyError when too many wait already, ClosedError after close, InputError
        for an adapter that isn't there.
        """
        return self._hand_in(Writing(work, tell))

    def decide(
        self,
        inputs: Inputs,
        choices: Sequence[str],
        tell: Callable[[Decision | Exception], None],
        *,
        adapter: str | None = None,
    ) -> Ticket:
        """Judge choices as `VLM.decide` does. inputs: of the question. `tell` is called once, in the desk's thread.

        Raises as write does, and InputError for choices that can't be told apart.
        """
        work = Work(inputs, READING, adapter=adapter)
        return self._hand_in(Deciding(work, choices, self._vlm._spell(choices), tell))

    def make_ready(self, rule: OutputRule, params: SamplingParams) -> None:
        """Raise InputError for a rule that answers can't follow. It may take long once: call it before `write`."""
        self._vlm._grammar(rule, params)

    def close(self, grace_s: float = 0.0) -> None:
        """Take no more work, finish what is here within grace_s seconds, tell the rest ClosedError. Waits for it."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join(grace_s)
        self._cut = True
        self._wake()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """False when nobody answers any more."""
        return self._thread.is_alive()

    def load(self) -> Load:
        looking, running = len(self._looking), sum(job.is_running for job in list(self._going))
        return Load(running, looking, max(self._inside - running - looking, 0), **self._done)

    def _hand_in(self, job: Job) -> Ticket:
        job.adapter = self._vlm._adapter(job.work.adapter)
        with self._lock:
            if self._closed:
                raise ClosedError("The server is shutting down and takes no more requests: ask another one.")
            if self._inside >= self.most:
                raise BusyError(f"{self._inside} requests are being answered or wait already: try again later.")
            self._inside += 1
        self._inbox.put(job)
        return Ticket(job, self._wake)

    def _wake(self) -> None:
        self._inbox.put(None)

    # ---- in its thread ----

    def _work(self) -> None:
        while not (self._closed and not self._inside):
            try:
                self._receive()
                self._drop_cancelled()
                self._look()
                self._step()
            except Exception as error:  # a fault of ours: nobody shall wait for ever, and the next can be answered
                log.exception("The desk met an error of its own; the works it had end with it.")
                for job in [*self._looking, *self._going]:
                    self._fail(job, error)

    def _receive(self) -> None:
        """Take what was handed in; wait for it when there is nothing else to do."""
        wait = not self._looking and not self._going
        while True:
            try:
                job = self._inbox.get(block=wait)
            except Empty:
                return
            wait = False
            if job is not None:
                self._start(job)

    def _start(self, job: Job) -> None:
        pixel_values = job.work.inputs.pixel_values
        if job.cancelled:
            self._leave(job, "cancelled")
            return
        if pixel_values is None:
            self._enter(job, None)
            return
        try:
            job.looking = self._vlm._tiles.look(pixel_values, job.adapter)
        except Exception as error:
            self._fail(job, error)
            return
        job.forget_pixels()
        self._looking.append(job)

    def _drop_cancelled(self) -> None:
        for job in [*self._looking, *self._going]:
            if self._cut:
                self._say(job, ClosedError("The server is shutting down and cut this request off: ask another one."))
            if self._cut or job.cancelled:
                self._leave(job, "cancelled")

    def _look(self) -> None:
        """Some tiles of one work; then it is the next one's turn."""
        if not self._looking:
            return
        job = self._looking[0]
        self._looking.rotate(-1)
        assert job.looking is not None, "its pictures are looked at"
        before = job.looking.left
        try:
            seen = job.looking.step()
            features = None if job.looking.left else job.looking.features()
        except Exception as error:
            self._fail(job, error)
            return
        self._done.update(tiles=seen, known_tiles=before - job.looking.left - seen)
        if not job.looking.left:
            self._looking.remove(job)
            self._enter(job, features)

    def _enter(self, job: Job, features: object) -> None:
        """A work has been looked at: the engine's turn."""
        self._going.append(job)
        try:
            prepared = job.prepare(self._vlm, features)
            require_memory(self._vlm._driver.motor, 0, len(prepared.input_ids), prepared.params.max_new_tokens)
            job.generations = job.begin(self._vlm, prepared)
        except Exception as error:
            self._fail(job, error)
            return
        self._hand_on(job)

    def _hand_on(self, job: Job) -> None:
        try:
            if generations := job.next_ones():
                self._vlm._driver.submit(generations)
        except Exception as error:
            self._fail(job, error)

    def _step(self) -> None:
        """A token, or a part of a prompt, for each; then everybody is told what is new."""
        if not self._going:
            return
        self._vlm._driver.step([one for job in self._going for one in job.generations if not one.ended])
        self._done.update(steps=1)
        for job in list(self._going):
            self._done.update(new_tokens=job.count_new())
            if job.failure is not None:
                self._fail(job, job.failure)
            elif job.cancelled:
                continue  # dropped in the next turn
            elif all(one.ended for one in job.generations):
                self._finish(job)
            else:
                self._say(job, job.news())
                self._hand_on(job)

    def _finish(self, job: Job) -> None:
        try:
            result = job.result()
        except Exception as error:
            self._fail(job, error)
            return
        self._done.update(prompt_tokens=len(job.work.inputs.input_ids), cached_tokens=job.generations[0].cached_tokens)
        self._say(job, job.news())
        self._say(job, result)
        self._leave(job, "cancelled" if job.cancelled else "answered")

    def _fail(self, job: Job, error: Exception) -> None:
        self._say(job, error)
        self._leave(job, "failed")

    def _say(self, job: Job, what: object) -> None:
        if what is None or job.cancelled:
            return
        try:
            job.tell(what)
        except BaseException:  # whatever a caller raises, the others' answers go on
            log.exception("A caller could not be told what came of its work, which ends.")
            job.cancelled = True

    def _leave(self, job: Job, how: str) -> None:
        for jobs in (self._looking, self._going):
            if job in jobs:
                jobs.remove(job)
        self._vlm._driver.give_up([one for one in job.generations if not one.ended])
        self._done.update((how,))
        with self._lock:
            self._inside -= 1
