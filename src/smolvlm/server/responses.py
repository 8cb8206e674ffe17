"""POST /v1/responses: text and pictures in, text out, as OpenAI's newer interface; nothing is kept afterwards.

What this server doesn't have (tools, stored conversations, reasoning, background work) is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ..types import Answer, OutputRule, TokenLogprob
from ..vlm.desk import Piece
from .asking import Asked, Service, body_of, respond, while_there
from .failures import describe
from .house import service_of
from .parts import read_responses_input
from .replies import Fields, chat_logprobs, new_id, seen
from .settings import Settings
from .sse import event
from .wire import STRICT, Choosing, format_rule

router = APIRouter()
LOGPROBS = "message.output_text.logprobs"


class TextConfig(BaseModel):
    model_config = STRICT
    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseBody(Choosing):
    REFUSED: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "background": (), "context_management": (), "conversation": (), "moderation": (), "previous_response_id": (),
        "prompt": (), "reasoning": ({"effort": None}, {"effort": "none"}, {"effort": None, "summary": None}),
        "store": (), "tool_choice": ("none", "auto"), "tools": (), "truncation": ("disabled",),
    }  # fmt: skip
    IGNORED: ClassVar[frozenset[str]] = frozenset((
        "access_programs", "background_options", "image", "max_tool_calls", "parallel_tool_calls", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "stream_options",
    ))  # fmt: skip

    input: Any = None
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: TextConfig | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0)
    metadata: dict[str, str] | None = None
    user: str | None = None

    @property
    def logprobs(self) -> int | None:
        """They are told when they are included, or more than the chosen ones are wanted."""
        wanted = bool(self.top_logprobs) or LOGPROBS in (self.include or ())
        return (self.top_logprobs or 0) if wanted else None

    @property
    def format(self) -> Mapping[str, Any] | None:
        return None if self.text is None else self.text.format

    def rule(self, settings: Settings) -> OutputRule | None:
        return format_rule(self.format, settings, "text.format") or super().rule(settings)


# Why a response is incomplete. The loop guard is an extension, and so is its reason.
CUT = {"length": "max_output_tokens", "loop": "loop"}


@router.post("/v1/responses")
async def create_response(request: Request) -> Response:
    service = service_of(request)
    body = ResponseBody.read(await body_of(request), service.settings)
    streamed, reply = bool(body.stream), ResponseReply(service, body)
    work = ask(service, body)
    del body  # its pictures are large, and the answer may take long
    asked = await while_there(request, work)
    return await respond(request, asked, reply, streamed)


async def ask(service: Service, body: ResponseBody) -> Asked:
    params = body.choose(service.settings, new_tokens=body.max_output_tokens, logprobs=body.logprobs)
    rule, adapter = body.rule(service.settings), service.adapter_of(body.model)
    order = read_responses_input(body.input, body.instructions, service.settings, body.look())
    return await service.ask(order, [params], rule, adapter)


class ResponseReply:
    """One response as its client gets it."""

    def __init__(self, service: Service, body: ResponseBody) -> None:
        self._item_id = new_id("msg_")
        self._logprobs = body.logprobs is not None
        self._number = 0
        self._fields: Fields = {
            "id": new_id("resp_"), "object": "response", "created_at": int(time.time()), "status": "in_progress",
            "background": False, "error": None, "incomplete_details": None, "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens, "max_tool_calls": None, "model": body.model or service.name,
            "output": [], "parallel_tool_calls": True, "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None}, "service_tier": "default", "store": False,
            "temperature": body.temperature or 0.0,
            "text": {"format": body.format or {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto", "tools": [], "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p, "truncation": "disabled", "usage": None,
            "user": body.user, "metadata": body.metadata or {},
        }  # fmt: skip

    def whole(self, answers: Sequence[Answer]) -> Fields:
        (answer,) = answers
        return self.ended(answer)

    def ended(self, answer: Answer) -> Fields:
        """The whole response."""
        reason = CUT.get(answer.finish_reason)
        status = "completed" if reason is None else "incomplete"
        return {
            **self._fields,
            "status": status,
            "completed_at": int(time.time()),
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": [self._item(status, [self._part(answer.text, answer.logprobs)])],
            "usage": response_usage(answer),
            **seen(answer.frames),
        }

    async def events(self, asked: Asked) -> AsyncIterator[bytes]:
        """The events of one message of one text, in the service's order."""
        yield self._event("response.created", response=self._fields)
        yield self._event("response.in_progress", response=self._fields)
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress", []))
        yield self._event("response.content_part.added", **self._place(), part=self._part("", ()))
        try:
            async for _, what in asked:
                if isinstance(what, Piece):
                    yield self._told("response.output_text.delta", delta=what.text, tokens=what.tokens)
                    continue
                for one in self._end(what):
                    yield one
        except Exception as error:
            yield self._failed(error)

    def _end(self, answer: Answer) -> list[bytes]:
        whole = self.ended(answer)
        (item,) = whole["output"]
        return [
            self._told("response.output_text.done", text=answer.text, tokens=answer.logprobs),
            self._event("response.content_part.done", **self._place(), part=item["content"][0]),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{whole['status']}", response=whole),
        ]

    def _failed(self, error: Exception) -> bytes:
        told = describe(error).body["error"]
        reason = {"code": "server_error", "message": told["message"]}
        return self._event("response.failed", response={**self._fields, "status": "failed", "error": reason})

    def _told(self, kind: str, tokens: Sequence[TokenLogprob], **text: str) -> bytes:
        logprobs = chat_logprobs(tokens) if self._logprobs else []
        return self._event(kind, **self._place(), **text, logprobs=logprobs)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)

    def _place(self) -> Fields:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _item(self, status: str, content: list[Fields]) -> Fields:
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, text: str, tokens: Sequence[TokenLogprob]) -> Fields:
        logprobs = chat_logprobs(tokens) if self._logprobs else []
        return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def response_usage(answer: Answer) -> Fields:
    new = len(answer.token_ids)
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": 0,
            "image_tokens": answer.image_tokens,
        },
        "output_tokens": new,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + new,
    }
