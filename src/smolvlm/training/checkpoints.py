"""What a run leaves behind: a state to resume from exactly, and checkpoint directories that anything loads.

Everything is written beside its place and then put there, so an interrupted save, or a full disk, leaves what was
there. `state.pt` is read with weights_only=True, so a foreign file can't run code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..config import SmolVLMConfig
from ..errors import CheckpointError, TrainingError
from ..model import SmolVLMForConditionalGeneration
from ..processing.processor import SmolVLMProcessor
from .objectives import Trainee
from .optimiser import Average, Optimisers
from .sharding import full_state_dict, share_of, whole

STATE, LATEST, BEST, SCORES = "state.pt", "checkpoint", "best", "scores.json"


@dataclass
class Progress:
    """How far a run is, kept with its state. step: the next one. scores: of steps that were evaluated."""

    step: int = 0
    skipped: int = 0
    scores: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    directory: Path, identity: Mapping[str, str], progress: Progress, trainee: Trainee, optimisers: Optimisers,
    average: Average, *, writes: bool = True,
) -> None:  # fmt: skip
    """identity: what must be the same when the run goes on. All ranks call it, one of them writes."""
    state = {
        "identity": dict(identity),
        "progress": asdict(progress),
        "model": whole({name: one for name, one in trainee.model.named_parameters() if one.requires_grad}),
        "probes": trainee.probes.state_dict() if trainee.probes else None,
        "optimisers": optimisers.state_dict(),
        "average": whole(average.average),
    }
    if not writes:
        return
    partial = directory / f"{STATE}.partial"
    try:
        torch.save(state, partial)
        os.replace(partial, directory / STATE)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"{directory / STATE} could not be written ({' '.join(str(error).split())[:200]}). What was saved before "
            "is as it was: make room, and run the same command again."
        ) from error


def load_state(
    directory: Path, identity: Mapping[str, str], trainee: Trainee, optimisers: Optimisers, average: Average
) -> Progress:
    """Restore everything. Raises CheckpointError when the run there is another one, or its data have changed."""
    try:
        state: dict[str, Any] = torch.load(directory / STATE, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{directory / STATE} can't be read: {' '.join(str(error).split())[:200]}") from error
    saved = state.get("identity", {})
    changed = [name for name, value in identity.items() if saved.get(name) != value]
    if changed:
        what = "of another recipe or of other settings" if changed[0] == "recipe" else f"whose {changed[0]} has changed"
        raise CheckpointError(
            f"{directory} holds a run {what}. Give another --output, or delete that directory to start over."
        )
    own = dict(trainee.model.named_parameters())
    with torch.no_grad():
        for name, value in state["model"].items():
            own[name].copy_(share_of(value, own[name]))
        for parameter, value in zip(average.average, state["average"], strict=True):
            parameter.copy_(share_of(value, parameter))
    if trainee.probes is not None:
        trainee.probes.load_state_dict(state["probes"])
    optimisers.load_state_dict(state["optimisers"])
    return Progress(**state["progress"])


def export(
    model: SmolVLMForConditionalGeneration, processor: SmolVLMProcessor, output: Path, step: int, keep_last: int, *,
    writes: bool = True,
) -> Path:  # fmt: skip
    """Put what is trained at output/checkpoint: a whole checkpoint directory in bfloat16, or an adapter's files.

    Earlier ones stay as output/checkpoint-STEP, keep_last in all. All ranks call it, one of them writes.
    """
    partial, latest = output / f"{LATEST}.partial", output / LATEST
    weights = full_state_dict(model) if model.adapter is None else {}
    if not writes:
        return latest
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if model.adapter is not None:
            model.adapter.save(partial)
        else:
            _save_whole(model.config, weights, processor, partial)
        (partial / "training.json").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(
            f"{latest} could not be written: {error}. What was saved before is as it was: make room, and run again."
        ) from error
    if latest.exists():
        before = json.loads((latest / "training.json").read_text(encoding="utf-8"))["step"]
        os.replace(latest, output / f"{LATEST}-{before}") if before != step else shutil.rmtree(latest)
    os.replace(partial, latest)
    earlier = sorted(output.glob(f"{LATEST}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in earlier[: max(0, len(earlier) - (keep_last - 1))]:
        shutil.rmtree(path)
    return latest


def keep_best(output: Path) -> None:
    """Make output/best what output/checkpoint is now."""
    partial, best = output / f"{BEST}.partial", output / BEST
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(output / LATEST, partial)
    shutil.rmtree(best, ignore_errors=True)
    os.replace(partial, best)


def _save_whole(
    config: SmolVLMConfig, weights: Mapping[str, torch.Tensor], processor: SmolVLMProcessor, directory: Path
) -> None:
    with torch.device("meta"):
        half = SmolVLMForConditionalGeneration(config)
    halves = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in weights.items()}
    half.load_state_dict(halves, assign=True)
    half.tie_weights()
    text = config.text_config
    half.generation_config = {  # type: ignore[assignment]
        "bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id,
    }  # fmt: skip
    half.save_pretrained(directory)
    processor.save_pretrained(directory)
