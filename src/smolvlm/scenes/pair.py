"""Two pictures: which one has something, what is the same, how many more, and what changed from one to the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

from .ask import ask
from .canvas import Canvas
from .material import Mark, Scene, Turn
from .scene import SIDE, yes_no
from .telling import describe
from .things import COLOURS, PLACES, SHAPES, Thing, choose_things, pairs, place_thing, tint, with_article

WHICH = ("first", "second")
MOST = 4


def draw_pair(rng: Random, level: float, held_out: bool) -> Scene:
    most = 1 + round((MOST - 1) * level)
    sort = rng.random()
    if sort < 0.4:
        one = choose_things(rng, rng.randint(1, most), held_out=held_out, distinct=True)
        two, changed = change(rng, one, held_out)
        turns = [Turn(ask(rng, "changed"), changed, "changed")]
    else:
        one = choose_things(rng, 1 if sort > 0.85 else rng.randint(1, most), held_out=held_out, distinct=True)
        two = [_alike(rng, one[0])] if sort > 0.85 else choose_things(rng, rng.randint(1, most), distinct=True)
        turns = []
    if rng.random() < 0.5:
        one, two = (one, two) if sort < 0.4 else (two, one)
    pictures, marks = [], list[Mark]()
    for index, things in enumerate((one, two)):
        canvas = Canvas(rng, SIDE, picture=index)
        for thing in things:
            canvas.thing(thing)
        pictures.append(canvas.finish())
        marks += canvas.marks
    more = partial(_turns, one=one, two=two, held_out=held_out)
    turns += more(rng)
    rng.shuffle(turns)
    return Scene("pair", tuple(pictures), None, tuple(turns[:7]), tuple(marks), "low", more)


def change(rng: Random, things: list[Thing], held_out: bool) -> tuple[list[Thing], str]:
    """The things after one change, and the sentence that tells it."""
    sort = rng.choice(("colour", "moved", "added", "removed"))
    if sort == "removed" and len(things) == 1:
        sort = "added"
    taken = {thing.pair for thing in things}
    free = [place for place in range(9) if place not in {thing.place for thing in things}]
    if sort == "added":
        pair = rng.choice([pair for pair in pairs(held_out=False) if pair not in taken])
        new = place_thing(rng, pair, rng.choice(free))
        return _ordered([*things, new]), f"{with_article(new.name).capitalize()} was added {new.at}."
    index = rng.randrange(len(things))
    old, others = things[index], things[:index] + things[index + 1 :]
    if sort == "removed":
        return others, f"The {old.name} was removed."
    if sort == "moved":
        new = place_thing(rng, old.pair, rng.choice(free), old.size)
        new = replace(new, diameter=old.diameter, rgb=old.rgb, angle=old.angle)
        way = f"from the {PLACES[old.place]} to the {PLACES[new.place]}"
        return _ordered([*others, new]), f"The {old.name} moved {way}."
    colours = [colour for colour, shape in pairs(held_out=False) if shape == old.shape and (colour, shape) not in taken]
    colour = rng.choice(colours)
    return _ordered([*others, replace(old, colour=colour, rgb=tint(rng, colour))]), f"The {old.name} turned {colour}."


def _alike(rng: Random, thing: Thing) -> Thing:
    """A thing elsewhere that has the same colour, the same shape, both or neither, all four about as often."""
    wanted = (rng.random() < 0.5, rng.random() < 0.5)
    known = pairs(held_out=False)
    fitting = [pair for pair in known if (pair[0] == thing.colour, pair[1] == thing.shape) == wanted]
    return place_thing(rng, rng.choice(fitting or known), rng.randrange(9))


def _ordered(things: list[Thing]) -> list[Thing]:
    return sorted(things, key=lambda thing: thing.place)


def _turns(rng: Random, one: list[Thing], two: list[Thing], held_out: bool) -> tuple[Turn, ...]:
    turns = [_which_has(rng, one, two, held_out) for _ in range(rng.randint(2, 3))]
    turns = list({turn.question.lower(): turn for turn in turns}.values())
    more = 0 if len(one) > len(two) else 1
    gap = abs(len(one) - len(two))
    if rng.random() < (0.6 if gap else 0.35):
        answer = f"the {WHICH[more]}" if gap else "the same"
        turns.append(Turn(ask(rng, "more"), answer, "more"))
    if gap and rng.random() < 0.7:
        turns.append(Turn(ask(rng, "difference", which=WHICH[more]), str(gap), "difference"))
    if rng.random() < (0.42 if gap else 0.5):
        turns.append(Turn(ask(rng, "same_count"), yes_no(not gap), "same_count"))
    if len(one) == len(two) == 1:
        a, b = one[0], two[0]
        for key, same in (("same_colour", a.colour == b.colour), ("same_shape", a.shape == b.shape)):
            turns.append(Turn(ask(rng, key), "the same" if same else "different", key))
    index = rng.randrange(2)
    if rng.random() < 0.4:
        turns.append(Turn(ask(rng, "count_in", which=WHICH[index]), str(len((one, two)[index])), "count_in"))
    if rng.random() < 0.5:
        index = rng.randrange(2)
        turns.append(Turn(ask(rng, "describe_one", which=WHICH[index]), describe((one, two)[index]), "describe_one"))
    return tuple(turns)


def _which_has(rng: Random, one: list[Thing], two: list[Thing], held_out: bool) -> Turn:
    """Choose the answer first, then something that fits it."""
    sort = rng.choice(("pair", "pair", "colour", "shape"))
    if sort == "pair":
        every = [" ".join(pair) for pair in pairs(held_out)]
        left, right = {thing.name for thing in one}, {thing.name for thing in two}
    elif sort == "colour":
        every = [f"{colour} shape" for colour in COLOURS]
        left, right = {f"{thing.colour} shape" for thing in one}, {f"{thing.colour} shape" for thing in two}
    else:
        every = list(SHAPES)
        left, right = {thing.shape for thing in one}, {thing.shape for thing in two}
    fitting = {
        "the first": sorted(left - right),
        "the second": sorted(right - left),
        "both": sorted(left & right),
        "neither": [name for name in every if name not in left | right],
    }
    answers = [answer for answer, names in fitting.items() if names]
    answer = rng.choices(answers, [0.6 if answer == "neither" else 1.0 for answer in answers])[0]
    return Turn(ask(rng, "which_has", a_thing=with_article(rng.choice(fitting[answer]))), answer, "which_has")
