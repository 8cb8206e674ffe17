"""Small pictures and conversations for tests of processors."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from tests.tiny import tiny_token_ids

IDS = tiny_token_ids()
TILE_TOKENS = 16  # of the tiny checkpoint


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(*blocks: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def image_block(source: Any = None, **options: Any) -> dict[str, Any]:
    return {"type": "image", "image": source, **options}


def image_tokens(ids: Any) -> int:
    return int((np.asarray(ids) == IDS["<image>"]).sum())
