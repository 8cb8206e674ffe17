"""From an order to answers: the way of every request through the kitchen and the desk, and how it is given up.

Routes read bodies and write answers; what happens between the two is here, the same for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from ..errors import BusyError, ConfigError
from ..types import Answer, Decision, Inputs, OutputRule, SamplingParams
from ..vlm import VLM
from ..vlm.desk import Desk, Piece, Ticket, Work
from .failures import RequestError
from .kitchen import Kitchen
from .metrics import Metrics
from .parts import Order
from .replies import VERSION, Fields
from .settings import Settings
from .sse import JSON, EventStream

Result = TypeVar("Result")


class Service:
    """A loaded model that is being served: its desk, its kitchen, its names, and how many may come in."""

    def __init__(self, vlm: VLM, settings: Settings, metrics: Metrics) -> None:
        self.vlm = vlm
        self.settings = settings
        self.name = settings.name or vlm.name
        if self.name in vlm.adapters:
            raise ConfigError(f"The model and an adapter are both called {self.name!r}: name one of them otherwise.")
        most = settings.limits.prompt_tokens
        self.context = vlm.context if most is None else min(vlm.context, most + 1)  # of a prompt, and one more
        self.desk = Desk(vlm, most_waiting=settings.limits.queue)
        self.kitchen = Kitchen(vlm.processor, settings, context=vlm.context)
        self.metrics = metrics
        self.metrics.watch(self.desk, self.kitchen)
        self.started = int(time.time())
        self.fingerprint = f"smolvlm-{VERSION}-{vlm.runtime}-{vlm.dtype}"
        self.inside = 0
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the model and its adapters, as clients call them."""
        return (self.name, *self.vlm.adapters)

    def adapter_of(self, model: str | None) -> str | None:
        """The adapter that a client means, None for the model alone, which an absent or empty name means, too."""
        if not model or model == self.name:
            return None
        if model in self.names:
            return model
        raise RequestError(
            f"The model {model!r} does not exist: use {' or '.join(map(repr, self.names))}, or leave model out.",
            status=404, param="model", code="model_not_found",
        )  # fmt: skip

    async def ask(
        self,
        order: Order,
        params: Sequence[SamplingParams],
        rule: OutputRule | None,
        adapter: str | None,
        *,
        goes_on: bool = False,
    ) -> Asked:
        """Answers to one order, one for each of params. Whoever asks must close what this returns.

        Returns when the first of them begins, so that what can't be answered is raised here. goes_on: the answer is
        the rest of a text. Raises BusyError, and what preparing and answering raise.
        """
        asked = Asked(self.let_in(len(params)), self.metrics)
        try:
            if rule is not None:
                await asyncio.to_thread(self.desk.make_ready, rule, params[0])
            inputs = await self.kitchen.prepare(order)
            asked.hand_in(self.desk, [Work(inputs, one, rule, adapter, goes_on) for one in params])
            del inputs  # pixels are large
            await asked.begin()
        except BaseException:
            asked.close()
            raise
        return asked

    async def decide(self, inputs: Inputs, choices: Sequence[str], adapter: str | None) -> Decision:
        """Raises what deciding raises, and InputError for choices that can't be told apart."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Decision | Exception] = loop.create_future()

        def tell(what: Decision | Exception) -> None:
            loop.call_soon_threadsafe(_set, told, what)

        ticket = self.desk.decide(inputs, choices, tell, adapter=adapter)
        try:
            decision = await told
        except BaseException:
            ticket.cancel()
            raise
        if isinstance(decision, Exception):
            raise decision
        return decision

    def let_in(self, works: int) -> Place:
        """Room for so many works of one request. Raises BusyError when there is none."""
        if self.inside + works > self.desk.most:
            raise BusyError(f"{self.inside} requests are being answered or wait already: try again later.")
        return Place(self, works)

    def close(self) -> None:
        """Cut off what is still here. Waits for the step that the engine is in."""
        self.desk.close()
        self.kitchen.close()


class Place:
    """Where works of one request are, from before their media are opened until the last is answered or given up."""

    def __init__(self, service: Service, works: int) -> None:
        self._service = service
        self._works = works
        service.inside += works
        service.empty.clear()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._service.inside -= self._works
        self._works = 0
        if not self._service.inside:
            self._service.empty.set()


class Asked:
    """The answers to one request on their way. Iterate for (number of the answer, Piece or Answer)."""

    def __init__(self, place: Place, metrics: Metrics) -> None:
        self._place = place
        self._metrics = metrics
        self._told: asyncio.Queue[tuple[int, Piece | Answer | Exception]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[int, Ticket] = {}
        self._first: tuple[int, Piece | Answer] | None = None
        self._since: dict[int, float] = {}  # when the last piece of each answer came
        self._started = time.perf_counter()

    def hand_in(self, desk: Desk, works: Sequence[Work]) -> None:
        for number, work in enumerate(works):
            self._tickets[number] = desk.write(work, partial(self._tell, number))

    async def begin(self) -> None:
        """Wait for the first thing that comes."""
        self._first = await self._next()
        self._metrics.first_token_s.observe(time.perf_counter() - self._started)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece | Answer]]:
        while self._first is not None or self._tickets:
            number, what = self._first or await self._next()
            self._first = None
            if isinstance(what, Answer):
                del self._tickets[number]
            else:
                self._measure(number)
            yield number, what

    async def answers(self) -> list[Answer]:
        """All of them, whole, in order."""
        found = {number: what async for number, what in self if isinstance(what, Answer)}
        return [found[number] for number in sorted(found)]

    def close(self) -> None:
        """Give up what isn't answered yet."""
        for ticket in self._tickets.values():
            ticket.cancel()
        self._tickets.clear()
        self._place.__exit__()

    def _tell(self, number: int, what: Piece | Answer | Exception) -> None:
        self._loop.call_soon_threadsafe(self._told.put_nowait, (number, what))

    async def _next(self) -> tuple[int, Piece | Answer]:
        number, what = await self._told.get()
        if isinstance(what, Exception):
            raise what
        return number, what

    def _measure(self, number: int) -> None:
        now = time.perf_counter()
        if number in self._since:
            self._metrics.between_tokens_s.observe(now - self._since[number])
        self._since[number] = now


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do it for a client that waits for it. Cancels it and raises ClientDisconnect when the client goes away."""
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect_of(request))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        gone.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait((doing,))


class Reply(Protocol):
    """An answer as its client gets it: events, or one piece."""

    def events(self, asked: Asked) -> AsyncIterator[bytes]: ...

    def whole(self, answers: Sequence[Answer]) -> Fields: ...


async def respond(request: Request, asked: Asked, reply: Reply, streamed: bool) -> Response:
    """What was asked for as a stream or whole. When it ends, or its client goes away, so does what it asked."""
    if streamed:
        return EventStream(reply.events(asked), asked.close)
    try:
        return JSON(reply.whole(await while_there(request, asked.answers())))
    finally:
        asked.close()


async def body_of(request: Request) -> bytes:
    """The whole body, which the request doesn't keep: it may be large, and answers may take long."""
    return b"".join([chunk async for chunk in request.stream()])


async def _disconnect_of(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _set(told: asyncio.Future[Any], what: object) -> None:
    if not told.done():  # else nobody waits any more
        told.set_result(what)
