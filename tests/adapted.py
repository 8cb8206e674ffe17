"""Adapters as if they were trained: every value is moved by noise, so that none of them can be left out unseen."""

from __future__ import annotations

from pathlib import Path

import torch

from smolvlm.checkpoint.lora import LoraConfig
from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.adapters import Adapter, add_adapter
from tests.tiny import tiny_config, tiny_weights
from tests.tiny_batches import request


def new_model(**changes: object) -> SmolVLMForConditionalGeneration:
    """The tiny model with random weights. changes: of tests.tiny.tiny_config."""
    config = tiny_config(**changes)  # type: ignore[arg-type]
    model = SmolVLMForConditionalGeneration(SmolVLMConfig.from_dict(config)).eval()
    weights = {name: torch.from_numpy(array) for name, array in tiny_weights(config).items()}
    if config["tie_word_embeddings"]:
        weights["lm_head.weight"] = weights["model.text_model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True)
    return model


@torch.no_grad()
def teach(adapter: Adapter, seed: int = 0) -> Adapter:
    """Change every value of an adapter: matrices of a layer by enough that logits move by a tenth and more."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in adapter.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        if "lora_magnitude" in name:
            tensor *= 1 + 0.1 * noise
        elif "lora_" in name:
            tensor.copy_(0.07 * noise)  # whatever it started from
        else:
            tensor += 0.05 * noise
    return adapter


def adapted_model(config: object, dtype: torch.dtype = torch.float32, **changes: object) -> Adapter:
    """A taught adapter on the tiny model, which is its `model`."""
    return teach(add_adapter(new_model(**changes), config, dtype=dtype))  # type: ignore[arg-type]


def saved_adapter(directory: Path, base: Path, config: LoraConfig, seed: int = 0) -> Path:
    """Write a taught adapter of a checkpoint's model, and return its directory."""
    teach(add_adapter(SmolVLMForConditionalGeneration.from_pretrained(base), config), seed).save(directory)
    return directory


@torch.no_grad()
def logits(model: torch.nn.Module, tiles: int = 1) -> torch.Tensor:
    """(tokens, vocabulary) float32, of a prompt of 12 words around tiles."""
    batch = request(3, text=12, tiles=tiles)
    return model(**batch).logits[0].float()
