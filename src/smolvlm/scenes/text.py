"""Talk without a picture: who the model is, small sums, words to copy and spell, and honest answers on the rest."""

from __future__ import annotations

from random import Random

from .ask import ask
from .material import Scene, Turn
from .scene import DONT_KNOW
from .things import PLACES, pairs, plural, with_article
from .words import KNOWN_WORDS, random_letters

WHO = "I am smolvlm-nano, a tiny vision-language model that knows drawn pictures only."
CAN_DO = (
    "I can describe drawn shapes, count them, read printed words, bar charts and receipts, "
    "compare two pictures and tell what happens in a short drawn video."
)
FIXED = {
    "who": WHO,
    "can_do": CAN_DO,
    "hello": "Hello! Show me a picture and ask me about it.",
    "how_are_you": "I am fine, thank you.",
    "thanks": "You are welcome.",
    "bye": "Goodbye!",
    "no_picture": "Please show me a picture.",
    "beyond": DONT_KNOW,
}
MIXES = {
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("blue", "red"): "purple",
    ("red", "white"): "pink",
}
CORNERS = {"circle": 0, "square": 4, "triangle": 3, "star": 10, "diamond": 4, "cross": 12}
ON_PICTURES = (
    "no_picture", "describe", "caption_short", "story", "count_all", "count_colour", "count_shape", "colour_of",
    "shape_of", "at_place", "where", "size_of", "exists", "read", "read_number", "chart_highest", "chart_read", "total",
    "happens",
)  # fmt: skip
_SORTS = (*FIXED, "add", "add", "subtract", "greater", "copy", "copy", "spell", "spell", "mix", "corners")


_SUMS = ("add", "add", "subtract", "subtract", "greater")
SUMS = 0.5  # share of talks that are sums and nothing else


def draw_text(rng: Random, level: float) -> Scene:
    """Two to five turns without a picture, or four to eight sums."""
    sums = rng.random() < SUMS
    sorts = rng.choices(_SUMS, k=rng.randint(4, 8)) if sums else rng.sample(_SORTS, rng.randint(2, 5))
    return Scene("text", turns=tuple(_turn(rng, sort, level) for sort in sorts), detail="low")


def _turn(rng: Random, sort: str, level: float) -> Turn:
    if sort == "no_picture":
        return Turn(question_on_a_picture(rng), FIXED[sort], sort)
    if sort in FIXED:
        return Turn(ask(rng, sort), FIXED[sort], sort)
    if sort in ("add", "subtract", "greater"):
        return _sum(rng, sort)
    if sort in ("copy", "spell"):
        longest = 2 + round(6 * level)
        words = [word for word in rng.sample(KNOWN_WORDS, 8) if len(word) <= longest]
        word = words[0] if words and rng.random() < 0.5 else random_letters(rng, rng.randint(2, longest))
        return Turn(ask(rng, sort, word=word), word if sort == "copy" else "-".join(word), sort)
    if sort == "mix":
        parts, answer = rng.choice(sorted(MIXES.items()))
        a, b = rng.sample(parts, 2)
        return Turn(ask(rng, sort, a=a, b=b), answer, sort)
    shape = rng.choice(sorted(CORNERS))
    return Turn(ask(rng, "corners", a_shape=with_article(shape)), str(CORNERS[shape]), sort)


def question_on_a_picture(rng: Random) -> str:
    """A question that makes no sense without a picture."""
    colour, shape = rng.choice(pairs(held_out=False))
    name = f"{colour} {shape}"
    slots = {"shape": shape, "shapes": plural(shape), "thing": name, "a_thing": with_article(name)}
    return ask(rng, rng.choice(ON_PICTURES), colour=colour, place=rng.choice(PLACES), **slots)


def _sum(rng: Random, sort: str) -> Turn:
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    if sort == "subtract":
        a, b = max(a, b), min(a, b)
        answer = a - b
    elif sort == "greater":
        b = b if a != b else (a + 1) % 10
        answer = max(a, b)
    else:
        answer = a + b
    return Turn(ask(rng, sort, a=str(a), b=str(b)), str(answer), sort)
