"""Sentences about a set of things: descriptions, captions, a story. The things come in reading order."""

from __future__ import annotations

from .things import NUMBER_WORDS, PLACES, Thing, join

ALONE = "It was all alone and happy."


def describe(things: list[Thing], word: tuple[str, int] | None = None) -> str:
    """`A large red circle at the top left, a small blue star at the center.` A printed word gets its own sentence."""
    text = ", ".join(f"a {thing.full} {thing.at}" for thing in things)
    text = f"A{text[1:]}."
    return text if word is None else f"{text} The word {word[0]} at the {PLACES[word[1]]}."


def caption_short(things: list[Thing]) -> str:
    """`Three shapes: red circle, blue star and green ring.`"""
    number = NUMBER_WORDS[len(things)].capitalize()
    return f"{number} {'shape' if len(things) == 1 else 'shapes'}: {join([thing.name for thing in things])}."


def caption_long(things: list[Thing]) -> str:
    """One sentence on the number of shapes, then one sentence a shape."""
    number = f"{NUMBER_WORDS[len(things)]} {'shape' if len(things) == 1 else 'shapes'}"
    parts = [f"{thing.at.capitalize()} there is a {thing.full}." for thing in things]
    return f"This drawing shows {number}. {' '.join(parts)}"


def story(things: list[Thing]) -> str:
    """Two sentences: the first thing is the hero, the others are met in order."""
    hero, others = things[0], things[1:]
    opening = f"Once upon a time, a {hero.full} lived {hero.at}."
    if not others:
        return f"{opening} {ALONE}"
    return f"{opening} One day it met {join([f'a {thing.full}' for thing in others])}."
