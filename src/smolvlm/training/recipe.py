"""A training run as data: what `recipes/*.toml` may say. Unknown keys are refused by name."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..checkpoint.lora import LoraConfig
from ..errors import ConfigError
from ..processing.request import Look
from ..scenes import SKILLS
from .data import Source
from .data.listing import read_mixture, read_sources

Objective = Literal["sft", "dpo", "grpo"]
Schedule = Literal["constant", "linear", "cosine", "wsd"]
Part = Literal["vision", "connector", "text", "embeddings"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Stage:
    """One part of a curriculum of drawn scenes. until: share of all steps at which it ends.

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
        where = f"stage until {self.until}"
        _require_share(f"{where}: even_answers", self.even_answers)
        if self.rounds < 1:
            raise ConfigError(f"{where}: rounds={self.rounds} must be at least 1.")
        for kind, weight in self.emphasis.items():
            if weight < 0:
                raise ConfigError(f"{where}: emphasis of {kind!r} is {weight}; it must not be negative.")
        for name in (*self.skills, *self.levels):
            if name not in SKILLS:
                raise ConfigError(f"stage: skill {name!r} is unknown; there are {', '.join(SKILLS)}.")
        if not self.skills or min(self.skills.values()) < 0 or sum(self.skills.values()) <= 0:
            raise ConfigError(f"{where}: skills need weights of 0 or more, not all 0.")


