"""What a run starts with: a model from nothing or from a checkpoint, what of it is trained, and its processor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import hub
from ..checkpoint import read_json
from ..config import SmolVLMConfig
from ..errors import ConfigError
from ..model import SmolVLMForConditionalGeneration
from ..model.adapters import add_adapter
from ..model.lowbit import quantise_base
from ..processing.image import SmolVLMImageProcessor
from ..processing.processor import SmolVLMProcessor
from ..processing.template import DEFAULT_TEMPLATE
from ..processing.tokenizer import SmolVLMTokenizer
from ..processing.video import SmolVLMVideoProcessor
from .objectives import Trainee
from .optimiser import freeze
from .probes import Probes
from .recipe import Recipe

IMAGE_TOKEN = "<image>"
MAX_FRAMES = 16  # of a model from nothing: twice what the drawn clips have


def make_trainee(recipe: Recipe, processor: SmolVLMProcessor, device: str = "cpu") -> Trainee:
    """The model in training mode with what the recipe puts on it, and what it is compared with."""
    torch.manual_seed(recipe.seed)
    model = start_model(recipe, processor.tokenizer).to(device)
    if recipe.adapter is not None:
        if recipe.bits != 16:
            quantise_base(model, recipe.bits, recipe.adapter)
        add_adapter(model, recipe.adapter)
    freeze(model, recipe)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"recipe {recipe.name!r} trains nothing: every rate is 0.")
    if recipe.recompute:
        model.gradient_checkpointing_enable()
    reference = None
    if keeps_reference(recipe):
        reference = copy.deepcopy(model).eval().requires_grad_(False)
    probes = None
    if recipe.probe_weight:
        probes = Probes(model.config.vision_config.hidden_size).to(device)
    return Trainee(model.train(), getattr(torch, recipe.compute), probes, reference)


def keeps_reference(recipe: Recipe) -> bool:
    """Whether a frozen copy of the model is compared with: with an adapter it is the model without it."""
    compares = recipe.objective == "dpo" or (recipe.grpo is not None and recipe.grpo.kl > 0)
    return compares and recipe.adapter is None


def start_model(recipe: Recipe, tokenizer: SmolVLMTokenizer) -> SmolVLMForConditionalGeneration:
    """The weights of the checkpoint that the recipe starts from, or random ones in its geometry."""
    if not recipe.model:
        return _loaded(recipe)
    config = model_config(recipe, tokenizer)
    if not recipe.start:
        return SmolVLMForConditionalGeneration(config)
    model = SmolVLMForConditionalGeneration.from_pretrained(recipe.start, dtype="float32")
    if model.config.text_config.num_hidden_layers < config.text_config.num_hidden_layers:
        model = deepened(model, config.text_config.num_hidden_layers)
    given = model.config.to_dict()
    if any(given.get(key) != value for key, value in config.to_dict().items()):
        raise ConfigError(f"start={recipe.start!r} in recipe {recipe.name!r} is of another geometry than its [model].")
    return model


def _loaded(recipe: Recipe) -> SmolVLMForConditionalGeneration:
    directory = hub.resolve(recipe.start)
    values = changed(read_json(directory / "config.json"), recipe.config)
    return SmolVLMForConditionalGeneration.from_pretrained(
        directory, dtype=recipe.weights, config=SmolVLMConfig.from_dict(values), adapter=recipe.merge or None
    )


def changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are changed key by key, anything else as a whole."""
    merged = dict(values)
    for key, value in changes.items():
        old = values.get(key)
        merged[key] = changed(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def deepened(model: SmolVLMForConditionalGeneration, layers: int) -> SmolVLMForConditionalGeneration:
    """The same function with more text layers: evenly spread copies of layers, whose outputs are zero at first."""
    values: dict[str, Any] = model.config.to_dict()
    fewer = values["text_config"]["num_hidden_layers"]
    config = SmolVLMConfig.from_dict({**values, "text_config": {**values["text_config"], "num_hidden_layers": layers}})
    deep = SmolVLMForConditionalGeneration(config)
    sources = [layer * fewer // layers for layer in range(layers)]
    weights = {key: value for key, value in model.state_dict().items() if ".text_model.layers." not in key}
    for layer, source in enumerate(sources):
        added = layer > 0 and source == sources[layer - 1]
        for key, value in model.model.text_model.layers[source].state_dict().items():
            silent = added and key.startswith(("self_attn.o_proj", "mlp.down_proj"))
            weights[f"model.text_model.layers.{layer}.{key}"] = torch.zeros_like(value) if silent else value
    deep.load_state_dict(weights)
    return deep


def open_processor(recipe: Recipe) -> SmolVLMProcessor:
    """The checkpoint's own, or of a model from nothing: the vocabulary's tokenizer, pictures of up to 2 x 2 tiles."""
    if not recipe.model:
        return SmolVLMProcessor.from_pretrained(recipe.start)
    tokenizer = SmolVLMTokenizer.from_directory(vocabulary_directory(recipe))
    config = model_config(recipe, tokenizer)
    tile = {"longest_edge": config.vision_config.image_size}
    edge = {"longest_edge": 2 * config.vision_config.image_size}
    sampling = {"fps": 1, "max_frames": MAX_FRAMES, "video_size": tile}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=tile),
        tokenizer,
        SmolVLMVideoProcessor(max_image_size=tile, video_sampling=sampling),
        config.image_seq_len,
        DEFAULT_TEMPLATE,
    )


def vocabulary_directory(recipe: Recipe) -> Path:
    """Where the tokenizer's files are: a directory, or the name of a bundled one (which needs no weights yet)."""
    bundled = Path(__file__).parents[1] / "assets" / recipe.vocabulary
    directory = bundled if bundled.is_dir() else Path(recipe.vocabulary)
    if not (directory / "tokenizer.json").is_file():
        raise ConfigError(
            f"vocabulary={recipe.vocabulary!r} in recipe {recipe.name!r}: there is no {directory / 'tokenizer.json'}. "
            "Name a directory with the tokenizer's files, or 'nano' for the bundled ones."
        )
    return directory


def model_config(recipe: Recipe, tokenizer: SmolVLMTokenizer) -> SmolVLMConfig:
    """The recipe's geometry with the ids of its vocabulary."""
    text = dict(recipe.model["text_config"]) | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    values = {**recipe.model, "text_config": text, "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)}
    return SmolVLMConfig.from_dict({**values, "pad_token_id": tokenizer.pad_token_id})
