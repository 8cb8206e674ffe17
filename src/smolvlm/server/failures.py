"""What a client is told when something fails: a status, and a body in the form of OpenAI's service. Never a trace.

What a user did wrong is told in the words of the library's errors; what *we* did wrong is told in the log alone, under
a name that the client gets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import (
    BusyError,
    ClosedError,
    ContextLengthError,
    FetchError,
    ImageError,
    InputError,
    MediaError,
    MemoryBudgetError,
    PromptError,
    VideoError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI, Request
    from fastapi.responses import Response

log = logging.getLogger(__name__)
request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The name of the request that is being answered, set by guard.py; it is in the header X-Request-Id, too."""

CLIENT_LEFT = 499  # nobody reads this answer; the log does
_MOST_CHARACTERS = 2000
_RETRY_S = 1
# First match counts. Media that can't be had are 422: no retry helps, and the request itself is well formed.
_KINDS: tuple[tuple[type[BaseException], int, str | None], ...] = (
    (BusyError, 429, "rate_limit_exceeded"),
    (ClosedError, 503, "shutting_down"),
    (MemoryBudgetError, 503, "memory_budget_exceeded"),
    (ContextLengthError, 400, "context_length_exceeded"),
    (FetchError, 422, "media_not_fetched"),
    (ImageError, 400, "invalid_image"),
    (VideoError, 400, "invalid_video"),
    (MediaError, 413, "media_too_large"),
    (PromptError, 400, "invalid_prompt"),
    (InputError, 400, None),
)


class RequestError(InputError):
    """A request that can't be answered. status: of HTTP. param: the field, such as "messages[0].content". code: for
    programs. retry_s: after how many seconds it may pass."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_s = retry_s


@dataclass(frozen=True)
class Failure:
    """body: {"error": {"message", "type", "param", "code"}}. headers: beside those of every answer."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def describe(error: BaseException) -> Failure:
    """What to tell about an exception. One that nobody expected is logged, with its trace, under the request's name."""
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    if isinstance(error, RequestError):
        return failure(error.status, str(error), error.param, error.code, error.retry_s)
    if isinstance(error, RequestValidationError | ValidationError):
        return _wrong_field(error.errors())
    if isinstance(error, HTTPException):
        return failure(error.status_code, str(error.detail), None, None)
    if isinstance(error, ClientDisconnect):
        return failure(CLIENT_LEFT, "The client went away.", None, None)
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return failure(status, str(error), None, code, _RETRY_S if status in (429, 503) else None)
    return _unexpected(error)


def failure(status: int, message: str, param: str | None, code: str | None, retry_s: int | None = None) -> Failure:
    """A failure in the form of OpenAI's service."""
    kind = {429: "rate_limit_error", 499: "client_error"}.get(status, "invalid_request_error")
    kind = "server_error" if status >= 500 else kind
    message = message if len(message) <= _MOST_CHARACTERS else message[: _MOST_CHARACTERS - 3] + "..."
    message = message.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no place in JSON
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Failure(status, body, {} if retry_s is None else {"Retry-After": str(retry_s)})


def install(app: FastAPI) -> None:
    """Make an application answer every exception in this form."""
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code in (404, 405):
            return as_response(_no_route(request.method, request.url.path, error.status_code))
        return as_response(describe(error))

    refusals = (RequestValidationError, ValidationError, HTTPException, ClientDisconnect)
    for kind in (InputError, BusyError, ClosedError, *refusals, Exception):
        app.add_exception_handler(kind, answer)


def as_response(found: Failure) -> Response:
    from fastapi.responses import JSONResponse

    return JSONResponse(found.body, found.status, dict(found.headers))


def _no_route(method: str, path: str, status: int) -> Failure:
    path = path if len(path) <= 200 else path[:197] + "..."
    if status == 405:
        return failure(405, f"Not allowed to {method} on {path}.", None, "method_not_supported")
    return failure(404, f"Invalid URL ({method} {path})", None, "unknown_url")


def _wrong_field(errors: Iterable[Any]) -> Failure:
    """The first complaint of pydantic, in a sentence that repeats nothing of what was sent."""
    first = next(iter(errors))
    place = [part for part in first["loc"] if part != "body"]
    names = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    param = "".join(names).lstrip(".")[:200] or None
    if first["type"] == "missing":
        return failure(400, f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    return failure(400, f"Invalid value for {param or 'the body'!r}: {first['msg']}.", param, "invalid_value")


def _unexpected(error: BaseException) -> Failure:
    name = request_id.get() or "unknown"
    log.error("Request %s failed.", name, exc_info=error)
    return failure(
        500, f"The server failed on this request. Its log has the reason under the name {name}.", None, "internal_error"
    )
