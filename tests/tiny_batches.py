"""The tiny model in memory, and batches of random prompts around random tiles for it."""

from __future__ import annotations

from functools import lru_cache

import torch

from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration
from tests.tiny import tiny_config, tiny_token_ids, tiny_weights

Batch = dict[str, torch.Tensor]
IMAGE_TOKENS = 16  # of one tile of the tiny model


@lru_cache(maxsize=1)
def tiny_model() -> SmolVLMForConditionalGeneration:
    config = tiny_config()
    model = SmolVLMForConditionalGeneration(SmolVLMConfig.from_dict(config)).eval()
    weights = {key: torch.from_numpy(value) for key, value in tiny_weights(config).items()}
    model.load_state_dict(weights, strict=True)
    return model


def request(seed: int, text: int, tiles: int = 0) -> Batch:
    """A prompt of random text tokens around `tiles` random tiles, as a batch of one."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(10, 500, (text,), generator=generator)
    image = torch.full((tiles * IMAGE_TOKENS,), tiny_token_ids()["<image>"])
    batch = {"input_ids": torch.cat([words[:1], image, words[1:]])[None]}
    if tiles:
        batch["pixel_values"] = torch.rand(1, tiles, 3, 32, 32, generator=generator) * 2 - 1
    return batch


def together(requests: list[Batch]) -> Batch:
    """One left-padded batch; tiles that a row doesn't have are zero."""
    longest = max(item["input_ids"].shape[1] for item in requests)
    tiles = max(item["pixel_values"].shape[1] if "pixel_values" in item else 0 for item in requests)
    ids = torch.full((len(requests), longest), tiny_token_ids()["<|im_end|>"])
    mask = torch.zeros_like(ids)
    pixels = torch.zeros(len(requests), tiles, 3, 32, 32)
    for row, item in enumerate(requests):
        length = item["input_ids"].shape[1]
        ids[row, longest - length :] = item["input_ids"][0]
        mask[row, longest - length :] = 1
        if "pixel_values" in item:
            pixels[row, : item["pixel_values"].shape[1]] = item["pixel_values"][0]
    return {"input_ids": ids, "attention_mask": mask} | ({"pixel_values": pixels} if tiles else {})
