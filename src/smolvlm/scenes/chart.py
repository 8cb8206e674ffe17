"""Bar charts: two to five labelled bars, whole values from 1 to 10, an axis with a few numbers."""

from __future__ import annotations

from functools import partial
from random import Random

from .ask import ask
from .canvas import CAP_HEIGHT, Canvas, text_width
from .material import Scene, Turn
from .scene import SIDE, yes_no
from .things import COLOURS, RGB, tint
from .words import KNOWN_WORDS, LETTERS, random_word

LEFT, RIGHT, TOP, BOTTOM = 21, 125, 12, 108  # the plot, in pixels
UNIT = (BOTTOM - TOP) / 10
INK: RGB = (24, 24, 28)
GRID: RGB = (214, 214, 218)


def draw_chart(rng: Random, level: float) -> Scene:
    count = 2 + rng.randint(0, round(3 * level))
    labels = _labels(rng, count)
    values = _values(rng, count)
    colours = rng.sample(list(COLOURS), count) if rng.random() < 0.6 else [rng.choice(list(COLOURS))] * count
    printed = rng.random() < 0.4
    canvas = Canvas(rng, SIDE)
    for value in range(11):
        strong = value % 5 == 0
        y = BOTTOM - value * UNIT
        if strong:
            canvas.box(LEFT - 3, y - 0.5, RIGHT, y + 0.5, GRID)
            number = str(value)
            canvas.text(LEFT - 5 - text_width(number, 13), min(y, SIDE - 6), number, 13, INK)
        else:
            canvas.box(LEFT - 3, y - 0.5, LEFT, y + 0.5, INK)
    slot = (RIGHT - LEFT) / count
    share = rng.uniform(0.5, 0.75)
    for index, (label, value, colour) in enumerate(zip(labels, values, colours, strict=True)):
        middle = LEFT + (index + 0.5) * slot
        top = BOTTOM - value * UNIT
        canvas.box(middle - slot * share / 2, top, middle + slot * share / 2, BOTTOM, tint(rng, colour), colour)
        canvas.centred(middle, BOTTOM + 11, label, 16 if len(label) == 1 else 13, INK)
        if printed:
            canvas.centred(middle, top - 1 - CAP_HEIGHT * 13 / 2 if value < 10 else top - 6, str(value), 13, INK)
    canvas.box(LEFT - 0.5, TOP - 4, LEFT + 0.5, BOTTOM + 0.5, INK)
    canvas.box(LEFT - 0.5, BOTTOM - 0.5, RIGHT, BOTTOM + 0.5, INK)
    more = partial(_turns, labels=labels, values=values, colours=colours)
    turns = more(rng)
    return Scene("chart", (canvas.finish(),), None, turns, tuple(canvas.marks), "low", more)


def _labels(rng: Random, count: int) -> list[str]:
    if count > 3 or rng.random() < 0.6:
        return sorted(rng.sample(LETTERS, count)) if rng.random() < 0.5 else rng.sample(LETTERS, count)
    labels: list[str] = []
    while len(labels) < count:
        word = random_word(rng, 3, 3)
        if word not in labels and text_width(word, 13) < (RIGHT - LEFT) / count - 3:
            labels.append(word)
    return labels


def _values(rng: Random, count: int) -> list[int]:
    """Mostly all different, so that the highest and the lowest are one bar each."""
    return rng.sample(range(1, 11), count) if rng.random() < 0.75 else [rng.randint(1, 10) for _ in range(count)]


def _turns(rng: Random, labels: list[str], values: list[int], colours: list[str]) -> tuple[Turn, ...]:
    read = ", ".join(f"{label} {value}" for label, value in zip(labels, values, strict=True)) + "."
    turns = [Turn(ask(rng, "chart_count"), str(len(labels)), "chart_count")] if rng.random() < 0.4 else []
    turns += _turns_on_extremes(rng, labels, values)
    for index in rng.sample(range(len(labels)), 2):
        turns.append(Turn(ask(rng, "chart_value", a=labels[index]), str(values[index]), "chart_value"))
    if len(set(colours)) == len(colours):
        index = rng.randrange(len(labels))
        turns.append(Turn(ask(rng, "chart_colour", a=labels[index]), colours[index], "chart_colour"))
        index = rng.randrange(len(labels))
        turns.append(Turn(ask(rng, "chart_by_colour", colour=colours[index]), labels[index], "chart_by_colour"))
    turns += _turns_on_two(rng, labels, values)
    if rng.random() < 0.12:
        taken = set(labels)
        names = LETTERS if len(labels[0]) == 1 else [word for word in KNOWN_WORDS if len(word) == 3]
        other = rng.choice([name for name in names if name not in taken])
        turns.append(Turn(ask(rng, "chart_value", a=other), f"There is no bar {other}.", "chart_value_absent"))
    if rng.random() < 0.1:
        turns.append(Turn(ask(rng, "sort"), "a bar chart", "sort"))
    rng.shuffle(turns)
    turns = turns[:7]
    if rng.random() < 0.15:
        turns.append(Turn(ask(rng, "describe"), f"A bar chart: {read}", "describe_chart"))
    if rng.random() < 0.7:
        turns.insert(0 if rng.random() < 0.5 else len(turns), Turn(ask(rng, "chart_read"), read, "chart_read"))
    return tuple(turns)


def _turns_on_extremes(rng: Random, labels: list[str], values: list[int]) -> list[Turn]:
    turns: list[Turn] = []
    for key, extreme in (("chart_highest", max(values)), ("chart_lowest", min(values))):
        if values.count(extreme) == 1 and rng.random() < 0.8:
            turns.append(Turn(ask(rng, key), labels[values.index(extreme)], key))
    if rng.random() < 0.3:
        turns.append(Turn(ask(rng, "chart_highest_value"), str(max(values)), "chart_highest_value"))
    return turns


def _turns_on_two(rng: Random, labels: list[str], values: list[int]) -> list[Turn]:
    turns: list[Turn] = []
    one, two = rng.sample(range(len(labels)), 2)
    if values[one] != values[two]:
        yes = rng.random() < 0.5
        a, b = (one, two) if (values[one] > values[two]) == yes else (two, one)
        turns.append(Turn(ask(rng, "chart_taller", a=labels[a], b=labels[b]), yes_no(yes), "chart_taller"))
    if rng.random() < 0.5:
        high, low = max(one, two, key=values.__getitem__), min(one, two, key=values.__getitem__)
        if rng.random() < 0.5 or high == low:
            answer, key = values[one] + values[two], "chart_sum"
        else:
            answer, key = values[high] - values[low], "chart_difference"
        turns.append(Turn(ask(rng, key, a=labels[one], b=labels[two]), str(answer), key))
    return turns
