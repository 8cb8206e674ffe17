"""A text checkpoint and a vision checkpoint of their own, as SmolLM2's and SigLIP's are, cut from the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.tiny import LAST_TOKENS, tiny_config, tiny_tokenizer_json, tiny_weights

TEXT_PREFIX, VISION_PREFIX = "model.text_model.", "model.vision_model."


def text_tokenizer_json() -> str:
    """The tiny tokenizer as it was before it had tokens for pictures."""
    tokenizer = json.loads(tiny_tokenizer_json())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] not in LAST_TOKENS]
    return json.dumps(tokenizer)


def known_tokens() -> int:
    return len(json.loads(text_tokenizer_json())["model"]["vocab"])


def text_checkpoint(directory: Path, *, tied: bool = True, spare_rows: int = 0, **changes: object) -> Path:
    """A Llama checkpoint with its tokenizer. changes: of config.json."""
    weights = tiny_weights(tiny_config())
    rows = known_tokens() + spare_rows
    tensors = {name.replace(TEXT_PREFIX, "model."): one for name, one in weights.items() if TEXT_PREFIX in name}
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:rows]
    if not tied:
        tensors["lm_head.weight"] = weights["lm_head.weight"][:rows]
    text = {**tiny_config()["text_config"], "vocab_size": rows, "pad_token_id": None}  # type: ignore[dict-item]
    config = {**text, "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": tied, **changes}
    write_checkpoint(directory, config, tensors)
    (directory / "tokenizer.json").write_text(text_tokenizer_json(), encoding="utf-8")
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def vision_checkpoint(directory: Path, *, image_size: int = 32, patch_size: int = 4) -> Path:
    """A SigLIP checkpoint: both of its towers, and the head that pools patches."""
    whole = tiny_config(image_size=image_size, patch_size=patch_size)
    weights = tiny_weights(whole)
    tensors = {name.removeprefix("model."): one for name, one in weights.items() if name.startswith(VISION_PREFIX)}
    tensors["vision_model.head.probe"] = np.ones((1, 1, 32), dtype=np.float32)
    tensors["text_model.final_layer_norm.weight"] = np.ones(32, dtype=np.float32)
    tensors["logit_scale"] = np.ones(1, dtype=np.float32)
    vision = {**whole["vision_config"], "model_type": "siglip_vision_model"}  # type: ignore[dict-item]
    write_checkpoint(directory, {"model_type": "siglip", "vision_config": vision, "text_config": {}}, tensors)
    return directory


def write_checkpoint(directory: Path, config: dict[str, object], tensors: dict[str, np.ndarray]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    own = {name: np.ascontiguousarray(one) for name, one in tensors.items()}
    save_file(own, directory / "model.safetensors", metadata={"format": "pt"})
