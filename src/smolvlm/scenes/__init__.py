"""Drawn material with exact answers: scene = f(skill, seed, index, split). PIL and numpy only.

The same arguments give the same scene on every machine with the same Pillow. The splits can't meet, because the split
is part of the key of the random numbers. Some colour-shape pairs and words are neither drawn nor named unless
held_out=True asks for them, which train refuses.
"""

from __future__ import annotations

from random import Random

from ..errors import InputError
from .baselines import Baseline, measure
from .canvas import CHARACTERS
from .chart import draw_chart
from .document import draw_document
from .material import Clip, Mark, Scene, Turn
from .pair import draw_pair
from .photograph import draw_photograph
from .read import draw_read
from .scene import draw_new_things, draw_scene, draw_tiles
from .text import draw_text
from .things import (
    ALL_COLOURS,
    ALL_SHAPES,
    COLOURS,
    HELD_OUT_PAIRS,
    PLACES,
    RESERVED_COLOURS,
    RESERVED_SHAPES,
    SHAPES,
    Thing,
)
from .video import plan_clip, render_plan
from .watch import draw_video

__all__ = [
    "ALL_COLOURS",
    "ALL_SHAPES",
    "CHARACTERS",
    "COLOURS",
    "HELD_OUT_PAIRS",
    "HELD_OUT_SKILLS",
    "PLACES",
    "RESERVED_COLOURS",
    "RESERVED_SHAPES",
    "SHAPES",
    "SKILLS",
    "SPLITS",
    "Baseline",
    "Clip",
    "Mark",
    "Scene",
    "Thing",
    "Turn",
    "baselines",
    "draw",
    "draw_reserved",
    "render_clip",
]

HELD_OUT_SKILLS = ("scene", "read", "pair", "video", "tiles")
SKILLS = ("scene", "read", "chart", "document", "pair", "video", "text", "tiles", "photograph")
SPLITS = ("train", "validation", "test")

_WITH_HELD_OUT = {
    "scene": draw_scene,
    "read": draw_read,
    "pair": draw_pair,
    "video": draw_video,
    "tiles": draw_tiles,
}
_WITHOUT = {"chart": draw_chart, "document": draw_document, "text": draw_text, "photograph": draw_photograph}


def draw(
    skill: str, seed: int, index: int, split: str = "train", *, level: float = 1.0, held_out: bool = False
) -> Scene:
    """Draw scene `index` of a skill. level: 0 (one thing, one letter, two bars) to 1 (up to six, eight, five).

    held_out: draw with the colour-shape pairs or words that training never sees.
    Raises InputError for an unknown skill or split, a level outside 0..1, or held_out where there is nothing held out.
    """
    rng = _random(skill, seed, index, split, level, held_out)
    if skill in _WITH_HELD_OUT:
        return _WITH_HELD_OUT[skill](rng, level, held_out)
    return _WITHOUT[skill](rng, level)


def draw_reserved(seed: int, index: int, split: str = "train") -> Scene:
    """A scene of one to three things, at least one of a reserved shape or colour: material for fine-tuning.

    Its skill is "scene"; no other scene shows or names these. Raises InputError for an unknown split.
    """
    return draw_new_things(_random("scene", seed, index, split, 1.0, held_out=False))


def baselines(skill: str, seed: int, count: int, *, level: float = 1.0, held_out: bool = False) -> dict[str, Baseline]:
    """What not looking scores on `count` scenes of the test split, by kind of question; majorities are train's."""
    train = (draw(skill, seed, index, "train", level=level) for index in range(count))
    test = (draw(skill, seed, index, "test", level=level, held_out=held_out) for index in range(count))
    return measure(train, test)


def render_clip(
    seed: int, index: int, split: str = "train", *, fps: float = 1.0, level: float = 1.0, held_out: bool = False
) -> Clip:
    """The clip of draw("video", ...) at another frame rate; at fps=1 its frames are the very same."""
    if not fps > 0:
        raise InputError(f"fps={fps!r} is out of range: it must be above 0.")
    plan = plan_clip(_random("video", seed, index, split, level, held_out), level, held_out)
    return render_plan(plan, fps)[0]


def _random(skill: str, seed: int, index: int, split: str, level: float, held_out: bool) -> Random:
    """Check the arguments, then random numbers keyed by all that must differ."""
    if skill not in SKILLS:
        raise InputError(f"There is no skill {skill!r}. The skills are: {', '.join(SKILLS)}.")
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r}. The splits are: {', '.join(SPLITS)}.")
    if not 0 <= level <= 1:
        raise InputError(f"level={level!r} is out of range: it must be from 0 to 1.")
    if held_out and (split == "train" or skill not in HELD_OUT_SKILLS):
        allowed = f"skills {', '.join(HELD_OUT_SKILLS)} and splits validation, test"
        raise InputError(f"held_out=True is for {allowed}; got skill {skill!r}, split {split!r}.")
    return Random(f"smolvlm scenes 1/{skill}/{seed}/{split}/{index}/{'held out' if held_out else ''}")
