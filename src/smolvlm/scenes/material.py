"""What a scene is made of: pictures or a clip, questions with their one right answer, what covers which pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from PIL import Image


@dataclass(frozen=True)
class Turn:
    """A question and its one right answer. kind: the fine-grained sort of question, for balance and baselines."""

    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Mark:
    """What covers a part of a picture, for auxiliary labels on patches.

    picture: index into `pictures`, or into the clip's frames. box: (x0, y0, x1, y1) from 0 to 1.
    shape, colour, character: class ids (indices into ALL_SHAPES, ALL_COLOURS, CHARACTERS), -1 when it is none.
    """

    picture: int
    box: tuple[float, float, float, float]
    shape: int = -1
    colour: int = -1
    character: int = -1


@dataclass(frozen=True)
class Clip:
    """A short video: frames, the second each one shows, and the length of the whole in seconds."""

    frames: tuple[Image.Image, ...]
    timestamps_s: tuple[float, ...]
    duration_s: float


@dataclass(frozen=True)
class Scene:
    """Drawn material with exact answers.

    detail: how the pictures are meant to be cut ("low": one tile each). ask_more: draws other questions on the same
    pictures, where there are more than `turns` holds.
    """

    skill: str
    pictures: tuple[Image.Image, ...] = ()
    clip: Clip | None = None
    turns: tuple[Turn, ...] = ()
    marks: tuple[Mark, ...] = field(default=(), repr=False)
    detail: Literal["low", "auto"] = "auto"
    ask_more: Callable[[Random], tuple[Turn, ...]] | None = field(default=None, repr=False, compare=False)
