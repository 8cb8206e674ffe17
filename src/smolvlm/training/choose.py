"""A sensible recipe for a person's data on a person's machine, as the values of its TOML.

Rates of the released sizes are the published ones: SmolVLM2's for all weights, the notebook's for adapters. Those of
the bundled model are what runs of benchmarks/finetune_nano.py led to. While a model learns from videos its vision tower
stays as it is, as in the published notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..errors import ConfigError
from .data.drawn import PREFIX as SCENES
from .data.drawn import ROWS as SCENE_ROWS

Method = Literal["full", "lora", "qlora"]
TINY = 50e6  # parameters under which a model was trained from nothing here, and takes higher rates
FULL_BYTES = 16  # a parameter: weight, gradient, AdamW's two numbers, in float32
LORA_BYTES = 2.5  # a frozen parameter in bfloat16, and its share of what is put on it
STEPS, MOST_STEPS = 100, 2000  # a run is as long as its data say, within these
MOST_TINY = 255  # of a tiny model, two thirds of it on videos: minutes on two cores
EPOCHS, EPOCHS_TINY = 3, 5
RANK = 16
# All weights, by part. New words of a tiny model need a high rate where words are made, and its rest a low one to stay.
RATES = {"vision": 5e-6, "connector": 1e-4, "text": 2e-5, "embeddings": 2e-5}
RATES_TINY = {"vision": 1e-4, "connector": 1e-4, "text": 1e-4, "embeddings": 1e-3}
BUNDLED, REPLAY = "nano", 1 / 3  # of the bundled model: scenes, with all their questions, for each new sample


def choose_method(parameters: int, free_bytes: int | None) -> Method:
    """All weights where they fit in half of the free memory, else an adapter, on fewer bits where even that is much."""
    if free_bytes is None or FULL_BYTES * parameters < free_bytes / 2:
        return "full"
    return "lora" if LORA_BYTES * parameters < free_bytes / 2 else "qlora"


def finetuning(
    paths: Sequence[str], rows: int, start: str, parameters: int, method: Method, *, steps: int | None = None,
    videos: bool = False, validation: Sequence[str] = (), device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """A recipe's values. rows: of all data sets. parameters: of the model. videos: what most of the rows show.

    Raises ConfigError for what can't be: no rows.
    """
    if rows < 1:
        raise ConfigError("There is not one sample to learn from.")
    tiny = parameters < TINY
    per_step = 8 if rows < 200 else 16
    if steps is None:
        most = MOST_TINY * 2 // (3 if videos else 2) if tiny else MOST_STEPS
        steps = min(most, max(STEPS, (EPOCHS_TINY if tiny else EPOCHS) * rows // per_step))
    values: dict[str, Any] = {
        "name": f"finetune-{method}", "start": start, "steps": steps, "samples_per_step": per_step,
        "tiles_per_batch": 32 if tiny else 17, "tokens_per_batch": 8192 if tiny else 4096,
        "learning_rate": _rate(tiny, method), "schedule": "cosine", "floor": 0.05, "warmup": 0.05,
        "weight_decay": 0.01, "save_every": max(25, steps // 10), "evaluate_every": max(25, steps // 4),
        "data": [{"path": path} for path in paths],
    }  # fmt: skip
    if start == BUNDLED:  # new answers are mostly short, those of the scenes long
        values["even_answers"] = 0.5
        values["data"].append({"path": SCENES, "weight": round(REPLAY * rows / SCENE_ROWS, 6)})
    if validation:
        values["validation"] = [{"path": path} for path in validation]
    if method == "full":
        values["betas"] = [0.9, 0.98] if tiny else [0.9, 0.999]
        values["rates"] = {**(RATES_TINY if tiny else RATES), **({"vision": 0.0} if videos else {})}
    else:
        where = "all-linear" if tiny and not videos else ["text", "connector"]
        values["adapter"] = {"r": RANK, "lora_alpha": RANK, "target_modules": where}
        if tiny:  # an adapter alone can't say words that the model has never said, so the head is trained whole
            values["adapter"]["modules_to_save"] = ["lm_head"]
        values["weights"] = "float32" if tiny else "bfloat16"
        if method == "qlora":
            values["adapter"]["bits"] = 4
    if not tiny:
        values["recompute"] = True
    return values


def as_toml(values: dict[str, Any]) -> str:
    """Values of a recipe as the file that read_recipe reads."""
    plain = [f"{key} = {_toml(value)}" for key, value in values.items() if not _is_table(value)]
    for key, value in values.items():
        if isinstance(value, dict):
            plain += ["", f"[{key}]", *(f"{name} = {_toml(one)}" for name, one in value.items())]
        elif _is_table(value):
            for one in value:
                plain += ["", f"[[{key}]]", *(f"{name} = {_toml(item)}" for name, item in one.items())]
    return "\n".join(plain) + "\n"


def _rate(tiny: bool, method: Method) -> float:
    if method == "full":
        return 1e-4 if tiny else 2e-5
    return 1.5e-3 if tiny else 1e-4


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
