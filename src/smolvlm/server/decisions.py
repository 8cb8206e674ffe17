"""POST /v1/decisions: typed questions about texts, pictures and videos, answered with probabilities alone.

A question's answers are judged by how likely the model is to give each, as `VLM.decide` does. Beside OpenAI's fields
each answer has `label_mass`: how much of all probability lay on its answers. A low one says that the model wanted to
say something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ..types import Decision, Features, Inputs
from .asking import Service, body_of, while_there
from .bodies import check_questions
from .house import service_of
from .parts import Block, Message, Order, read_responses_input
from .replies import Fields, seen
from .settings import Settings
from .sse import JSON
from .wire import STRICT, Looking

router = APIRouter()
AT_ONCE = 8  # questions of one request: they share what was read, and others want to be answered, too
YES_NO = ("yes", "no")


class Asking(BaseModel):
    """instructions: a text, or parts as of a message."""

    model_config = STRICT
    name: str | None = None
    instructions: str | list[Any]


class Predicate(Asking):
    type: Literal["predicate"]


class Option(BaseModel):
    model_config = STRICT
    value: str | bool
    description: str | None = None

    @property
    def text(self) -> str:
        """What the model would say."""
        return self.value if isinstance(self.value, str) else "yes" if self.value else "no"


class Choice(Asking):
    type: Literal["choice"]
    choices: list[Option] = Field(min_length=2)


class Level(BaseModel):
    model_config = STRICT
    label: str
    description: str | None = None

    @property
    def text(self) -> str:
        return self.label


class Score(Asking):
    type: Literal["score"]
    levels: list[Level] = Field(min_length=2)


Question = Annotated[Predicate | Choice | Score, Field(discriminator="type")]


class DecisionBody(Looking):
    IGNORED: ClassVar[frozenset[str]] = frozenset(("prompt_cache_key", "prompt_cache_options", "safety_identifier"))

    input: Any = None
    questions: list[Question] = Field(min_length=1)


@router.post("/v1/decisions")
async def create_decision(request: Request) -> Response:
    service = service_of(request)
    body = DecisionBody.read(await body_of(request), service.settings)
    return JSON(await while_there(request, decide(service, body)))


async def decide(service: Service, body: DecisionBody) -> Fields:
    adapter, questions = service.adapter_of(body.model), body.questions
    most = max(len(_options(one)) for one in questions)
    check_questions(len(questions), most, most, service.settings.limits)
    orders = [order_of(body, one, service.settings) for one in questions]
    with service.let_in(min(AT_ONCE, len(questions))):
        decisions = await decide_all(service, await prepare_all(service, orders), questions, adapter)
    return {
        "model": body.model or service.name,
        "answers": [answer_of(*pair) for pair in zip(questions, decisions, strict=True)],
        "usage": usage_of(decisions),
        **seen(decisions[0].frames),
    }


async def decide_all(
    service: Service, inputs: Sequence[Inputs], questions: Sequence[Asking], adapter: str | None
) -> list[Decision]:
    """Some at a time. The first that fails ends the others."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(given: Inputs, question: Asking) -> Decision:
        async with free:
            return await service.decide(given, texts_of(question), adapter)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in zip(inputs, questions, strict=True)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


# ---- what the model is asked ----


def texts_of(question: Asking) -> Sequence[str]:
    """What the model may answer."""
    options = _options(question)
    return [one.text for one in options] if options else YES_NO


def order_of(body: DecisionBody, question: Asking, settings: Settings) -> Order:
    """The input, and behind it the question, in its last message when that is the user's."""
    base = read_responses_input(body.input, None, settings, body.look())
    asked = read_responses_input([{"role": "user", "content": question.instructions}], None, settings)
    blocks: list[Block] = list(asked.blocks)
    blocks += [{"type": "text", "text": f"\n{line}"} for line in _hints(question, blocks)]
    *turns, last = base.messages
    if last["role"] != "user":
        return replace(base, messages=(*base.messages, {"role": "user", "content": blocks}))
    before = list(blocks_of(last))
    if before[-1]["type"] == blocks[0]["type"] == "text":
        blocks[0] = {"type": "text", "text": f"\n{blocks[0]['text']}"}
    return replace(base, messages=(*turns, {**last, "content": [*before, *blocks]}))


