"""Reading: one to three printed lines of one to twelve capitals or digits, or words that stand beside shapes."""

from __future__ import annotations

from random import Random

from .ask import ask
from .canvas import Canvas, text_width
from .material import Scene, Turn
from .scene import SIDE, yes_no
from .things import RGB, choose_pairs, place_thing, with_article
from .words import near_miss, random_digits, random_letters, random_word, unlike

MARGIN = 5
SMALLEST, LARGEST = 20, 42  # font sizes: capitals of 14 to 29 pixels
SMALLEST_LONG = 13  # of lines of nine to twelve: capitals of 9 pixels
LONG = 0.22  # share of pictures with such lines
NTH = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
DARK_INKS: tuple[RGB, ...] = (
    (0, 0, 0), (20, 20, 24), (30, 40, 110), (120, 20, 24), (16, 84, 40), (84, 30, 110), (70, 70, 74), (96, 60, 20),
)  # fmt: skip
LIGHT_INKS: tuple[RGB, ...] = ((255, 255, 255), (250, 244, 210), (255, 236, 120), (200, 240, 255))
DARK_GROUNDS: tuple[RGB, ...] = ((24, 26, 32), (30, 44, 92), (20, 72, 48), (96, 24, 30), (72, 36, 92))


def random_line(rng: Random, level: float, longest: int, held_out: bool) -> str:
    """Half random letters, a quarter words, a quarter numbers."""
    longest = max(1, min(longest, 1 + round(7 * level)))
    length = rng.randint(1, longest)
    sort = rng.random()
    if held_out or (sort < 0.25 and longest >= 3):
        return random_word(rng, 3, max(3, longest), held_out)
    return random_digits(rng, length) if sort > 0.76 else random_letters(rng, length)


def long_line(rng: Random, held_out: bool) -> str:
    """Nine to twelve letters or digits that fit: as many words as random letters, some numbers."""
    while True:
        sort, length = rng.random(), rng.randint(9, 12)
        if held_out or sort < 0.45:
            line = random_word(rng, 9, 12, held_out)
        else:
            line = random_digits(rng, length) if sort > 0.85 else random_letters(rng, length)
        if text_width(line, SMALLEST_LONG) <= SIDE - 2 * MARGIN:
            return line


def largest_size(lines: list[str], width: float, height: float, smallest: int = SMALLEST) -> int:
    """The largest font size whose lines fit a box of that many pixels."""
    size = LARGEST
    while size > smallest and (
        max(text_width(line, size) for line in lines) > width or 1.12 * size * len(lines) > height
    ):
        size -= 1
    return size


def draw_read(rng: Random, level: float, held_out: bool) -> Scene:
    if rng.random() < 0.25:
        return _beside_shapes(rng, level, held_out)
    count = rng.choices((1, 2, 3), (6, 2.5 * level, 1.5 * level))[0]
    long = rng.random() < LONG * level
    if long:
        count = min(count, 2)
    lines = [
        long_line(rng, held_out) if long and index == 0 else random_line(rng, level, 8, held_out and index == 0)
        for index in range(count)
    ]
    bright = rng.random() < 0.82
    canvas = Canvas(rng, SIDE, None if bright else rng.choice(DARK_GROUNDS))
    ink = rng.choice(DARK_INKS if bright else LIGHT_INKS)
    largest = largest_size(lines, SIDE - 2 * MARGIN, SIDE - 2 * MARGIN, SMALLEST_LONG if long else SMALLEST)
    size = rng.randint(min(largest, 24), largest)
    bold = rng.random() < 0.25
    step = min((SIDE - 2 * MARGIN) / count, size * rng.uniform(1.12, 1.5))
    slack = max(0.0, SIDE - 2 * MARGIN - step * count)
    y = MARGIN + step / 2 + rng.uniform(0.25, 0.75) * slack
    for line in lines:
        room = max(0.0, SIDE - 2 * MARGIN - text_width(line, size))
        canvas.text(MARGIN + rng.uniform(0.0, 1.0) * room, y, line, size, ink, bold=bold)
        y += step
    return Scene("read", (canvas.finish(),), turns=_turns(rng, lines), marks=tuple(canvas.marks), detail="low")


