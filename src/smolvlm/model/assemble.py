"""A VLM from a text model and a vision tower that never met: the start of everything that is trained after.

Each keeps its weights; new are the connector, which is random, and the rows of the vocabulary for pictures, which start
at the mean of the old ones. Which tokens these are is processing/vocabulary.py's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import SmolVLMConfig, SmolVLMTextConfig, SmolVLMVisionConfig
from ..errors import CheckpointError, ConfigError
from .model import SmolVLMForConditionalGeneration
from .towers import Dtype, SmolVLMForCausalLM, load_text, load_vision
from .vision import SmolVLMVisionTransformer

SCALES = (4, 3, 2, 1)  # of the pixel shuffle, the one that is taken first; the released models have 4 and 3
_EMBEDDINGS, _HEAD = "model.text_model.embed_tokens.weight", "lm_head.weight"
_POSITIONS = "model.vision_model.embeddings.position_embedding.weight"
_CONNECTOR = "model.connector.modality_projection.proj.weight"


@dataclass(frozen=True)
class Vocabulary:
    """What a model has to know of its tokenizer. size: ids in all. known: how many of them the text model was made for.

    The others are ids of certain tokens; end closes a turn.
    """

    size: int
    known: int
    image: int
    begin: int
    end: int
    pad: int


def assemble(
    text_directory: Path,
    vision_directory: Path,
    vocabulary: Vocabulary,
    *,
    scale_factor: int | None = None,
    image_size: int | None = None,
    dtype: Dtype = "auto",
    seed: int = 0,
) -> SmolVLMForConditionalGeneration:
    """Join a Llama checkpoint (SmolLM2) and a SigLIP checkpoint, in eval mode.

    scale_factor: patches a side that become one image token; None is the largest of 4, 3 and 2 that fits the tile.
    image_size: side of a tile in pixels; None is the tower's. For another one its positions are interpolated. dtype: of
    all weights; "auto" is the text model's. seed: of the connector. Head and embeddings are one matrix where they are
    in the text model.
    Raises CheckpointError with the first tensors that are missing, unexpected or misshaped; ConfigError for sizes that
    don't fit each other.
    """
    text = load_text(text_directory, dtype)
    vision = load_vision(vision_directory, text.lm_head.weight.dtype)
    if vocabulary.known > text.config.text_config.vocab_size:
        raise CheckpointError(
            f"{text_directory} has a tokenizer with {vocabulary.known} tokens, but a model with "
            f"{text.config.text_config.vocab_size}: the two are of different models."
        )
    config = _config(text, vision, vocabulary, scale_factor, image_size)
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    model.load_state_dict(_weights(text, vision, config, vocabulary.known, seed), strict=True, assign=True)
    model.tie_weights()  # assigning made two parameters of the one
    model.generation_config = {  # type: ignore[assignment]
        "bos_token_id": vocabulary.begin, "eos_token_id": vocabulary.end, "pad_token_id": vocabulary.pad,
    }  # fmt: skip
    return model.eval()


def _config(
    text: SmolVLMForCausalLM,
    vision: SmolVLMVisionTransformer,
    vocabulary: Vocabulary,
    scale_factor: int | None,
    image_size: int | None,
) -> SmolVLMConfig:
    old = text.config.text_config
    ids = {"bos_token_id": vocabulary.begin, "eos_token_id": vocabulary.end, "pad_token_id": vocabulary.pad}
    rows = max(vocabulary.size, old.vocab_size)  # a table may have spare rows already
    changes = {} if image_size is None else {"image_size": image_size}
    seeing = SmolVLMVisionConfig(**{**vision.config.to_dict(), **changes})
    side = seeing.patches_per_side
    scale = scale_factor or next(one for one in SCALES if side % one == 0)
    if side % scale:
        raise ConfigError(
            f"A tile of {seeing.image_size} pixels has {side} patches a side, which can't be shuffled by {scale}: take "
            f"a scale_factor that divides {side}, or another image_size."
        )
    return SmolVLMConfig(
        image_token_id=vocabulary.image,
        tie_word_embeddings=text.config.tie_word_embeddings,
        vision_config=seeing,
        text_config=SmolVLMTextConfig(**{**old.to_dict(), **ids, "vocab_size": rows}),
        scale_factor=scale,
        pad_token_id=vocabulary.pad,
    )


def _weights(
    text: SmolVLMForCausalLM, vision: SmolVLMVisionTransformer, config: SmolVLMConfig, known: int, seed: int
) -> dict[str, Tensor]:
    rows = config.text_config.vocab_size
    state = {f"model.vision_model.{name}": tensor for name, tensor in vision.state_dict().items()}
    state |= {f"model.text_model.{name}": tensor for name, tensor in text.model.state_dict().items()}
    state[_POSITIONS] = resize_positions(state[_POSITIONS], config.vision_config.patches_per_side)
    state[_EMBEDDINGS] = extend_rows(state[_EMBEDDINGS], known, rows)
    tied = config.tie_word_embeddings
    state[_HEAD] = state[_EMBEDDINGS] if tied else extend_rows(text.lm_head.weight.detach(), known, rows)
    width = config.vision_config.hidden_size * config.scale_factor**2
    connector = torch.empty(config.text_config.hidden_size, width)
    connector.normal_(std=config.text_config.initializer_range, generator=torch.Generator().manual_seed(seed))
    state[_CONNECTOR] = connector.to(text.lm_head.weight.dtype)
    return state


def extend_rows(table: Tensor, known: int, rows: int) -> Tensor:
    """(old rows, hidden) -> (rows, hidden): the first `known` as they are, all others their mean."""
    mean = table[:known].float().mean(0).to(table.dtype)
    return torch.cat([table[:known], mean.expand(rows - known, -1)])


def resize_positions(table: Tensor, side: int) -> Tensor:
    """(old side^2, hidden) -> (side^2, hidden): learned positions of a square of patches, interpolated (bicubic)."""
    old = math.isqrt(len(table))
    if old == side:
        return table
    square = table.float().T.reshape(1, -1, old, old)  # (1, hidden, rows, columns)
    square = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return square.flatten(2)[0].T.contiguous().to(table.dtype)
