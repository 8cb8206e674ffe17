"""The vocabulary of drawn things: colours, shapes, sizes and places, and how a few of them are put on a picture.

Some colour-shape pairs are held out: they are neither drawn nor named unless a scene is asked for with held_out=True.
The reserved colour and shapes are drawn by no skill; they wait for fine-tuning tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (218, 38, 42),
    "orange": (246, 138, 24),
    "yellow": (242, 208, 28),
    "green": (40, 158, 66),
    "blue": (40, 88, 214),
    "purple": (132, 52, 172),
    "pink": (246, 132, 190),
    "black": (28, 28, 30),
}
RESERVED_COLOURS: dict[str, RGB] = {"brown": (128, 78, 40)}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
RESERVED_SHAPES = ("crescent", "arrow")
ALL_COLOURS = (*COLOURS, *RESERVED_COLOURS)
ALL_SHAPES = (*SHAPES, *RESERVED_SHAPES)
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("blue", "heart"),
        ("green", "ring"),
        ("yellow", "diamond"),
        ("purple", "circle"),
        ("pink", "cross"),
    }
)
KNOWN_PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)
EVERY_PAIR = tuple((c, s) for c in COLOURS for s in SHAPES)

# Diameters as a share of the picture's side. The gap between the two sizes is what makes them unambiguous.
DIAMETERS = {"small": (0.120, 0.148), "large": (0.240, 0.285)}
COLOUR_JITTER = 10


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn shape. x, y (centre) and diameter: shares of the picture's side; angle: degrees; place: cell 0..8."""

    colour: str
    shape: str
    size: str
    place: int
    x: float
    y: float
    diameter: float
    angle: float
    rgb: RGB

    @property
    def pair(self) -> tuple[str, str]:
        return self.colour, self.shape

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def full(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def at(self) -> str:
        return f"at the {PLACES[self.place]}"

    def moved(self, x: float, y: float) -> Thing:
        """The same thing elsewhere; its place is kept as it was."""
        return replace(self, x=x, y=y)


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def join(parts: list[str]) -> str:
    """`x`, `x and y`, `x, y and z`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def pairs(held_out: bool) -> tuple[tuple[str, str], ...]:
    """The colour-shape pairs a question may name."""
    return EVERY_PAIR if held_out else KNOWN_PAIRS


def is_reserved(colour: str, shape: str) -> bool:
    return colour in RESERVED_COLOURS or shape in RESERVED_SHAPES


def tint(rng: Random, colour: str) -> RGB:
    """The colour with a little jitter, still well inside its own name."""
    base = COLOURS.get(colour) or RESERVED_COLOURS[colour]
    red, green, blue = (min(255, max(0, value + rng.randint(-COLOUR_JITTER, COLOUR_JITTER))) for value in base)
    return red, green, blue


def place_thing(rng: Random, pair: tuple[str, str], place: int, size: str | None = None) -> Thing:
    """Put a shape into a cell of the 3x3 grid with jitter that can't be mistaken for a neighbouring cell."""
    size = size or rng.choice(("small", "large"))
    diameter = rng.uniform(*DIAMETERS[size])
    reach = min(0.06, 1 / 6 - diameter / 2 - 0.012)
    return Thing(
        colour=pair[0],
        shape=pair[1],
        size=size,
        place=place,
        x=(place % 3 + 0.5) / 3 + rng.uniform(-reach, reach),
        y=(place // 3 + 0.5) / 3 + rng.uniform(-reach, reach),
        diameter=diameter,
        angle=rng.uniform(-8, 8),
        rgb=tint(rng, pair[0]),
    )


def choose_pairs(rng: Random, count: int, held_out: bool = False, distinct: bool = False) -> list[tuple[str, str]]:
    """Colour-shape pairs for `count` things; often from few colours or few shapes, so that counting is worth asking."""
    colours, shapes = list(COLOURS), list(SHAPES)
    if not distinct and count > 1:
        narrow = rng.random()
        if narrow < 0.3:
            colours = rng.sample(colours, rng.randint(2, 3))
        elif narrow < 0.6:
            shapes = rng.sample(shapes, rng.randint(2, 3))
    chosen: list[tuple[str, str]] = [rng.choice(sorted(HELD_OUT_PAIRS))] if held_out else []
    while len(chosen) < count:
        pair = rng.choice(colours), rng.choice(shapes)
        if pair not in HELD_OUT_PAIRS and not (distinct and pair in chosen):
            chosen.append(pair)
    rng.shuffle(chosen)
    return chosen


def choose_things(
    rng: Random, count: int, *, held_out: bool = False, distinct: bool = False, cells: list[int] | None = None
) -> list[Thing]:
    """Things in distinct cells, in reading order."""
    places = sorted(rng.sample(cells or range(9), count))
    return [
        place_thing(rng, pair, place)
        for pair, place in zip(choose_pairs(rng, count, held_out, distinct), places, strict=True)
    ]
