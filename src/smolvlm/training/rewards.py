"""What an answer earns in GRPO: functions of the answer and of the one in the data, both as text; higher is better."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from ..errors import ConfigError

Reward = Callable[[str, str], float]  # (answer of the model, answer of the data) -> reward

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def exact(answer: str, expected: str) -> float:
    """1 when both say the same, whatever the case, spaces and a full stop."""
    return float(_plain(answer) == _plain(expected))


def contains(answer: str, expected: str) -> float:
    """1 when the expected words stand in the answer, as whole words."""
    return float(f" {_plain(expected)} " in f" {_plain(answer)} ")


def number(answer: str, expected: str) -> float:
    """1 when the last number of both is the same, less the further it is away, 0 without a number."""
    said, meant = _NUMBER.findall(answer), _NUMBER.findall(expected)
    if not said or not meant:
        return 0.0
    return 1 / (1 + abs(float(said[-1]) - float(meant[-1])))


def brief(answer: str, expected: str) -> float:
    """1 for an exact answer, a tenth less for each word beyond the expected ones that surround it, at least 0."""
    if not contains(answer, expected):
        return 0.0
    return max(0.0, 1 - 0.1 * (len(answer.split()) - len(expected.split())))


REWARDS: dict[str, Reward] = {one.__name__: one for one in (exact, contains, number, brief)}


def reward_named(name: str) -> Reward:
    """One of these, or "module:function" of your own. Raises ConfigError."""
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"reward {name!r} can't be used: {error}.") from error
    if not callable(found):
        raise ConfigError(f"reward {name!r} is unknown; there are {', '.join(REWARDS)}, or write module:function.")
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".")
