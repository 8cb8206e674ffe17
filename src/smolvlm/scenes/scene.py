"""Scenes: one to six shapes in the cells of a 3x3 grid, and everything that can be asked about them.

Each asker returns None when the picture has no question of its sort with one right answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from .ask import ask
from .canvas import Canvas, text_width
from .material import Scene, Turn
from .telling import caption_long, caption_short, describe, story
from .things import (
    ALL_COLOURS,
    ALL_SHAPES,
    COLOURS,
    PLACES,
    SHAPES,
    Thing,
    choose_pairs,
    choose_things,
    is_reserved,
    pairs,
    place_thing,
    plural,
    with_article,
)
from .words import near_miss, random_letters, random_word

Asker = Callable[[Random, list[Thing], bool], Turn | None]
CANT_TELL = "I can't tell from the picture."
DONT_KNOW = "I don't know. I know drawn pictures only."
SIDE = 128
APART = 0.2  # least distance, as a share of the side, for a relation to be asked about


def draw_scene(rng: Random, level: float, held_out: bool) -> Scene:
    if rng.random() < 0.015 and not held_out:
        return _empty(rng)
    things = choose_things(rng, 1 + rng.randint(0, round(5 * level)), held_out=held_out)
    canvas = Canvas(rng, SIDE)
    for thing in things:
        canvas.thing(thing)
    more = partial(turns_about, things=things, held_out=held_out)
    turns = more(rng)
    return Scene("scene", (canvas.finish(),), None, turns, tuple(canvas.marks), "low", more)


def draw_new_things(rng: Random) -> Scene:
    """One to three things, one of them of a reserved shape or colour at least, with the plainest questions."""
    new = [(colour, shape) for colour in ALL_COLOURS for shape in ALL_SHAPES if is_reserved(colour, shape)]
    count = rng.randint(1, 3)
    chosen = [rng.choice(new), *choose_pairs(rng, count - 1, distinct=True)]
    places = sorted(rng.sample(range(9), count))
    rng.shuffle(chosen)
    things = [place_thing(rng, pair, place) for pair, place in zip(chosen, places, strict=True)]
    canvas = Canvas(rng, SIDE)
    for thing in things:
        canvas.thing(thing)
    asked = (_colour_of(rng, things, False), _shape_of(rng, things, False), _at_place(rng, things, False))
    turns = [turn for turn in (*asked, _where(rng, things, False), _count_all(rng, things, False)) if turn]
    turns.append(Turn(ask(rng, "describe"), describe(things), "describe"))
    return Scene("scene", (canvas.finish(),), turns=tuple(turns), marks=tuple(canvas.marks), detail="low")


def _empty(rng: Random) -> Scene:
    """A picture of nothing."""
    place, colour, shape = rng.choice(PLACES), rng.choice(list(COLOURS)), rng.choice(SHAPES)
    turns = [
        Turn(ask(rng, "describe"), "The picture is empty.", "describe_empty"),
        Turn(ask(rng, "count_all"), "0", "count_all"),
        Turn(ask(rng, "at_place", place=place), "nothing", "at_place"),
        Turn(ask(rng, "colour_of", shape=shape), f"There is no {shape}.", "colour_of_absent"),
        Turn(ask(rng, "shape_of", colour=colour), f"There is no {colour} shape.", "shape_of_absent"),
    ]
    rng.shuffle(turns)
    return Scene("scene", (Canvas(rng, SIDE).finish(),), turns=tuple(turns), detail="low")


def draw_tiles(rng: Random, level: float, held_out: bool) -> Scene:
    """A scene on four tiles, with a small printed word in a cell of its own."""
    things = choose_things(rng, 1 + rng.randint(0, round(5 * level)), held_out=held_out)
    canvas = Canvas(rng, 2 * SIDE)
    for thing in things:
        canvas.thing(thing)
    free = [place for place in range(9) if place not in {thing.place for thing in things}]
    place = rng.choice(free)
    text = random_word(rng, 3, 5, held_out) if rng.random() < 0.5 else random_letters(rng, rng.randint(2, 5))
    size = rng.randint(19, 22)
    while text_width(text, size) > 82:
        size -= 1
    ink = rng.choice(((20, 20, 24), (40, 40, 90), (90, 30, 30)))
    canvas.centred(2 * SIDE * (place % 3 + 0.5) / 3, 2 * SIDE * (place // 3 + 0.5) / 3, text, size, ink)
    turns = list(turns_about(rng, things, held_out, word=(text, place)))
    turns[rng.randint(0, len(turns)) : 0] = turns_about_word(rng, text, place)
    return Scene("tiles", (canvas.finish(),), turns=tuple(turns), marks=tuple(canvas.marks), detail="auto")


def turns_about(
    rng: Random, things: list[Thing], held_out: bool, word: tuple[str, int] | None = None
) -> tuple[Turn, ...]:
    """Four to eight turns. A telling comes first or last: after it, the text would give the answers away."""
    wanted = rng.randint(4, 8)
    turns: list[Turn] = []
    seen: set[str] = set()
    for asker in rng.choices(ASKERS, WEIGHTS, k=3 * wanted):
        turn = asker(rng, things, held_out)
        if turn is None or turn.kind + turn.answer in seen or (word and clashes(turn, word[1])):
            continue
        seen.add(turn.kind + turn.answer)
        turns.append(turn)
        if len(turns) == wanted - 1:
            break
    if rng.random() < 0.75:
        turns.insert(0 if rng.random() < 0.5 else len(turns), tell(rng, things, word))
    return tuple(turns)


def clashes(turn: Turn, place: int) -> bool:
    """Whether a question about an empty place means the place of the printed word."""
    return turn.kind == "at_place" and turn.answer == "nothing" and PLACES[place] in turn.question


def tell(rng: Random, things: list[Thing], word: tuple[str, int] | None = None) -> Turn:
    kind = rng.choices(("describe", "caption_short", "caption_long", "story"), (7, 2, 1, 1))[0]
    if kind == "describe":
        return Turn(ask(rng, kind), describe(things, word), kind)
    teller = {"caption_short": caption_short, "caption_long": caption_long, "story": story}[kind]
    return Turn(ask(rng, kind), teller(things), kind)


def turns_about_word(rng: Random, text: str, place: int) -> list[Turn]:
    turns = [Turn(ask(rng, "read"), text, "read")]
    if rng.random() < 0.5:
        turns.append(Turn(ask(rng, "where_word", word=text), PLACES[place], "where_word"))
    if rng.random() < 0.5:
        yes = rng.random() < 0.5
        shown = text if yes else near_miss(rng, text)
        turns.append(Turn(ask(rng, "is_written", word=shown), yes_no(yes), "is_written"))
    return turns


def yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def unique_names(things: list[Thing]) -> list[Thing]:
    """Things whose colour and shape together occur once."""
    names = [thing.pair for thing in things]
    return [thing for thing in things if names.count(thing.pair) == 1]


def _count_all(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    return Turn(ask(rng, "count_all"), str(len(things)), "count_all")


def _count_colour(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    counts = {colour: sum(thing.colour == colour for thing in things) for colour in COLOURS}
    number = _number(rng, counts)
    colour = rng.choice([colour for colour, count in counts.items() if count == number])
    return Turn(ask(rng, "count_colour", colour=colour), str(number), "count_colour")


def _count_shape(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    counts = {shape: sum(thing.shape == shape for thing in things) for shape in SHAPES}
    number = _number(rng, counts)
    shape = rng.choice([shape for shape, count in counts.items() if count == number])
    return Turn(ask(rng, "count_shape", shapes=plural(shape)), str(number), "count_shape")


def _number(rng: Random, counts: dict[str, int]) -> int:
    """The answer first: one of the counts that occur, none half as often as each other."""
    numbers = sorted(set(counts.values()))
    return rng.choices(numbers, [number or 0.5 for number in numbers])[0]


def _colour_of(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    shapes = [thing.shape for thing in things]
    if rng.random() < 0.1:
        shape = rng.choice([shape for shape in SHAPES if shape not in shapes])
        return Turn(ask(rng, "colour_of", shape=shape), f"There is no {shape}.", "colour_of_absent")
    found = [thing for thing in things if shapes.count(thing.shape) == 1]
    if not found:
        return None
    thing = rng.choice(found)
    return Turn(ask(rng, "colour_of", shape=thing.shape), thing.colour, "colour_of")


def _shape_of(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    colours = [thing.colour for thing in things]
    if rng.random() < 0.1:
        colour = rng.choice([colour for colour in COLOURS if colour not in colours])
        return Turn(ask(rng, "shape_of", colour=colour), f"There is no {colour} shape.", "shape_of_absent")
    found = [thing for thing in things if colours.count(thing.colour) == 1]
    if not found:
        return None
    thing = rng.choice(found)
    return Turn(ask(rng, "shape_of", colour=thing.colour), thing.shape, "shape_of")


def _at_place(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    full = {thing.place: thing.name for thing in things}
    empty = [place for place in range(9) if place not in full]
    place = rng.choice(empty) if rng.random() < 0.2 else rng.choice(sorted(full))
    return Turn(ask(rng, "at_place", place=PLACES[place]), full.get(place, "nothing"), "at_place")


def _where(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    if rng.random() < 0.08:
        name = " ".join(_absent(rng, things, held_out))
        return Turn(ask(rng, "where", thing=name), f"There is no {name}.", "where_absent")
    found = unique_names(things)
    if not found:
        return None
    thing = rng.choice(found)
    return Turn(ask(rng, "where", thing=thing.name), PLACES[thing.place], "where")


def _size_of(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    found = unique_names(things)
    size = rng.choice(("small", "large"))
    found = [thing for thing in found if thing.size == size] or found
    if not found:
        return None
    thing = rng.choice(found)
    return Turn(ask(rng, "size_of", thing=thing.name), thing.size, "size_of")


def _absent(rng: Random, things: list[Thing], held_out: bool) -> tuple[str, str]:
    """A pair that is not there; mostly one that shares its colour or its shape with something that is."""
    there = {thing.pair for thing in things}
    absent = [pair for pair in pairs(held_out) if pair not in there]
    if rng.random() < 0.7:
        near = rng.choice(things)
        absent = [pair for pair in absent if (pair[0] == near.colour) != (pair[1] == near.shape)] or absent
    return rng.choice(absent)


def _exists(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    yes = rng.random() < 0.5
    colour, shape = rng.choice(things).pair if yes else _absent(rng, things, held_out)
    sort = rng.random()
    if sort < 0.2:
        there = sorted({thing.shape for thing in things})
        name = rng.choice(there) if yes else rng.choice([shape for shape in SHAPES if shape not in there])
    elif sort < 0.4:
        seen = sorted({thing.colour for thing in things})
        name = f"{rng.choice(seen if yes else [colour for colour in COLOURS if colour not in seen])} shape"
    else:
        name = f"{colour} {shape}"
    return Turn(ask(rng, "exists", a_thing=with_article(name)), yes_no(yes), "exists")


def _is_colour(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    shapes = [thing.shape for thing in things]
    found = [thing for thing in things if shapes.count(thing.shape) == 1]
    if not found:
        return None
    thing, yes = rng.choice(found), rng.random() < 0.5
    others = [colour for colour, shape in pairs(held_out) if shape == thing.shape and colour != thing.colour]
    colour = thing.colour if yes else rng.choice(others)
    return Turn(ask(rng, "is_colour", shape=thing.shape, colour=colour), yes_no(yes), "is_colour")


def _is_size(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    found = unique_names(things)
    if not found:
        return None
    thing, size = rng.choice(found), rng.choice(("small", "large"))
    return Turn(ask(rng, "is_size", thing=thing.name, size=size), yes_no(size == thing.size), "is_size")


def _is_at(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    found = unique_names(things)
    if not found:
        return None
    thing, yes = rng.choice(found), rng.random() < 0.5
    place = thing.place if yes else rng.choice([place for place in range(9) if place != thing.place])
    return Turn(ask(rng, "is_at", thing=thing.name, place=PLACES[place]), yes_no(yes), "is_at")


def _related(rng: Random, things: list[Thing], *, across: bool) -> tuple[Thing, Thing] | None:
    """Two things clearly apart in x (across) or y, in random order."""
    found = unique_names(things)
    apart = [
        (one, two)
        for one in found
        for two in found
        if one is not two and (abs(one.x - two.x) if across else abs(one.y - two.y)) > APART
    ]
    return rng.choice(apart) if apart else None


def _is_relation(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    across, yes = rng.random() < 0.5, rng.random() < 0.5
    chosen = _related(rng, things, across=across)
    if chosen is None:
        return None
    one, two = chosen
    if across:
        relation = "left of" if (one.x < two.x) == yes else "right of"
    else:
        relation = "above" if (one.y < two.y) == yes else "below"
    question = ask(rng, "is_relation", thing=one.name, other=two.name, relation=relation)
    return Turn(question, yes_no(yes), "is_relation")


def _relation(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    across = rng.random() < 0.5
    chosen = _related(rng, things, across=across)
    if chosen is None:
        return None
    one, two = chosen
    key = "left_or_right" if across else "above_or_below"
    answer = ("left" if one.x < two.x else "right") if across else ("above" if one.y < two.y else "below")
    return Turn(ask(rng, key, thing=one.name, other=two.name), answer, key)


def _extreme(rng: Random, things: list[Thing], held_out: bool) -> Turn | None:
    if len(things) < 2:
        return None
    size, key = rng.choice((("large", "largest"), ("small", "smallest")))
    found = [thing for thing in things if thing.size == size]
    if len(found) != 1:
        return None
    return Turn(ask(rng, key), found[0].name, key)


def _unknowable(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    if rng.random() < 0.3:
        return Turn(ask(rng, "beyond"), DONT_KNOW, "beyond")
    return Turn(ask(rng, "unknowable"), CANT_TELL, "unknowable")


def _sort(rng: Random, things: list[Thing], held_out: bool) -> Turn:
    return Turn(ask(rng, "sort"), "a drawing of shapes", "sort")


_WEIGHTED: tuple[tuple[Asker, float], ...] = (
    (_count_all, 1.0), (_count_colour, 1.2), (_count_shape, 1.2), (_colour_of, 2.0), (_shape_of, 1.6), (_at_place, 2.0),
    (_where, 1.6), (_size_of, 1.0), (_exists, 1.8), (_is_colour, 0.8), (_is_size, 0.5), (_is_at, 0.7),
    (_is_relation, 1.2), (_relation, 1.2), (_extreme, 2.4), (_unknowable, 0.35), (_sort, 0.15),
)  # fmt: skip
ASKERS = tuple(asker for asker, _ in _WEIGHTED)
WEIGHTS = tuple(weight for _, weight in _WEIGHTED)