@dataclass(frozen=True)
class Preference:
    """How a better and a worse answer are compared. beta: how far the model may go from what it was.

    label_smoothing: the share of pairs that are taken to be the wrong way round. kind: "sigmoid" is DPO, "ipo" IPO.
    sft: how much learning to say the better answer counts beside (mean cross-entropy of its tokens); 0 leaves it out.
    Without it both answers may grow unlikely, as long as the worse one does so faster.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    kind: Literal["sigmoid", "ipo"] = "sigmoid"
    sft: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"dpo: beta={self.beta} must be above 0.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"dpo: label_smoothing={self.label_smoothing} must be at least 0 and below 0.5.")
        if self.kind not in ("sigmoid", "ipo"):
            raise ConfigError(f"dpo: kind={self.kind!r} must be 'sigmoid' or 'ipo'.")
        if self.sft < 0:
            raise ConfigError(f"dpo: sft={self.sft} must not be negative.")


@dataclass(frozen=True)
class Reinforcement:
    """How answers that the model gives are rewarded. reward: a name in rewards.py, or "module:function".

    group: answers to a question. temperature, max_new_tokens: of these answers. updates: of the weights by each set of
    answers. clip_ratio: how far an update may go from the model that answered. kl: weight of the distance to the model
    that the run started from.
    """

    reward: str
    group: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 32
    updates: int = 1
    clip_ratio: float = 0.2
    kl: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("group", 2), ("max_new_tokens", 1), ("updates", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"grpo: {name}={getattr(self, name)} must be at least {least}.")
        if self.temperature <= 0 or self.clip_ratio <= 0 or self.kl < 0:
            raise ConfigError("grpo: temperature and clip_ratio must be above 0, and kl not negative.")


@dataclass(frozen=True)
class Recipe:
    """All settings of a run.

    What is trained. start: a checkpoint directory, a hub id or the name of a bundled one, whose weights the run starts
    from; "" is from nothing, with the geometry `model` and the tokenizer's files of `vocabulary`. (With both, the
    checkpoint may have fewer text layers: the others are added so that they change nothing at first.) merge: an adapter
    that is put into these weights first. config: changes to the start's config. adapter: a LoRA or DoRA instead of all
    weights; bits: of the frozen weights under it. weights: dtype of the weights; gradients and updates are in it, too.
    compute: dtype of the products. recompute: keep no activations of the layers, and compute them again in the backward
    pass.

    What is learned from. stages: drawn scenes. data: data sets; validation: others, kept for the loss on unseen
    samples. objective: sft (say the answers), dpo (prefer the better of two), grpo (earn a reward).
    samples_per_step: of data. tiles_per_step: of scenes, about. tiles_per_batch, tokens_per_batch: the most that goes
    through the model at once. pack: several samples in a row of a batch, which don't see each other. max_tokens: of a
    sample. look: how pictures and videos of data are looked at. even_answers: as in Stage. bad_share: of samples that
    can't be used; above it the run stops.

    How. learning_rate: for AdamW, or what Muon doesn't take; matrix_learning_rate: for Muon, which takes the hidden
    matrices. rates: learning rates of parts, 0 leaves a part as it is. train_rows_from: only rows of the vocabulary
    from this one on are trained. schedule, warmup, decay, floor: rates rise over a share of the steps, stay, and fall
    to a share of themselves ("wsd": linearly over the last `decay` of the steps). ema: decay of the averaged weights
    that are evaluated and saved; 0 is without. selection: weights of the scores that say which checkpoint is the best.

    In several processes (torchrun). shard: each rank holds its share of weights, gradients and optimiser state, for
    models that one card doesn't hold. sequence_ranks: so many ranks share each row of a batch, for long ones.

    Drawn scenes only. probe_weight: loss weight of the auxiliary patch labels, falling to 0 at probe_until (share of
    steps). linear_chats: share of samples whose turns follow each other as one chat; in the others each turn sees the
    picture and itself only. split_pictures: share of single pictures that are blown up and cut into tiles, as the
    reference does with every picture.
    """

    name: str
    steps: int = 0
    epochs: float = 0.0
    start: str = ""
    merge: str = ""
    vocabulary: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    adapter: LoraConfig | None = None
    bits: int = 16
    weights: Literal["float32", "bfloat16"] = "float32"
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    recompute: bool = False
    stages: tuple[Stage, ...] = ()
    data: tuple[Source, ...] = ()
    validation: tuple[Source, ...] = ()
    objective: Objective = "sft"
    dpo: Preference = Preference()
    grpo: Reinforcement | None = None
    seed: int = 0
    samples_per_step: int = 16
    tiles_per_step: int = 64
    tiles_per_batch: int = 16
    tokens_per_batch: int = 4096
    pack: bool = True
    max_tokens: int | None = None
    look: Look = Look()
    even_answers: float = 0.0
    bad_share: float = 0.01
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    matrix_learning_rate: float = 2e-3
    rates: Mapping[str, float] = field(default_factory=dict)
    train_rows_from: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    schedule: Schedule = "wsd"
    warmup: float = 0.03
    decay: float = 0.2
    floor: float = 0.0
    ema: float = 0.0
    probe_weight: float = 0.0
    probe_until: float = 0.5
    linear_chats: float = 0.15
    split_pictures: float = 0.0
    evaluate_every: int = 500
    evaluate_scenes: int = 64
    evaluate_samples: int = 256
    save_every: int = 250
    keep_last: int = 1
    selection: Mapping[str, float] = field(default_factory=dict)
    shard: bool = False
    sequence_ranks: int = 1

    def __post_init__(self) -> None:
        self._check_numbers()
        ends = [stage.until for stage in self.stages]
        if self.stages and (ends != sorted(ends) or ends[-1] != 1.0):
            raise ConfigError(f"stages of recipe {self.name!r} end at {ends}: they must ascend and the last be 1.0.")
        if bool(self.stages) == bool(self.data):
            raise ConfigError(f"recipe {self.name!r} needs one of [[data]] (or mixture) and [[stages]] to learn from.")
        if (self.steps > 0) == (self.epochs > 0) or (self.epochs and self.stages):
            raise ConfigError(f"recipe {self.name!r} needs steps or, with data, epochs; not both.")
        if not self.start and not (self.model and self.vocabulary):
            raise ConfigError(f"recipe {self.name!r} needs start, a checkpoint; or model and vocabulary.")
        if self.objective != "sft" and self.stages:
            raise ConfigError(f"recipe {self.name!r}: objective={self.objective!r} needs data; scenes are for sft.")
        if self.objective == "grpo" and self.grpo is None:
            raise ConfigError(f"recipe {self.name!r}: objective='grpo' needs a table [grpo] with a reward.")
        if self.bits != 16 and self.adapter is None:
            raise ConfigError(f"recipe {self.name!r}: weights of {self.bits} bits can't be trained; add an [adapter].")

        self._check_ranks()

    def _check_ranks(self) -> None:
        wrong = {
            "train_rows_from": self.train_rows_from > 0, "probe_weight": self.probe_weight > 0,
            "an [adapter]": self.adapter is not None,
        }  # fmt: skip
        for name, there in wrong.items():
            if self.shard and there:
                raise ConfigError(f"recipe {self.name!r}: shard doesn't go with {name}.")
        if self.sequence_ranks > 1 and (self.objective != "sft" or self.probe_weight):
            raise ConfigError(f"recipe {self.name!r}: sequence_ranks needs objective='sft' and no probe_weight.")

    def _check_numbers(self) -> None:
        counts = ("samples_per_step", "tiles_per_step", "tiles_per_batch", "tokens_per_batch", "evaluate_every")
        for name in (*counts, "save_every", "keep_last", "evaluate_scenes", "evaluate_samples", "sequence_ranks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} in recipe {self.name!r}: it must be at least 1.")
        for name in ("learning_rate", "matrix_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} in recipe {self.name!r} must be above 0.")
        for name in ("steps", "epochs", "weight_decay", "train_rows_from"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} in recipe {self.name!r} must not be negative.")
        for name in ("even_answers", "bad_share", "warmup", "decay", "floor", "ema", "linear_chats", "split_pictures"):
            _require_share(f"recipe {self.name!r}: {name}", getattr(self, name))
        choices = {
            "objective": get_args(Objective), "schedule": get_args(Schedule), "optimiser": ("adamw", "muon"),
            "weights": ("float32", "bfloat16"), "compute": ("float32", "bfloat16"), "bits": (16, 8, 4),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} in recipe {self.name!r}: it must be one of "
                    f"{', '.join(map(repr, allowed))}."
                )
        for part, rate in self.rates.items():
            if part not in PARTS or not 0 <= rate < math.inf:
                raise ConfigError(f"rates: {part} = {rate}; parts are {', '.join(PARTS)}, and no rate is negative.")

    def stage(self, step: int) -> Stage:
        """The part of the curriculum that `step` is in."""
        return next(stage for stage in self.stages if step < stage.until * self.steps or stage.until == 1.0)

    def rate(self, step: int) -> float:
        """Learning rate of `step` as a share of the highest."""
        warm = max(1, round(self.warmup * self.steps))
        rise = min(1.0, (step + 1) / warm)
        if self.schedule == "constant":
            return rise
        if self.schedule == "wsd":
            fall = min(1.0, (self.steps - step) / max(1, round(self.decay * self.steps)))
        else:
            past = min(1.0, max(0.0, (step - warm) / max(1, self.steps - warm)))
            fall = (1 + math.cos(math.pi * past)) / 2 if self.schedule == "cosine" else 1 - past
        return min(rise, self.floor + (1 - self.floor) * fall)

    def probe(self, step: int) -> float:
        """Weight of the probes' loss at `step`."""
        return self.probe_weight * max(0.0, 1.0 - step / max(1.0, self.probe_until * self.steps))


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe. changes: "key=value", with "table.key" for tables; values as TOML, or bare words.

    Files that it names are looked for beside it. Raises ConfigError naming the file and what is wrong in it.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    for one in changes:
        change(values, one)
    return build_recipe(values, path)


