"""POST /v1/completions: a text that the model goes on with, whole or streamed; no template is put around it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from ..types import Answer, TokenLogprob
from ..vlm.desk import Piece
from .asking import Asked, Service, body_of, respond, while_there
from .failures import RequestError
from .house import service_of
from .parts import read_prompt
from .replies import Fields, new_id, usage
from .sse import DONE, event
from .wire import Completing

router = APIRouter()


class CompletionBody(Completing):
    REFUSED: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "best_of": (1,), "echo": (), "suffix": ("",), "logit_bias": (), "frequency_penalty": (0,),
        "presence_penalty": (0,),
    }  # fmt: skip
    IGNORED: ClassVar[frozenset[str]] = frozenset(("user",))

    prompt: Any = None
    logprobs: int | None = Field(default=None, ge=0, le=5)


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    service = service_of(request)
    body = CompletionBody.read(await body_of(request), service.settings)
    asked, reply = await while_there(request, ask(service, body)), CompletionReply(service, body)
    return await respond(request, asked, reply, bool(body.stream))


async def ask(service: Service, body: CompletionBody) -> Asked:
    params = body.choose_all(service.settings, body.max_tokens, body.logprobs)
    rule, adapter = body.rule(service.settings), service.adapter_of(body.model)
    order = read_prompt(_one_text(body.prompt), service.settings, body.look())
    return await service.ask(order, params, rule, adapter, goes_on=True)


def _one_text(prompt: object) -> object:
    """The service takes several prompts, and prompts of token ids, in one request; here it is one text."""
    if not isinstance(prompt, list):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    raise RequestError(
        "prompt must be one text: send a request for each of several, and texts instead of token ids.",
        param="prompt", code="unsupported_value",
    )  # fmt: skip


class CompletionReply:
    """One completion as its client gets it."""

    def __init__(self, service: Service, body: CompletionBody) -> None:
        self._head: Fields = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or service.name,
            "system_fingerprint": service.fingerprint,
        }
        self._logprobs = body.logprobs is not None
        self._usage = body.wants_usage

    def whole(self, answers: Sequence[Answer]) -> Fields:
        choices = [
            self._choice(number, answer.text, answer.logprobs, answer.finish_reason)
            for number, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": usage(answers)}

    async def events(self, asked: Asked) -> AsyncIterator[bytes]:
        """Chunks of text, one with the reason of the end; the cost if it is wanted."""
        answers: dict[int, Answer] = {}
        lengths: dict[int, int] = {}
        async for number, what in asked:
            if isinstance(what, Piece):
                yield self._chunk(self._choice(number, what.text, what.tokens, None, lengths.get(number, 0)))
                lengths[number] = lengths.get(number, 0) + len(what.text)
            else:
                answers[number] = what
                yield self._chunk(self._choice(number, "", (), what.finish_reason))
        if self._usage:
            yield event({**self._head, "choices": [], "usage": usage(list(answers.values()))})
        yield DONE

    def _chunk(self, choice: Fields) -> bytes:
        cost = {"usage": None} if self._usage else {}
        return event({**self._head, "choices": [choice], **cost})

    def _choice(
        self, number: int, text: str, tokens: Sequence[TokenLogprob], reason: str | None, offset: int = 0
    ) -> Fields:
        logprobs = completion_logprobs(tokens, offset) if self._logprobs and (tokens or reason is None) else None
        return {"text": text, "index": number, "logprobs": logprobs, "finish_reason": reason}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Fields:
    """The older form of logprobs. offset: characters of the answer before the first of these tokens."""
    offsets = []
    for one in tokens:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in tokens],
        "token_logprobs": [one.logprob for one in tokens],
        "top_logprobs": [{top.token: top.logprob for top in one.top} for one in tokens],
        "text_offset": offsets,
    }
