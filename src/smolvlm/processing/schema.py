"""JSON schemas that an answer can follow: what is refused because it can't be promised, what is settled that is open.

JSON is written as Python's json.dumps writes it, on one line, so that no model can lose itself in blanks. Which
keywords are known, and what fits them, is llguidance's; see grammar.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..errors import InputError

LARGEST_MULTIPLE = 10_000  # of multipleOf, which takes as many states: a million would be 7 s and 300 MB
# Escapes that name characters by number are left out: a key written so would be taken for another than it is.
STYLE = {
    "whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "json_allowed_escapes": '"\\bfnrt',
    "coerce_one_of": False, "lenient": False,
}  # fmt: skip


def followable(text: str) -> str:
    """The JSON text of a schema -> that of one whose every answer fits it.

    Raises InputError for what is no schema, costs too much, or can't be promised.
    """
    try:
        given = json.loads(text)
        schema = _closed(given) if isinstance(given, dict) else {}
        written = json.dumps({**schema, "x-guidance": STYLE})
    except (ValueError, RecursionError) as error:
        raise InputError(f"The JSON schema can't be read as JSON: {error}.") from error
    if not isinstance(given, dict):
        raise InputError(f'The JSON schema must be an object, such as {{"type": "object"}}; got {text[:40]!r}.')
    multiples = []
    for part in _parts(schema):
        if isinstance(part, str):
            _refuse_control(part)
        elif isinstance(part, dict):
            _refuse_doubtful(part)
            if isinstance(part.get("multipleOf"), int | float):
                multiples.append(part["multipleOf"])
    _refuse_multiples(multiples)
    return written


def _parts(schema: dict[str, Any]) -> Iterator[Any]:
    """All values and keys in a JSON value, however deep."""
    left: list[Any] = [schema]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with objects of the named properties only, where it leaves that open: what fits it fits the other.

    Else a weak model goes on with names of its own invention. Schemas that join others keep what they have.
    """
    for part in _parts(schema):
        if isinstance(part, dict) and ("allOf" in part or {"$ref", "properties"} <= part.keys()):
            return schema
    return _closed_part(schema)


def _closed_part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    named = part.get("properties")
    changed = dict(part)
    for key, value in part.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            changed[key] = {name: _closed_part(inner) for name, inner in value.items()}
        elif key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list) and named is None:
            changed[key] = [_closed_part(inner) for inner in value]
        elif key in ("items", "additionalProperties"):
            changed[key] = _closed_part(value)
    if isinstance(named, dict) and not part.keys() & {"patternProperties", "anyOf", "oneOf"}:
        required = part.get("required", ())
        if all(name in named for name in required if isinstance(name, str)):
            changed.setdefault("additionalProperties", False)
    return changed


def _refuse_control(text: str) -> None:
    """Raise InputError for a character that JSON writes by its number, see JSON_STYLE."""
    found = re.search(r"[^\b\f\n\r\t -\x7e\x80-\U0010ffff]", text)
    if found:
        raise InputError(f"The JSON schema holds the control character {found[0]!r}, which no answer can have.")


def _refuse_doubtful(part: dict[str, Any]) -> None:
    """Raise InputError for what the output could break: a key that comes twice counts once in minProperties."""
    least = part.get("minProperties")
    open_ended = part.get("additionalProperties") is not False or "patternProperties" in part
    if isinstance(least, int) and least > max(1, len(part.get("required", ()))) and open_ended:
        raise InputError(
            f"The JSON schema asks for minProperties={least} of any name, which can't be promised, for one could be "
            "written twice: name them in properties and required, or say additionalProperties=false."
        )


def _refuse_multiples(multiples: list[float]) -> None:
    """Raise InputError for numbers of multipleOf that together need too many states."""
    if any(not 0 < number < math.inf for number in multiples):
        raise InputError(f"The JSON schema has multipleOf={multiples}: it must be above 0.")
    parts = [Fraction(Decimal(str(number))) for number in multiples]
    common = math.lcm(*(part.denominator for part in parts))
    states = math.lcm(*(int(part * common) for part in parts))
    if states > LARGEST_MULTIPLE:
        raise InputError(
            f"The JSON schema has multipleOf={multiples}, which takes too long to follow: numbers whose smallest "
            f"common multiple is at most {LARGEST_MULTIPLE:,}, in units of the last decimal, are allowed."
        )
