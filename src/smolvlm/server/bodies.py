"""Bodies of requests: bytes -> JSON, without letting a small body become a large one; and how much may be asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .failures import RequestError
from .settings import Limits

JSON_ITEMS = 400_000  # commas and brackets of a body: each may become an object of 50 to 250 bytes


def load_json(body: bytes, limits: Limits) -> object:
    """The value in a body. Raises RequestError for what isn't JSON, and for more or deeper nesting than is allowed."""
    from pydantic_core import from_json

    if not body.strip():
        raise RequestError("The body is empty: send a JSON object.", code="invalid_json")
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > JSON_ITEMS:
        raise RequestError(
            f"The body has more than {JSON_ITEMS:,} commas and brackets.", status=413, code="body_too_large"
        )
    try:
        value: object = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise RequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    check_depth(value, limits.json_depth, JSON_ITEMS, "the body")
    return value


def check_depth(value: object, depth: int, items: int, param: str) -> None:
    """Raise RequestError for a JSON value of more levels of objects and lists, or of more values, than these."""
    level, seen = [value] if isinstance(value, dict | list) else [], 0
    for _ in range(depth):
        if not level:
            return
        inner = [one for holder in level for one in (holder.values() if isinstance(holder, dict) else holder)]
        seen += len(inner)
        if seen > items:
            raise RequestError(f"The JSON of {param} has more than {items:,} values.", code="limit_exceeded")
        level = [one for one in inner if isinstance(one, dict | list)]
    if not level:
        return
    raise RequestError(f"The JSON of {param} is nested more than {depth} levels deep.", code="limit_exceeded")


def check_sampling(
    n: int, max_tokens: int | None, stop: Sequence[str], top_logprobs: int | None, limits: Limits
) -> None:
    """Raise RequestError when more is asked for than this server gives."""
    if not 1 <= n <= limits.n:
        raise RequestError(f"n={n} is out of range: it must be 1 to {limits.n}.", param="n", code="invalid_value")
    if limits.max_tokens is not None and max_tokens is not None and max_tokens > limits.max_tokens:
        raise RequestError(
            f"max_tokens={max_tokens} is more than this server's limit of {limits.max_tokens}.", param="max_tokens",
            code="limit_exceeded",
        )  # fmt: skip
    if len(stop) > limits.stop:
        raise RequestError(
            f"There are {len(stop)} stop sequences; at most {limits.stop} are allowed.", param="stop",
            code="limit_exceeded",
        )  # fmt: skip
    if any(not 0 < len(one) <= limits.stop_chars for one in stop):
        raise RequestError(
            f"A stop sequence must have 1 to {limits.stop_chars} characters.", param="stop", code="invalid_value"
        )
    if top_logprobs is not None and not 0 <= top_logprobs <= limits.top_logprobs:
        raise RequestError(
            f"top_logprobs={top_logprobs} is out of range: it must be 0 to {limits.top_logprobs}.",
            param="top_logprobs", code="invalid_value",
        )  # fmt: skip


def check_schema(schema: object, limits: Limits, param: str = "response_format") -> None:
    """Raise RequestError for a JSON Schema, a regular expression, or a list of choices that is too large."""
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
    size = len(text.encode("utf-8", "replace"))
    if size > limits.schema_bytes:
        raise RequestError(
            f"{param} has {size:,} bytes, more than this server's limit of {limits.schema_bytes:,}.", param=param,
            code="limit_exceeded",
        )  # fmt: skip


def check_questions(questions: int, choices: int, levels: int, limits: Limits) -> None:
    """Raise RequestError for more questions of decisions, choices of one, or levels of one, than are allowed."""
    for name, given, most in (
        ("questions", questions, limits.questions),
        ("choices", choices, limits.choices),
        ("levels", levels, limits.levels),
    ):
        if given > most:
            raise RequestError(
                f"There are {given} {name}, more than this server's limit of {most}.", param="questions",
                code="limit_exceeded",
            )  # fmt: skip
