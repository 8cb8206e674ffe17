"""What a low-rank adapter is: its settings, under the names of PEFT's adapter_config.json, and the layers they mean.

Files and merging are adapters.py's, training is model/adapters.py's.
Source: PEFT 0.21's LoraConfig and tuners_utils.py; parity in tests/reference/test_adapters.py.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from .directory import read_json

ALL_LINEAR = "all-linear"
TOWERS = {"text": "model.text_model", "vision": "model.vision_model", "connector": "model.connector"}
HEAD_MODULE = "lm_head"
Shape = tuple[int, ...]

# Settings of a file that don't change what a trained adapter computes. Any other that we don't know must be off.
_PASSIVE = frozenset(
    ("auto_mapping", "eva_config", "inference_mode", "loftq_config", "megatron_core", "peft_type", "peft_version",
     "qalora_group_size", "revision", "runtime_config", "task_type")
)  # fmt: skip
_OFF: tuple[object, ...] = (None, False, "none", {}, [])
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base model as well
_STARTS = (True, "gaussian")


@dataclass(frozen=True)
class LoraConfig:
    """LoRA adds lora_alpha / r * B A to a matrix; DoRA also learns the length of each of its rows.

    target_modules: "all-linear" (all but the head), a regular expression for whole names, or a list of names. A name is
    that of a layer, or its last parts ("q_proj"); "text", "vision" and "connector" are all layers of that part of the
    model, and "text.q_proj" is q_proj in the text model only. exclude_modules: names, or an expression, to leave out.
    layers_to_transform: numbers of layers, in every tower (or in those that layers_pattern names).
    modules_to_save: names of parts that are trained whole, such as "connector", "embed_tokens", "lm_head".
    r: rank. use_rslora: alpha / sqrt(r) instead of alpha / r. rank_pattern, alpha_pattern: a name or an expression, and
    what holds there. lora_dropout: of what goes into A. init_lora_weights: of A, True (Kaiming uniform) or "gaussian";
    B starts at zero.
    base_model_name_or_path: of the model, kept in the files. extra: what else a file said, written back.
    Raises ConfigError.
    """

    target_modules: str | Sequence[str] = ALL_LINEAR
    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    modules_to_save: Sequence[str] = ()
    exclude_modules: str | Sequence[str] = ()
    layers_to_transform: int | Sequence[int] | None = None
    layers_pattern: str | Sequence[str] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    init_lora_weights: bool | str = True
    base_model_name_or_path: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("target_modules", "modules_to_save", "exclude_modules"):
            value = getattr(self, name)
            if not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))  # lists, and the sets that PEFT makes of them
        if isinstance(self.modules_to_save, str):
            object.__setattr__(self, "modules_to_save", (self.modules_to_save,))
        for rank in (self.r, *self.rank_pattern.values()):
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ConfigError(f"r={rank!r}: a rank must be a whole number of at least 1.")
        for alpha in (self.lora_alpha, *self.alpha_pattern.values()):
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
                raise ConfigError(f"lora_alpha={alpha!r}: it must be a number above 0.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout={self.lora_dropout!r}: it must be at least 0 and below 1.")
        if self.init_lora_weights not in _STARTS:
            raise ConfigError(f"init_lora_weights={self.init_lora_weights!r} is not known; use True or 'gaussian'.")
        for pattern in (self.target_modules, self.exclude_modules, *self.rank_pattern, *self.alpha_pattern):
            if isinstance(pattern, str):
                _require_expression(pattern)

    @classmethod
    def from_file(cls, file: Path) -> LoraConfig:
        """Read an adapter_config.json. Raises CheckpointError for what is no LoRA, or one of a kind that isn't here."""
        written = read_json(file)
        if written.get("peft_type") != "LORA":
            raise CheckpointError(f"{file}: peft_type {written.get('peft_type')!r} can't be read; 'LORA' can.")
        own = {one.name for one in dataclasses.fields(cls)} - {"extra"}
        extra = {name: value for name, value in written.items() if name not in own}
        foreign = [name for name, value in extra.items() if name not in _PASSIVE and value not in _OFF]
        if written.get("init_lora_weights") not in _HARMLESS_STARTS:
            foreign.append("init_lora_weights")
        if foreign:
            given = ", ".join(f"{name}={written[name]!r:.60}" for name in foreign)
            raise CheckpointError(f"{file}: adapters with {given} can't be read; LoRA, rsLoRA and DoRA can.")
        values = {name: written[name] for name in own if written.get(name) is not None}
        if values.get("init_lora_weights") not in _STARTS:
            values.pop("init_lora_weights", None)  # how it started, which says nothing once it is trained
        try:
            return cls(**values, extra=extra)  # type: ignore[arg-type]
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{file}: {error}") from None

    def to_json(self, adapted: Sequence[str], saved: Sequence[str]) -> dict[str, object]:
        """The content of adapter_config.json, with whole names in place of words and patterns."""
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "extra"}
        narrowing = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}  # done by the names
        names = {"target_modules": list(adapted), "modules_to_save": list(saved) or None}
        patterns = {"rank_pattern": dict(self.rank_pattern), "alpha_pattern": dict(self.alpha_pattern)}
        fixed = {"peft_type": "LORA", "bias": "none", "inference_mode": True, "fan_in_fan_out": False}
        return {"task_type": None, **self.extra, **own, **narrowing, **names, **patterns, **fixed}

    def rank(self, module: str) -> int:
        return int(_by_pattern(self.rank_pattern, module, self.r))

    def scaling(self, module: str) -> float:
        """What B A is multiplied by in a layer."""
        rank = self.rank(module)
        return _by_pattern(self.alpha_pattern, module, self.lora_alpha) / (math.sqrt(rank) if self.use_rslora else rank)