def build_recipe(values: dict[str, Any], path: Path) -> Recipe:
    """The content of a recipe's TOML -> Recipe. path: the file it is, or would be."""
    values = dict(values)
    data_root = str(values.pop("data_root", ""))
    mixture = values.pop("mixture", None)
    if mixture is not None and "data" in values:
        raise ConfigError(f"{path}: give mixture, a file, or [[data]], not both.")
    if mixture is not None:
        values["data"] = tuple(read_mixture(path.parent / str(mixture), data_root))
    for name in ("data", "validation"):
        if name in values and not (name == "data" and mixture is not None):
            values[name] = tuple(read_sources(values[name], path, data_root))
    values["stages"] = tuple(_build(Stage, stage, path) for stage in values.get("stages", []))
    for name, kind in (("look", Look), ("dpo", Preference), ("grpo", Reinforcement)):
        if name in values:
            values[name] = _build(kind, values[name], path)
    if "adapter" in values:
        adapter = dict(values["adapter"])
        values["bits"] = adapter.pop("bits", 16)
        values["adapter"] = _build(LoraConfig, adapter, path)
    if "betas" in values:
        values["betas"] = tuple(values["betas"])
    return _build(Recipe, values, path)


def _build(kind: Any, values: Mapping[str, Any], path: Path) -> Any:
    known = [item.name for item in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{path}: unknown {kind.__name__.lower()} key {unknown[0]!r}; known are {', '.join(known)}.")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}.") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def change(values: dict[str, Any], said: str) -> None:
    """Put "table.key=value" into a recipe's values. Raises ConfigError."""
    key, equals, written = said.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"{said!r} can't be understood: write key=value, or table.key=value.")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()  # a bare word
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{said!r} can't be set: {table} is no table of the recipe.")
    values[last] = value


def _require_share(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{what}={value} must be from 0 to 1.")