def _turns(rng: Random, lines: list[str]) -> tuple[Turn, ...]:
    turns = [Turn(ask(rng, "read"), " ".join(lines), f"read_{len(lines)}")]
    numbers = [line for line in lines if line.isdigit()]
    if len(numbers) == 1 and rng.random() < 0.6:
        turns.append(Turn(ask(rng, "read_number"), numbers[0], "read_number"))
    for shown in (*lines, *lines[:1]) if rng.random() < 0.7 else ():
        yes = rng.random() < 0.5
        word = shown if yes else (near_miss if rng.random() < 0.5 else unlike)(rng, shown)
        if yes or word not in lines:
            turns.append(Turn(ask(rng, "is_written", word=word), yes_no(yes), "is_written"))
    if len(lines) == 1:
        turns += _turns_on_letters(rng, lines[0])
    else:
        for index in rng.sample(range(len(lines)), rng.randint(1, len(lines))):
            turns.append(Turn(ask(rng, "read_line", n=str(index + 1), nth=NTH[index]), lines[index], "read_line"))
    if rng.random() < 0.3:
        turns.append(Turn(ask(rng, "count_lines"), str(len(lines)), "count_lines"))
    if rng.random() < 0.12:
        turns.append(Turn(ask(rng, "sort"), "a printed text", "sort"))
    if rng.random() < 0.15:
        turns.append(Turn(ask(rng, "describe"), f"The text {' '.join(lines)}.", "describe_text"))
    first, rest = turns[0], turns[1:]
    rng.shuffle(rest)
    return (*rest, first) if rng.random() < 0.3 else (first, *rest)


def _turns_on_letters(rng: Random, line: str) -> list[Turn]:
    if line.isdigit() or len(line) < 2:
        return []
    turns = [Turn(ask(rng, "count_letters"), str(len(line)), "count_letters")] if rng.random() < 0.55 else []
    for index in rng.sample(range(len(line)), min(len(line), rng.randint(1, 3))):
        turns.append(Turn(ask(rng, "letter_at", nth=NTH[index]), line[index], "letter_at"))
    if rng.random() < 0.4:
        turns.append(Turn(ask(rng, "letter_at", nth="last"), line[-1], "letter_at"))
    return turns


def _beside_shapes(rng: Random, level: float, held_out: bool) -> Scene:
    """One shape with a word below it, or rows of a shape with a word at its right."""
    count = 1 + rng.randint(0, round(2 * level))
    canvas = Canvas(rng, SIDE)
    ink = rng.choice(DARK_INKS)
    below = count == 1 and rng.random() < 0.6
    chosen = choose_pairs(rng, count, held_out, distinct=True)
    turns: list[Turn] = []
    lines: list[str] = []
    for row, pair in enumerate(chosen):
        line = random_line(rng, level, 8 if below else 4, held_out and row == 0)
        while text_width(line, SMALLEST) > (SIDE - 2 * MARGIN if below else 78) or line in lines:
            line = random_line(rng, level, 4, held_out=False)
        lines.append(line)
        thing = place_thing(rng, pair, 1 if below else 3, "large")
        y = SIDE * (0.3 if below else (row + 0.5) / count)
        thing = thing.moved(0.5 + rng.uniform(-0.1, 0.1) if below else 0.17, y / SIDE)
        canvas.thing(thing)
        if below:
            size = largest_size([line], SIDE - 2 * MARGIN, 40)
            canvas.centred(SIDE / 2, 98 + rng.uniform(-5, 5), line, size, ink)
        else:
            canvas.text(44 + rng.uniform(0, 3), y, line, largest_size([line], 78, 36), ink)
        turns.append(Turn(ask(rng, "word_below" if below else "word_by", thing=thing.name), line, "word_by"))
        if rng.random() < 0.5 and not below:
            turns.append(Turn(ask(rng, "thing_by", word=line), thing.name, "thing_by"))
    turns.append(Turn(ask(rng, "read"), " ".join(lines), f"read_{count}"))
    if rng.random() < 0.3:
        told = [
            f"{with_article(f'{colour} {shape}')} with the text {line}"
            for (colour, shape), line in zip(chosen, lines, strict=True)
        ]
        text = ", ".join(told)
        turns.append(Turn(ask(rng, "describe"), f"{text[0].upper()}{text[1:]}.", "describe_beside"))
    rng.shuffle(turns)
    return Scene("read", (canvas.finish(),), turns=tuple(turns), marks=tuple(canvas.marks), detail="low")
