"""How fast a loaded model is here, step by step, and how much work a step is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ..checkpoint import TensorEntry
from ..checkpoint.shapes import EMBEDDINGS, HEAD
from ..config import SmolVLMConfig
from ..generation.engine import TOKENS_A_STEP
from ..runtimes.bindings import F32, INT8
from ..runtimes.machine import timed
from ..runtimes.memory import ITEM_BYTES, native_slot, weight_bytes
from ..runtimes.motor import Motor, Slot, Span
from ..runtimes.native import MODES
from ..types import Detail
from .vlm import VLM

QUESTION = "What is shown in this picture? Describe it in detail."
MOST_TILES = 4  # that the time of a tile is taken from


@dataclass(frozen=True)
class Speed:
    """Medians of one model on one machine. Seconds are of one picture; decode_tps is at `context` tokens.

    images_per_s: pictures prepared and looked at in a second, one after another. first_token_s, total_s: of a question
    about a picture that wasn't seen before, and of its answer of `new_tokens` tokens.
    """

    tiles: int
    prompt_tokens: int
    new_tokens: int
    context: int
    preprocess_s: float
    tile_s: float
    images_per_s: float
    prefill_tps: float
    first_token_s: float
    total_s: float
    decode_tps: float


@dataclass(frozen=True)
class Work:
    """What steps ask of a machine: operations of a tile and of reading a prompt, bytes read for a new token.

    vision_dtype, text_dtype: what many rows are multiplied in.
    """

    tile_operations: float
    prompt_operations: float
    token_bytes: float
    vision_dtype: str
    text_dtype: str


def measure(
    vlm: VLM, pictures: Sequence[Path], *, detail: Detail = "high", context: int = 900, new_tokens: int = 64
) -> Speed:
    """Time each step. pictures: two or more different ones; the first warms up, the others are asked about."""
    motor = vlm._driver.motor
    warm, *pictures = pictures
    vlm.ask(QUESTION, images=[warm], detail="low", max_new_tokens=2)
    asked = {"detail": detail, "max_new_tokens": new_tokens}
    answers = [vlm.ask(QUESTION, images=[picture], **asked) for picture in pictures]  # type: ignore[arg-type]
    blocks = [{"type": "image", "image": str(pictures[0])}, {"type": "text", "text": QUESTION}]

    def prepare() -> np.ndarray:
        pixels = vlm.processor.prepare([{"role": "user", "content": blocks}], detail=detail).pixel_values
        assert pixels is not None, "there is a picture"
        return pixels

    preprocess_s = median(timed(prepare) for _ in range(3))
    pixels = prepare()
    few = pixels[:MOST_TILES]
    tile_s = median(timed(lambda: _look(motor, few)) for _ in pictures) / len(few)
    context = min(context, vlm.context - new_tokens)
    slot = motor.open(context + new_tokens)
    prefill_s = median(timed(lambda: _read(motor, slot, context)) for _ in pictures)
    step_s = median(timed(lambda: _read_one(motor, slot)) for _ in range(new_tokens))
    return Speed(
        tiles=len(pixels), prompt_tokens=answers[0].prompt_tokens, new_tokens=len(answers[0].token_ids),
        context=context, preprocess_s=preprocess_s, tile_s=tile_s,
        images_per_s=1 / (preprocess_s + len(pixels) * tile_s),
        prefill_tps=context / prefill_s, first_token_s=median(answer.first_token_s for answer in answers),
        total_s=median(answer.total_s for answer in answers), decode_tps=1 / step_s,
    )  # fmt: skip


def work_of(vlm: VLM, entries: Mapping[str, TensorEntry], context: int) -> Work | None:
    """What a model's steps ask for; None where nothing is known of a runtime's formats. entries: its tensors."""
    motor, config, dtype = vlm._driver.motor, vlm.config, vlm.dtype
    if motor.device != "cpu" or motor.name not in ("native", "torch"):
        return None
    head = EMBEDDINGS if config.tie_word_embeddings else HEAD
    read = {name: one for name, one in entries.items() if name == head or name.startswith("model.text_model.layers.")}
    weights, _ = weight_bytes(motor.name, config, read, dtype)
    text, half = config.text_config, "float32" if dtype == "float32" else "bfloat16"
    if motor.name == "native":
        mode, cache = MODES[dtype], native_slot(config, dtype, context)
        vision = "int8" if mode.vision == INT8 else "float32" if mode.vision == F32 else "bfloat16"
    else:
        vision = half
        cache = 2 * text.num_hidden_layers * text.kv_heads * text.head_size * context * ITEM_BYTES[dtype]
    return Work(_tile_operations(config), _prompt_operations(config, context), weights + cache, vision, half)


def _look(motor: Motor, pixels: np.ndarray) -> None:
    features = motor.encode(pixels)
    motor.content(features[0, :1])  # on a GPU: until it is there


def _read(motor: Motor, slot: Slot, tokens: int) -> None:
    """A prompt of so many tokens, in pieces."""
    slot.length = 0
    ids = 3 + np.arange(tokens) % (motor.config.text_config.vocab_size // 2)
    ids[ids == motor.config.image_token_id] = 3
    for start in range(0, tokens, TOKENS_A_STEP):
        piece = ids[start : start + TOKENS_A_STEP]
        motor.forward([Span(slot, piece)], [len(piece) - 1])


def _read_one(motor: Motor, slot: Slot) -> None:
    motor.forward([Span(slot, np.array([7]))], [0])


def _tile_operations(config: SmolVLMConfig) -> float:
    tower, patches = config.vision_config, config.vision_config.patches_per_side**2
    hidden = tower.hidden_size
    layer = 4 * hidden**2 + 2 * hidden * tower.intermediate_size
    first_and_last = 3 * tower.patch_size**2 * hidden + hidden * config.text_config.hidden_size
    attention = 2 * patches * hidden  # each patch looks at all: scores, then the sum of values
    return 2.0 * patches * (tower.num_hidden_layers * (layer + attention) + first_and_last)


def _prompt_operations(config: SmolVLMConfig, tokens: int) -> float:
    text = config.text_config
    queries, keys = text.num_attention_heads * text.head_size, text.kv_heads * text.head_size
    layer = text.hidden_size * (2 * queries + 2 * keys + 3 * text.intermediate_size)
    attention = tokens * queries  # each token looks at half of them, on average
    return 2.0 * tokens * text.num_hidden_layers * (layer + attention)