@dataclass(frozen=True)
class Targets:
    """Whole names of modules: linear layers that get an adapter, and parts that are trained whole."""

    adapted: tuple[str, ...]
    saved: tuple[str, ...]


def find_targets(config: LoraConfig, shapes: Mapping[str, Shape]) -> Targets:
    """The modules that the settings mean, by PEFT's rules and our words. shapes: of the model's tensors, by name."""
    saved: list[str] = []
    for module in _modules(shapes):  # outer ones come first, and take their parts with them
        if any(_is_saved(name, module) for name in config.modules_to_save) and not _is_inside(module, saved):
            saved.append(module)
    adapted = [
        module
        for module in linear_layers(shapes)
        if _matches(config.target_modules, module)
        and not _matches(config.exclude_modules, module)
        and _is_chosen_layer(config, module)
        and not _is_inside(module, saved)
    ]
    return Targets(tuple(adapted), tuple(saved))


def require_targets(config: LoraConfig, shapes: Mapping[str, Shape]) -> Targets:
    """`find_targets`, with a ConfigError for each name that means nothing, naming those near it."""
    targets = find_targets(config, shapes)
    wanted = config.target_modules
    for name in (wanted,) if isinstance(wanted, str) else wanted:
        if not any(_matches(name if isinstance(wanted, str) else (name,), module) for module in targets.adapted):
            raise ConfigError(_explain("target_modules", name, "linear layer", linear_layers(shapes)))
    for name in config.modules_to_save:
        if not any(_is_saved(name, module) for module in _modules(shapes)):
            raise ConfigError(_explain("modules_to_save", name, "module", _modules(shapes)))
    if not targets.adapted:
        raise ConfigError("target_modules is empty: name layers, or take 'all-linear'.")
    return targets


def linear_layers(shapes: Mapping[str, Shape]) -> list[str]:
    """Names of the layers that are a product with a matrix: not tables of embeddings, nor the cut into patches."""
    return [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and "embed" not in name
    ]


def _modules(shapes: Mapping[str, Shape]) -> list[str]:
    """Names of all modules with tensors in them, outer ones first."""
    parts = [name.split(".")[:-1] for name in shapes]
    return list(dict.fromkeys(".".join(one[:length]) for one in parts for length in range(1, len(one) + 1)))


def _matches(wanted: str | Sequence[str], module: str) -> bool:
    """One text is an expression for the whole name, unless it is a name itself; several are names."""
    if isinstance(wanted, str) and not _is_name(wanted):
        return re.fullmatch(wanted, module) is not None
    return any(_is_meant(name, module) for name in ((wanted,) if isinstance(wanted, str) else wanted))


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+", text) is not None


def _is_meant(name: str, module: str) -> bool:
    tower, _, rest = name.partition(".")
    if name == ALL_LINEAR:
        return module != HEAD_MODULE
    if tower in TOWERS:
        return module.startswith(f"{TOWERS[tower]}.") and (not rest or module.endswith(f".{rest}"))
    return module == name or module.endswith(f".{name}")


def _is_saved(name: str, module: str) -> bool:
    return module.endswith(TOWERS.get(name, name))  # without a dot before it, as PEFT looks


def _is_inside(module: str, outer: Sequence[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in outer)


def _is_chosen_layer(config: LoraConfig, module: str) -> bool:
    chosen, pattern = config.layers_to_transform, config.layers_pattern
    if chosen is None or (not isinstance(chosen, int) and not chosen):
        return True
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
    for one in patterns or (r"[^.]*",):
        found = re.match(rf"(?:^|.*?\.){one}\.(\d+)\.", module)
        if found is not None:
            return int(found[1]) in ((chosen,) if isinstance(chosen, int) else chosen)
    return False


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _require_expression(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is not a regular expression ({error}).") from None


def _explain(setting: str, name: str, kind: str, modules: Sequence[str]) -> str:
    known = sorted({module.rsplit(".", 1)[-1] for module in modules if not module.rsplit(".", 1)[-1].isdigit()})
    words = [*TOWERS, ALL_LINEAR] if setting == "target_modules" else list(TOWERS)
    near = difflib.get_close_matches(name, [*words, *known, *modules], n=3, cutoff=0.5) or [*words, *known][:12]
    hints = {
        "embed_tokens": " A table of embeddings is trained whole: put it into modules_to_save.",
        "connector": " What is in modules_to_save gets no adapter.",
    }
    several = " Give several names as a list." if "," in name else ""
    return (
        f"{setting}: {name!r} matches no {kind} of this model; near it are {', '.join(near)}."
        f"{hints.get(name, '') if setting == 'target_modules' else ''}{several}"
    )
