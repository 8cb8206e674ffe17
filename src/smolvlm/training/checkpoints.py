"""What a run leaves behind: a directory to resume from exactly, and a checkpoint directory that anything loads.

`state.pt` is read with weights_only=True, so a foreign file can't run code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..model import SmolVLMForConditionalGeneration
from ..processing.processor import SmolVLMProcessor
from .optimiser import Average, Optimisers
from .probes import Probes

STATE = "state.pt"


def save_state(
    directory: Path,
    step: int,
    recipe: str,
    model: SmolVLMForConditionalGeneration,
    probes: Probes,
    optimisers: Optimisers,
    average: Average,
) -> None:
    """Write atomically: an interrupted save leaves the previous state in place. `step` is the next one to run."""
    state = {
        "step": step,
        "recipe": recipe,
        "model": model.state_dict(),
        "probes": probes.state_dict(),
        "optimisers": optimisers.state_dict(),
        "average": average.average,
    }
    partial = directory / f"{STATE}.partial"
    torch.save(state, partial)
    os.replace(partial, directory / STATE)


def load_state(
    directory: Path,
    recipe: str,
    model: SmolVLMForConditionalGeneration,
    probes: Probes,
    optimisers: Optimisers,
    average: Average,
) -> int:
    """Restore everything and return the step to go on with. Raises CheckpointError when it is another recipe's."""
    state: dict[str, Any] = torch.load(directory / STATE, weights_only=True, map_location="cpu")
    if state["recipe"] != recipe:
        raise CheckpointError(
            f"{directory} holds a run of another recipe or of other settings. Give another --output, "
            "or delete that directory to start over."
        )
    model.load_state_dict(state["model"])
    probes.load_state_dict(state["probes"])
    optimisers.load_state_dict(state["optimisers"])
    for parameter, saved in zip(average.average, state["average"], strict=True):
        parameter.copy_(saved)
    return int(state["step"])


def export(model: SmolVLMForConditionalGeneration, processor: SmolVLMProcessor, directory: Path) -> None:
    """A complete checkpoint directory: bf16 weights, config, and the processor's and tokenizer's files."""
    half = SmolVLMForConditionalGeneration(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    text = model.config.text_config
    half.generation_config = {  # type: ignore[assignment]
        "bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id,
    }  # fmt: skip
    half.save_pretrained(directory)
    processor.save_pretrained(directory)
