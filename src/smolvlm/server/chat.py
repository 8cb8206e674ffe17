"""POST /v1/chat/completions: conversations with pictures and videos, whole or streamed, as OpenAI's service answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from ..types import Answer, OutputRule, SamplingParams, TokenLogprob
from ..vlm.desk import Piece
from .asking import Asked, Service, body_of, respond, while_there
from .failures import RequestError
from .house import service_of
from .parts import read_chat
from .replies import Fields, chat_logprobs, new_id, seen, usage
from .settings import Settings
from .sse import DONE, event
from .wire import Completing, format_rule

router = APIRouter()


class ChatBody(Completing):
    REFUSED: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "audio": (), "modalities": (["text"],), "functions": (), "function_call": ("none", "auto"), "tools": (),
        "tool_choice": ("none", "auto"), "logit_bias": (), "frequency_penalty": (0,), "presence_penalty": (0,),
        "moderation": (), "reasoning_effort": ("none",), "store": (), "verbosity": ("medium",),
        "web_search_options": (),
    }  # fmt: skip
    IGNORED: ClassVar[frozenset[str]] = frozenset((
        "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "user",
    ))  # fmt: skip

    messages: list[Any]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0)
    response_format: dict[str, Any] | None = None

    def params(self, settings: Settings) -> list[SamplingParams]:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise RequestError(
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
                param="max_tokens",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs"
            )
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self.choose_all(settings, self.max_completion_tokens or self.max_tokens, logprobs)

    def rule(self, settings: Settings) -> OutputRule | None:
        formatted = format_rule(self.response_format, settings, "response_format")
        structured = super().rule(settings)
        if formatted is not None and structured is not None:
            raise RequestError(
                "response_format and structured_outputs both say what the answer must be: give one of them.",
                param="structured_outputs",
            )
        return formatted or structured


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    service = service_of(request)
    body = ChatBody.read(await body_of(request), service.settings)
    streamed, reply = bool(body.stream), ChatReply(service, body)
    work = ask(service, body)
    del body  # its pictures are large, and the answer may take long
    asked = await while_there(request, work)
    return await respond(request, asked, reply, streamed)


async def ask(service: Service, body: ChatBody) -> Asked:
    params, rule, adapter = body.params(service.settings), body.rule(service.settings), service.adapter_of(body.model)
    return await service.ask(read_chat(body.messages, service.settings, body.look()), params, rule, adapter)


class ChatReply:
    """One completion as its client gets it."""

    def __init__(self, service: Service, body: ChatBody) -> None:
        self._head: Fields = {
            "id": new_id("chatcmpl-"),
            "created": int(time.time()),
            "model": body.model or service.name,
            "system_fingerprint": service.fingerprint,
        }
        self._choices = body.n or 1
        self._logprobs = bool(body.logprobs)
        self._usage = body.wants_usage

    def whole(self, answers: Sequence[Answer]) -> Fields:
        choices: list[Fields] = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []},
                "logprobs": self._told(answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for number, answer in enumerate(answers)
        ]
        return {
            **self._head, "object": "chat.completion", "choices": choices, "usage": usage(answers),
            **seen(answers[0].frames),
        }  # fmt: skip

    async def events(self, asked: Asked) -> AsyncIterator[bytes]:
        """A chunk with the role, chunks of text, one with the reason of the end; the cost if it is wanted."""
        answers: dict[int, Answer] = {}
        for number in range(self._choices):
            yield self._chunk(number, {"role": "assistant", "content": "", "refusal": None})
        async for number, what in asked:
            if isinstance(what, Piece):
                yield self._chunk(number, {"content": what.text}, what.tokens)
            else:
                answers[number] = what
                yield self._chunk(number, {}, reason=what.finish_reason, **seen(what.frames))
        if self._usage:
            yield event(
                {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(list(answers.values()))}
            )
        yield DONE

    def _chunk(
        self,
        number: int,
        delta: Fields,
        tokens: Sequence[TokenLogprob] = (),
        reason: str | None = None,
        **more: object,
    ) -> bytes:
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": self._told(tokens) if tokens else None,
            "finish_reason": reason,
        }
        cost = {"usage": None} if self._usage else {}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **cost, **more})

    def _told(self, tokens: Sequence[TokenLogprob]) -> Fields | None:
        return {"content": chat_logprobs(tokens), "refusal": None} if self._logprobs else None