def _hints(question: Asking, blocks: Sequence[Block]) -> list[str]:
    """What the instructions leave open: that a statement is a question, and which answers there are."""
    said = " ".join(str(block["text"]) for block in blocks if block["type"] == "text").strip()
    options = _options(question)
    if not options:
        return [] if said.endswith("?") else ["Is this true?"]
    described = [f"{one.text}: {one.description}" for one in options if one.description]
    if described or not all(one.text.casefold() in said.casefold() for one in options):
        return [*described, f"Answer with one of: {', '.join(one.text for one in options)}."]
    return []


def _options(question: Asking) -> Sequence[Option | Level]:
    if isinstance(question, Choice):
        return question.choices
    return question.levels if isinstance(question, Score) else ()


async def prepare_all(service: Service, orders: Sequence[Order]) -> list[Inputs]:
    """Pictures and videos that all questions share are opened once; the others are told apart by their words alone."""
    first, *others = orders
    prepared = [await service.kitchen.prepare(first)]
    media = _media(first)
    for order in others:
        if media and _media(order) == media:
            prepared.append(await asyncio.to_thread(_with_words_of, service, order, prepared[0]))
        else:
            prepared.append(await service.kitchen.prepare(order))
    return prepared


def blocks_of(message: Message) -> Sequence[Block]:
    blocks = message["content"]
    assert isinstance(blocks, list), "parts.py makes lists"
    return blocks


def _media(order: Order) -> list[Block]:
    return [block for block in order.blocks if block["type"] != "text"]


def _with_words_of(service: Service, order: Order, seen: Inputs) -> Inputs:
    """The inputs of an order whose media are those of other inputs, in the same order."""
    grids, frames = iter(seen.tile_rows_cols), iter(seen.frames)
    features = []
    for block in _media(order):
        of_video = (next(frames),) if block["type"] == "video" else ()
        tiles = len(of_video[0].indices) if of_video else 1
        features.append(Features(None, tuple(next(grids) for _ in range(tiles)), "", of_video))
    messages = [
        {
            **message,
            "content": [one if one["type"] == "text" else {"type": one["type"]} for one in blocks_of(message)],
        }
        for message in order.messages
    ]
    words = service.vlm.processor.prepare(messages, features=features, context=service.context)
    return replace(seen, input_ids=words.input_ids)


# ---- what the client is told ----


def answer_of(question: Asking, decision: Decision) -> Fields:
    shares = list(decision.probabilities.values())
    head = {"type": question.type, "name": question.name}  # type: ignore[attr-defined]
    if isinstance(question, Predicate):
        return {**head, "probability": shares[0], "label_mass": decision.label_mass}
    best = max(range(len(shares)), key=shares.__getitem__)
    tail = {"confidence": shares[best], "label_mass": decision.label_mass}
    if isinstance(question, Choice):
        values = [one.value for one in question.choices]
        told = [{"value": value, "probability": share} for value, share in zip(values, shares, strict=True)]
        return {**head, "choice": values[best], "probabilities": told, **tail}
    assert isinstance(question, Score), "there are three kinds"
    levels = [
        {"label": one.label, "value": value, "probability": shares[value]} for value, one in enumerate(question.levels)
    ]
    return {**head, "score": sum(value * share for value, share in enumerate(shares)), "probabilities": levels, **tail}


def usage_of(decisions: Sequence[Decision]) -> Fields:
    read = sum(one.prompt_tokens for one in decisions)
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": sum(one.cached_tokens for one in decisions),
            "cache_write_tokens": 0,
        },
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read,
    }
