"""Questions on drawn pictures for the twins of benchmarks: always the same, from the test split, with wrong options.

What a benchmark's file makes of them is images.py's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from PIL import Image

from ...scenes import COLOURS, PLACES, SHAPES, Turn, draw

SEED = 71  # of no other measurement
_NUMBERS = tuple(str(number) for number in range(11))
_POOLS: dict[str, tuple[str, ...]] = {
    "colour_of": tuple(COLOURS),
    "shape_of": SHAPES,
    "at_place": tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
    "where": PLACES,
    "size_of": ("small", "large"),
    "exists": ("yes", "no"),
    "is_relation": ("yes", "no"),
    "left_or_right": ("left", "right"),
    "above_or_below": ("above", "below"),
    "which_has": ("the first", "the second", "both", "neither"),
    "more": ("the first", "the second", "the same"),
    "chart_taller": ("yes", "no"),
    "chart_colour": tuple(COLOURS),
}


@dataclass(frozen=True)
class Question:
    """index: of the scene. pictures: as PNG files. alike: questions on the same pictures, this one included."""

    index: int
    pictures: tuple[bytes, ...]
    text: str
    answer: str
    kind: str
    alike: tuple[Turn, ...]

    def options(self, most: int) -> tuple[list[str], str]:
        """(texts of at most that many options, the letter of the right one)."""
        rng = Random(f"options {self.kind} {self.index}")
        pool = _POOLS.get(self.kind, _NUMBERS)
        wrong = [option for option in pool if option != self.answer]
        texts = [self.answer, *rng.sample(wrong, min(most - 1, len(wrong)))]
        rng.shuffle(texts)
        return texts, "ABCDEFGHI"[texts.index(self.answer)]


def questions(skill: str, kinds: tuple[str, ...]) -> Iterator[Question]:
    """Without end: of each scene that has questions of these kinds, another one of them."""
    for index in count():
        scene = draw(skill, SEED, index, "test")
        alike = tuple(turn for turn in scene.turns if turn.kind in kinds)
        if alike:
            turn = alike[index % len(alike)]
            pictures = tuple(_encoded(picture) for picture in scene.pictures)
            yield Question(index, pictures, turn.question, turn.answer, turn.kind, alike)


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
