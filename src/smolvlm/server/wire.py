"""What bodies of several routes have in common: which fields there are, how answers are chosen, what they must be.

Three kinds of fields: those that are used, those of OpenAI's service that would change the answer but can't be had here
(refused by name unless they ask for nothing), and those of the service that change nothing (ignored). Any other is
refused, as the service does. Each route adds its own; messages and media are parts.py's, limits bodies.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from ..types import OutputRule, SamplingParams
from ..vlm.requests import LookOptions
from .bodies import check_sampling, check_schema, load_json
from .failures import RequestError
from .parts import kind_of
from .settings import Settings

SMALLEST_TOP_P = 1e-9  # the service allows 0, which leaves the likeliest token
SEEDS = 2**63
NEUTRAL: tuple[object, ...] = (None, [], {}, False)
STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Body(BaseModel):
    """A body of any route. REFUSED: fields that can't be had, with the values that ask for nothing, beside NEUTRAL.

    IGNORED: fields that change no answer. UNKNOWN: the service's words for a field that it doesn't have, and its code.
    """

    model_config = STRICT
    REFUSED: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    UNKNOWN: ClassVar[tuple[str, str | None]] = ("Unknown parameter: '{}'.", "unknown_parameter")

    model: str | None = None

    @classmethod
    def read(cls, body: bytes, settings: Settings) -> Self:
        """Raises RequestError, and pydantic's ValidationError for a field of a wrong type."""
        given = load_json(body, settings.limits)
        if not isinstance(given, dict):
            raise RequestError(f"The body must be a JSON object; got {kind_of(given)}.", code="invalid_type")
        return cls.model_validate({name: value for name, value in given.items() if cls._uses(name, value)})

    @classmethod
    def _uses(cls, name: str, value: object) -> bool:
        """False for what is ignored. Raises RequestError for what is refused."""
        if name in cls.model_fields:
            return True
        if name in cls.IGNORED:
            return False
        if name not in cls.REFUSED:
            words, code = cls.UNKNOWN
            raise RequestError(words.format(name[:100]), param=name[:100], code=code)
        if value not in (*NEUTRAL, *cls.REFUSED[name]):
            raise RequestError(
                f"{name} can't be had from this server: leave it out.", param=name, code="unsupported_parameter"
            )
        return False


class StructuredOutputs(BaseModel):
    """An extension: exactly one of an expression, texts, and a JSON Schema."""

    model_config = STRICT
    regex: str | None = None
    choice: list[str] | None = None
    json_schema: dict[str, Any] | str | None = Field(default=None, alias="json")


class Looking(Body):
    """How pictures and videos are looked at, where a part doesn't say it itself."""

    max_image_tokens: int | None = Field(default=None, ge=1)
    fps: float | None = Field(default=None, gt=0, le=1000)
    max_frames: int | None = Field(default=None, ge=1)

    def look(self) -> LookOptions:
        return {"max_image_tokens": self.max_image_tokens, "fps": self.fps, "max_frames": self.max_frames}


class Choosing(Looking):
    """How the tokens of an answer are chosen, and what it must be."""

    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, lt=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    loop_guard: bool | None = None
    structured_outputs: StructuredOutputs | None = None

    def rule(self, settings: Settings) -> OutputRule | None:
        """What the text of the answer must be. Raises RequestError."""
        return structured_rule(self.structured_outputs, settings)

    def choose(
        self,
        settings: Settings,
        *,
        new_tokens: int | None,
        logprobs: int | None,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> SamplingParams:
        limits = settings.limits
        check_sampling(1, new_tokens, stop, logprobs, limits)
        return SamplingParams(
            max_new_tokens=new_tokens or min(settings.new_tokens, limits.max_tokens or settings.new_tokens),
            temperature=self.temperature or 0.0,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else max(self.top_p, SMALLEST_TOP_P),
            min_p=self.min_p or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            stop=tuple(stop),
            seed=seed,
            logprobs=logprobs,
            loop_guard=self.loop_guard is not False,
        )


class StreamOptions(BaseModel):
    model_config = STRICT
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # nobody reads along here


class Completing(Choosing):
    """What chat and plain completions share."""

    UNKNOWN: ClassVar[tuple[str, str | None]] = ("Unrecognized request argument supplied: {}", None)

    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-SEEDS, lt=SEEDS)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)

    @property
    def wants_usage(self) -> bool:
        """At the end of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def choose_all(self, settings: Settings, new_tokens: int | None, logprobs: int | None) -> list[SamplingParams]:
        """One for each answer that is wanted; of several with a seed, each has its own."""
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )
        stop, count = [self.stop] if isinstance(self.stop, str) else self.stop or [], self.n or 1
        check_sampling(count, new_tokens, stop, logprobs, settings.limits)
        seeds = [None if self.seed is None else self.seed + number for number in range(count)]
        return [self.choose(settings, new_tokens=new_tokens, logprobs=logprobs, stop=stop, seed=seed) for seed in seeds]


def format_rule(given: Mapping[str, Any] | None, settings: Settings, param: str) -> OutputRule | None:
    """A response format: the schema lies inside json_schema, or, in responses and llama-server's form, beside type."""
    kind = None if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind == "json_object" and given.get("schema") is None:
        return OutputRule(json_object=True)
    if kind not in ("json_object", "json_schema"):
        raise RequestError(
            f"{param}.type must be 'text', 'json_object' or 'json_schema'.", param=f"{param}.type", code="invalid_value"
        )
    inside = "json_schema" in given
    inner, place = (given["json_schema"], f"{param}.json_schema.schema") if inside else (given, f"{param}.schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if schema is None:
        raise RequestError(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")
    return schema_rule(schema, settings, place)


def structured_rule(given: StructuredOutputs | None, settings: Settings) -> OutputRule | None:
    if given is None:
        return None
    param = "structured_outputs"
    if sum(one is not None for one in (given.regex, given.choice, given.json_schema)) != 1:
        raise RequestError(f"{param} must have exactly one of 'regex', 'choice' and 'json'.", param=param)
    if given.json_schema is not None:
        return schema_rule(given.json_schema, settings, f"{param}.json")
    check_schema(given.regex or given.choice, settings.limits, param)
    return OutputRule(regex=given.regex) if given.choice is None else OutputRule(choices=tuple(given.choice))


def schema_rule(schema: object, settings: Settings, param: str) -> OutputRule:
    """A JSON Schema, as an object or as its JSON text."""
    if not isinstance(schema, str | dict):
        raise RequestError(f"{param} must be an object; got {kind_of(schema)}.", param=param, code="invalid_type")
    check_schema(schema, settings.limits, param)
    return OutputRule(json_schema=schema if isinstance(schema, str) else json.dumps(schema))
