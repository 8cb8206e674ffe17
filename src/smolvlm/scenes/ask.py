"""How a question is put: paraphrases by key, the first one canonical, with now and then a polite prefix or lower case.

Things in braces are filled in by the skill; every paraphrase of a key has the same right answer. "|" separates them.
"""

from __future__ import annotations

from functools import cache
from random import Random

from .wording import PHRASES

PREFIXES = (
    "Please tell me: ", "Can you tell me: ", "Hi! ", "Please answer: ", "Look closely. ", "Question: ",
    "Quick question: ",
)  # fmt: skip
CANONICAL = 0.35  # share of questions put in the canonical way


@cache
def paraphrases(key: str) -> tuple[str, ...]:
    """Every way to put the question `key`, the canonical one first."""
    return tuple(part.strip() for part in " ".join(PHRASES[key].split()).split("|"))


def ask(rng: Random, key: str, **slots: str) -> str:
    """One of the ways to put the question `key`, with its slots filled."""
    options = paraphrases(key)
    text = options[0] if rng.random() < CANONICAL else rng.choice(options)
    manner = rng.random()
    if manner < 0.07:
        text = rng.choice(PREFIXES) + text
    elif manner < 0.14:
        text = text.lower()
    elif manner < 0.19:
        text = text.rstrip(".?!")
    elif manner < 0.22:
        text = text.rstrip(".?!").lower()
    return text.format(**slots)
