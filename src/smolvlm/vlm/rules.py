"""What callers say an answer must be: schema=, regex= or choices=, as an output rule and the value its text stands for.

How a rule is followed is processing/grammar.py's. A Pydantic class is known by its methods: Pydantic needn't be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from ..errors import InputError
from ..types import OutputRule

Parse = Callable[[str], object]


class RuleOptions(TypedDict, total=False):
    """What the answer must be, at most one of them.

    schema: a Pydantic class, or a JSON Schema as a dictionary or JSON text; `Answer.parsed` is then an instance of the
    class or the JSON value. {"type": "object"} is any object. regex: an expression that the whole answer matches.
    choices: texts that the answer is one of.
    """

    schema: object
    regex: str | None
    choices: str | Sequence[str] | None


def read_rule(options: Mapping[str, object]) -> tuple[OutputRule | None, Parse | None]:
    """The rule among the options of a request, and what turns a text that follows it into its value.

    Raises InputError when there are several, or one is none.
    """
    given = {name: options[name] for name in RuleOptions.__annotations__ if options.get(name) is not None}
    if not given:
        return None, None
    if len(given) > 1:
        raise InputError(f"An answer follows one rule, but {' and '.join(given)} are given: leave all but one out.")
    ((name, value),) = given.items()
    if name == "schema":
        return OutputRule(json_schema=_schema(value)), _parser(value)
    if name == "regex":
        return OutputRule(regex=value), None  # type: ignore[arg-type]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"choices={value!r} can't be used: give a list of texts.")
    if not value:
        raise InputError("choices=[] leaves nothing to say: give at least one text.")
    return OutputRule(choices=tuple(value)), None


def _schema(value: object) -> str:
    """The JSON text of a schema."""
    if isinstance(value, str):
        return value
    write = getattr(value, "model_json_schema", None)
    if not isinstance(value, Mapping) and not callable(write):
        raise InputError(
            f"schema={value!r} can't be used: give a Pydantic class, or a JSON Schema as a dictionary or a JSON text."
        )
    try:
        return json.dumps(dict(value) if isinstance(value, Mapping) else write())  # type: ignore[misc]
    except (TypeError, ValueError, RuntimeError) as error:  # Pydantic's own are RuntimeErrors
        raise InputError(f"schema={value!r} has no JSON form: {str(error).splitlines()[0]}") from error


def _parser(value: object) -> Parse:
    """Text -> an instance of a class, or the JSON value; None for what the class refuses beyond its schema."""
    read = getattr(value, "model_validate_json", json.loads)

    def parse(text: str) -> object:
        try:
            return read(text)
        except (ValueError, RecursionError):  # of Pydantic, too
            return None

    return parse
