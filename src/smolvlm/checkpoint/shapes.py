"""Which tensors a checkpoint of this family has, from its config alone: for readers that build no modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import SmolVLMConfig
from ..errors import CheckpointError
from .quantised import logical_shape
from .safetensors import TensorEntry

HEAD = "lm_head.weight"
EMBEDDINGS = "model.text_model.embed_tokens.weight"
Shape = tuple[int, ...]


def expected_shapes(config: SmolVLMConfig) -> dict[str, Shape]:
    """Name -> shape of every tensor of a whole checkpoint; without the head where it is tied to the embeddings."""
    shapes = _vision(config) | _text(config)
    vision, text = config.vision_config, config.text_config
    shapes["model.connector.modality_projection.proj.weight"] = (
        text.hidden_size,
        vision.hidden_size * config.scale_factor**2,
    )
    if not config.tie_word_embeddings:
        shapes[HEAD] = (text.vocab_size, text.hidden_size)
    return shapes


def require_shapes(
    expected: Mapping[str, Shape],
    found: Mapping[str, TensorEntry],
    directory: Path,
    name: str,
    cure: str = "Is config.json of the same model as the weights, and are all files complete?",
) -> None:
    """Raise CheckpointError with what is missing, unexpected and misshaped, if anything is. name: of the model."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshaped = [
        f"{key} (file {logical_shape(key, found[key])}, model {shape})"
        for key, shape in expected.items()
        if key in found and logical_shape(key, found[key]) != shape
    ]
    if not (missing or unexpected or misshaped):
        return
    lines = [f"The weights in {directory} don't fit {name}:"]
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped)):
        if names:
            more = f", and {len(names) - 5} more" if len(names) > 5 else ""
            lines.append(f"  {len(names)} {kind}: {', '.join(names[:5])}{more}")
    lines.append(cure)
    raise CheckpointError("\n".join(lines))


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> dict[str, Shape]:
    weight: dict[str, Shape] = {f"{name}.weight": (outputs, inputs)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight


def _vision(config: SmolVLMConfig) -> dict[str, Shape]:
    vision = config.vision_config
    tower, hidden, patch = "model.vision_model", vision.hidden_size, vision.patch_size
    shapes: dict[str, Shape] = {
        f"{tower}.embeddings.patch_embedding.weight": (hidden, vision.num_channels, patch, patch),
        f"{tower}.embeddings.patch_embedding.bias": (hidden,),
        f"{tower}.embeddings.position_embedding.weight": (vision.patches_per_side**2, hidden),
    }
    for index in range(vision.num_hidden_layers):
        layer = f"{tower}.encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", hidden, hidden, bias=True)
        shapes |= _linear(f"{layer}.mlp.fc1", vision.intermediate_size, hidden, bias=True)
        shapes |= _linear(f"{layer}.mlp.fc2", hidden, vision.intermediate_size, bias=True)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{norm}.weight": (hidden,), f"{layer}.{norm}.bias": (hidden,)}
    return shapes | {f"{tower}.post_layernorm.weight": (hidden,), f"{tower}.post_layernorm.bias": (hidden,)}


def _text(config: SmolVLMConfig) -> dict[str, Shape]:
    text = config.text_config
    model, hidden = "model.text_model", text.hidden_size
    queries, keys = text.num_attention_heads * text.head_size, text.kv_heads * text.head_size
    shapes: dict[str, Shape] = {EMBEDDINGS: (text.vocab_size, hidden), f"{model}.norm.weight": (hidden,)}
    for index in range(text.num_hidden_layers):
        layer = f"{model}.layers.{index}"
        for part, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            shapes |= _linear(f"{layer}.self_attn.{part}", outputs, hidden, text.attention_bias)
        shapes |= _linear(f"{layer}.self_attn.o_proj", hidden, queries, text.attention_bias)
        for part in ("gate_proj", "up_proj"):
            shapes |= _linear(f"{layer}.mlp.{part}", text.intermediate_size, hidden, text.mlp_bias)
        shapes |= _linear(f"{layer}.mlp.down_proj", hidden, text.intermediate_size, text.mlp_bias)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (hidden,)
    return shapes
