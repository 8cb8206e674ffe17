"""A training run as data: what `recipes/*.toml` may say. Unknown keys are refused by name."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..scenes import SKILLS


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum. until: share of all steps at which it ends.

    skills: skill -> weight in samples. levels: skill -> how hard, 0 to 1; skills not named are at level 1.
    even_answers: 0 counts every token of the answers the same, 1 every answer, however long; 0.5 is in between.
    emphasis: kind of question -> how many times as much it counts in the loss; kinds not named count once.
    rounds: how often questions are drawn for each picture; more of them make more of the work spent on the picture.
    """

    until: float
    skills: dict[str, float]
    levels: dict[str, float] = field(default_factory=dict)
    even_answers: float = 0.0
    emphasis: dict[str, float] = field(default_factory=dict)
    rounds: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.even_answers <= 1:
            raise ConfigError(f"stage until {self.until}: even_answers={self.even_answers} must be from 0 to 1.")
        if self.rounds < 1:
            raise ConfigError(f"stage until {self.until}: rounds={self.rounds} must be at least 1.")
        for kind, weight in self.emphasis.items():
            if weight < 0:
                raise ConfigError(
                    f"stage until {self.until}: emphasis of {kind!r} is {weight}; it must not be negative."
                )
        for name in (*self.skills, *self.levels):
            if name not in SKILLS:
                raise ConfigError(f"stage: skill {name!r} is unknown; there are {', '.join(SKILLS)}.")
        if not self.skills or min(self.skills.values()) < 0 or sum(self.skills.values()) <= 0:
            raise ConfigError(f"stage until {self.until}: skills need weights of 0 or more, not all 0.")


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. Sizes count tiles, because the vision tower is most of the work.

    start: a checkpoint directory, or the name of a bundled one, whose weights the run starts from; "" is from nothing.
    It may have fewer text layers: the others are added so that they change nothing at first.
    tiles_per_step: one optimiser step sees samples of about this many tiles. tiles_per_batch, tokens_per_batch: the
    most that goes through the model at once. warmup, decay: shares of all steps (warm-up, stable, linear decay to 0).
    learning_rate: for AdamW; matrix_learning_rate: for Muon, which takes the hidden matrices. probe_weight: loss weight
    of the auxiliary patch labels, falling to 0 at probe_until (share of steps). ema: decay of the averaged weights that
    are evaluated and saved. linear_chats: share of samples whose turns follow each other as one chat; in the others
    each turn sees the picture and itself only. split_pictures: share of single pictures that are blown up and cut into
    tiles, as the reference does with every picture.
    """

    name: str
    steps: int
    vocabulary: str
    model: dict[str, Any]
    stages: tuple[Stage, ...]
    start: str = ""
    seed: int = 0
    tiles_per_step: int = 64
    tiles_per_batch: int = 16
    tokens_per_batch: int = 4096
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup: float = 0.02
    decay: float = 0.2
    ema: float = 0.999
    probe_weight: float = 0.3
    probe_until: float = 0.5
    linear_chats: float = 0.15
    split_pictures: float = 0.0
    evaluate_every: int = 500
    evaluate_scenes: int = 64
    save_every: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "tiles_per_step", "tiles_per_batch", "tokens_per_batch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} in recipe {self.name!r}: it must be at least 1.")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ConfigError(f"stages of recipe {self.name!r} end at {ends}: they must ascend and the last be 1.0.")

    def stage(self, step: int) -> Stage:
        """The part of the curriculum that `step` is in."""
        return next(stage for stage in self.stages if step < stage.until * self.steps or stage.until == 1.0)

    def rate(self, step: int) -> float:
        """Learning rate of `step` as a share of the highest: linear warm-up, flat, linear decay."""
        rise = min(1.0, (step + 1) / max(1, round(self.warmup * self.steps)))
        fall = min(1.0, (self.steps - step) / max(1, round(self.decay * self.steps)))
        return min(rise, fall)

    def probe(self, step: int) -> float:
        """Weight of the probes' loss at `step`."""
        return self.probe_weight * max(0.0, 1.0 - step / max(1.0, self.probe_until * self.steps))


def read_recipe(path: Path) -> Recipe:
    """Read a TOML recipe. Raises ConfigError naming the file and what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    stages = tuple(_build(Stage, stage, path) for stage in values.pop("stages", []))
    return _build(Recipe, {**values, "stages": stages}, path)


def _build(kind: Any, values: dict[str, Any], path: Path) -> Any:
    known = [item.name for item in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{path}: unknown {kind.__name__.lower()} key {unknown[0]!r}; known are {', '.join(known)}.")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}.") from None
