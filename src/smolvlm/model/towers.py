"""The parts of a VLM in checkpoints of their own: SmolLM2's text model, SigLIP's vision tower. Each is used alone, too.

Attribute names are a Llama checkpoint's keys, so that loading is strict here as well; joining them is assemble.py's.
Source: transformers' modeling_llama.py and modeling_siglip.py; parity in tests/reference/test_assemble.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..checkpoint import TensorEntry, map_tensors, parse_size, read_index, read_json, write, write_json
from ..checkpoint.shapes import require_shapes
from ..config import SmolVLMConfig, SmolVLMTextConfig, SmolVLMVisionConfig
from ..errors import CheckpointError, ConfigError
from .attention import check_implementation
from .cache import KVCache
from .model import SmolVLMForConditionalGeneration
from .text import SmolVLMTextModel
from .vision import SmolVLMVisionTransformer
from .weights import FLOAT_TYPES, outgoing

Dtype = torch.dtype | Literal["auto"]  # "auto": of the first tensor in the checkpoint
_HEAD = "lm_head.weight"
_VISION_PREFIX = "vision_model."
# SigLIP's own defaults, on which its published config.json files rely; ours are other ones.
_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}


class SmolVLMForCausalLM(nn.Module):
    """The text model with its head, and nothing that sees. config: the family's, whose vision part means nothing."""

    def __init__(self, config: SmolVLMConfig, attn_implementation: str | None = None) -> None:
        super().__init__()
        text = config.text_config
        self.config = config
        self.model = SmolVLMTextModel(config, check_implementation(attn_implementation))
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Share one matrix between embeddings and head when the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
    ) -> Tensor:
        """(batch, new tokens) -> logits (batch, new tokens, vocabulary). Masks and positions as in SmolVLMModel."""
        if position_ids is None:
            past = 0 if past_key_values is None else past_key_values.length
            position_ids = torch.arange(past, past + input_ids.shape[1], device=input_ids.device)[None]
        x = self.model.embed_tokens(input_ids)  # (batch, new tokens, hidden)
        x, _, _ = self.model(x, attention_mask, position_ids, past_key_values, False, False)
        logits: Tensor = self.lm_head(x)
        return logits


def load_text(
    directory: Path, dtype: Dtype = torch.float32, attn_implementation: str | None = None
) -> SmolVLMForCausalLM:
    """The model of a Llama checkpoint directory, such as SmolLM2's, in eval mode.

    Raises CheckpointError with the first tensors that are missing, unexpected or misshaped; ConfigError for a model of
    another kind.
    """
    values = read_json(directory / "config.json")
    kind = values.get("model_type")
    if kind != SmolVLMTextConfig.model_type:
        raise ConfigError(f"{directory} is of model_type {kind!r}; a text model is a 'llama', as SmolLM2 is.")
    known = {field.name for field in dataclasses.fields(SmolVLMTextConfig)} | {"rope_parameters", "rope_scaling"}
    text = SmolVLMTextConfig(**{name: value for name, value in values.items() if name in known})
    tied = bool(values.get("tie_word_embeddings", False))
    with torch.device("meta"):
        model = SmolVLMForCausalLM(SmolVLMConfig(text_config=text, tie_word_embeddings=tied), attn_implementation)
    entries = {name: entry for name, entry in read_index(directory).items() if not name.endswith("rotary_emb.inv_freq")}
    expected = _shapes(model)
    if tied:
        del expected[_HEAD]
        entries.pop(_HEAD, None)
    state = read_strictly(expected, entries, directory, "the text model", dtype)
    if tied:
        state[_HEAD] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model.eval()


def text_of(model: SmolVLMForConditionalGeneration) -> SmolVLMForCausalLM:
    """The text model of a VLM alone, sharing its weights."""
    with torch.device("meta"):
        alone = SmolVLMForCausalLM(model.config)
    alone.model, alone.lm_head = model.model.text_model, model.lm_head
    return alone.train(model.training)


def save_text(model: SmolVLMForCausalLM, directory: Path, max_shard_size: int | str = "5GB") -> None:
    """Write a Llama checkpoint: config.json and safetensors, without the tokenizer's files. load_text reads it."""
    text, tied = model.config.text_config, model.config.tie_word_embeddings
    tensors = {name: outgoing(name, tensor) for name, tensor in model.state_dict().items() if name != _HEAD or not tied}
    dtype = str(model.lm_head.weight.dtype).removeprefix("torch.")
    own = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": tied, "dtype": dtype, "torch_dtype": dtype}
    write(directory, tensors, max_shard_bytes=parse_size(max_shard_size))
    write_json(directory / "config.json", {**text.to_dict(), **own})


def load_vision(
    directory: Path, dtype: Dtype = torch.float32, attn_implementation: str | None = None
) -> SmolVLMVisionTransformer:
    """The vision tower of a SigLIP checkpoint directory, whole or vision alone, in eval mode.

    SigLIP's text tower and the head that pools its patches are left out. Raises as load_text.
    """
    values = read_json(directory / "config.json")
    own = values.get("vision_config", values)
    kind = own.get("model_type", values.get("model_type")) if isinstance(own, dict) else own
    if not isinstance(own, dict) or kind not in ("siglip_vision_model", "siglip"):
        raise ConfigError(f"{directory} has a vision part of model_type {kind!r}; 'siglip_vision_model' can be used.")
    known = {field.name for field in dataclasses.fields(SmolVLMVisionConfig)}
    config = SmolVLMVisionConfig(**{**_SIGLIP, **{name: value for name, value in own.items() if name in known}})
    with torch.device("meta"):
        tower = SmolVLMVisionTransformer(config, attn_implementation)
    entries = read_index(directory)
    if any(name.startswith(_VISION_PREFIX) for name in entries):  # else the tower alone, as transformers 5 may save it
        entries = {
            name.removeprefix(_VISION_PREFIX): entry
            for name, entry in entries.items()
            if name.startswith(_VISION_PREFIX)
        }
    left_out = ("head.", "embeddings.position_ids")  # the second is a buffer that old files have
    entries = {name: entry for name, entry in entries.items() if not name.startswith(left_out)}
    tower.load_state_dict(read_strictly(_shapes(tower), entries, directory, "the vision tower", dtype), assign=True)
    return tower.eval()


def read_strictly(
    expected: Mapping[str, tuple[int, ...]], entries: dict[str, TensorEntry], directory: Path, name: str, dtype: Dtype
) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises CheckpointError when they aren't those expected, or not of floats."""
    require_shapes(expected, entries, directory, name)
    for key, entry in entries.items():
        if entry.dtype not in FLOAT_TYPES:
            raise CheckpointError(
                f"{entry.file}: {key!r} is stored as {entry.dtype}; weights in {', '.join(FLOAT_TYPES)} can be used. "
                "If the checkpoint is quantised, take the original one."
            )
    wanted = FLOAT_TYPES[next(iter(entries.values())).dtype] if dtype == "auto" else dtype
    return {
        key: torch.from_numpy(array).view(FLOAT_TYPES[entries[key].dtype]).to(wanted)
        for key, array in map_tensors(entries)
    }


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
