"""A stand-in for a released checkpoint: the same files and geometry with random weights, so that nothing is downloaded.

It takes the time and the memory of the real one, and says nothing that means anything. Its tokenizer is nano's, filled
up to the size of the real vocabulary by sequences of bytes that no prompt has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
from PIL import Image

from .. import hub
from ..checkpoint import OutgoingTensor, read_json, write, write_json
from ..checkpoint.safetensors import narrow
from ..checkpoint.shapes import HEAD, expected_shapes
from ..config import SmolVLMConfig
from ..processing.image import SmolVLMImageProcessor
from ..processing.processor import SmolVLMProcessor

SIGLIP_BASE: dict[str, object] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 512, "patch_size": 16,
}  # fmt: skip
SIGLIP_SO400M: dict[str, object] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
TEXT: dict[str, object] = {
    "vocab_size": 49280, "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
    "max_position_embeddings": 8192, "pad_token_id": 2,
}  # fmt: skip
# size -> vision tower, scale factor, (hidden, MLP, layers, heads, key/value heads) of the text model
SIZES = {
    "256m": (SIGLIP_BASE, 4, (576, 1536, 30, 9, 3)),
    "500m": (SIGLIP_BASE, 4, (960, 2560, 32, 15, 5)),
    "2.2b": (SIGLIP_SO400M, 3, (2048, 8192, 24, 32, 32)),
}
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SPREAD = 0.02  # standard deviation of the weights, as before a training
NOISE = 1_000_003  # different values: a prime, so that no two rows of a matrix are the same
TILES_ACROSS = 4  # the longest edge of pictures, as released


def geometry(size: str) -> SmolVLMConfig:
    """The config of a released model; size: a name in SIZES."""
    vision, scale_factor, shape = SIZES[size]
    text = {**TEXT, **dict(zip(SHAPE, shape, strict=True))}
    return SmolVLMConfig(vision_config=dict(vision), text_config=text, scale_factor=scale_factor)


def write_standin(directory: Path, config: SmolVLMConfig, *, seed: int = 0) -> Path:
    """Write a whole checkpoint with random bfloat16 weights. Its answers never end before max_new_tokens."""
    nano, tile = SmolVLMProcessor.from_pretrained(hub.resolve(hub.BUNDLED)), config.vision_config.image_size
    pictures = SmolVLMImageProcessor(size={"longest_edge": TILES_ACROSS * tile}, max_image_size={"longest_edge": tile})
    whole = SmolVLMProcessor(pictures, nano.tokenizer, None, config.image_seq_len, nano.chat_template)
    whole.save_pretrained(directory)
    _fill_vocabulary(directory, config.text_config.vocab_size)
    tokenizer = SmolVLMProcessor.from_pretrained(directory).tokenizer
    end = tokenizer.end_of_utterance_token_id
    write_weights(directory, config, never=[end], seed=seed)
    written = {**config.to_dict(), "image_token_id": tokenizer.image_token_id, "dtype": "bfloat16"}
    write_json(directory / "config.json", {"architectures": ["SmolVLMForConditionalGeneration"], **written})
    write_json(directory / "generation_config.json", {"eos_token_id": end, "pad_token_id": 2})
    return directory


def write_weights(directory: Path, config: SmolVLMConfig, *, never: Sequence[int] = (), seed: int = 0) -> None:
    """Write random bfloat16 tensors of a geometry, one in memory at a time.

    never: token ids that are never likeliest: their rows of the head are zeros, where others give values above 0.
    """
    noise = narrow(np.random.default_rng(seed).standard_normal(NOISE, np.float32) * np.float32(SPREAD))

    def values(name: str, shape: tuple[int, ...], number: int) -> np.ndarray:
        if len(shape) == 1:
            is_norm = "norm" in name and name.endswith(".weight")
            return np.full(shape, narrow(np.ones(1, np.float32))[0] if is_norm else 0, np.uint16)
        bits = np.resize(np.roll(noise, 7919 * number), math.prod(shape)).reshape(shape)
        if name == HEAD:
            bits[list(never)] = 0
        return bits

    shapes = expected_shapes(config)
    write(
        directory,
        {
            name: OutgoingTensor("BF16", shape, partial(values, name, shape, number))
            for number, (name, shape) in enumerate(shapes.items())
        },
    )


def write_picture(file: Path, width: int = 1920, height: int = 1080, *, seed: int = 0) -> Path:
    """A picture with detail in it; of this size it is cut into 4 x 3 tiles and shown as a whole, 13 tiles."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, quality=90)
    return file


def _fill_vocabulary(directory: Path, size: int) -> None:
    """Put entries and their merges between the words of a saved tokenizer and its control tokens, up to `size` ids."""
    whole, settings = read_json(directory / "tokenizer.json"), read_json(directory / "tokenizer_config.json")
    vocabulary, merges = whole["model"]["vocab"], whole["model"]["merges"]  # type: ignore[index]
    known = len(vocabulary)
    missing = size - known - sum(token["id"] >= known for token in whole["added_tokens"])  # type: ignore[attr-defined]
    letters = [chr(byte) for byte in range(0xAE, 0x100) if chr(byte) in vocabulary]  # bytes that stand for themselves
    pairs = [(one, other) for one, other in product(letters, letters) if one + other not in vocabulary]
    triples = ((one + other, third) for (one, other), third in product(pairs, letters))
    for left, right in islice(chain(pairs, triples), missing):
        vocabulary[left + right] = len(vocabulary)
        merges.append([left, right])
    for token in whole["added_tokens"]:  # type: ignore[attr-defined]
        token["id"] += missing if token["id"] >= known else 0
    settings["added_tokens_decoder"] = {
        str(int(number) + (missing if int(number) >= known else 0)): token
        for number, token in settings["added_tokens_decoder"].items()  # type: ignore[attr-defined]
    }
    write_json(directory / "tokenizer.json", whole)
    write_json(directory / "tokenizer_config.json", settings)
