"""From patches to the decoder's tokens: pixel shuffle, then one linear layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..config import SmolVLMConfig
from ..errors import InputError


def pixel_shuffle(x: Tensor, scale: int) -> Tensor:
    """Space to depth: (tiles, patches, hidden) -> (tiles, patches / scale^2, hidden * scale^2), row-major.

    Raises InputError when the patches aren't a square whose side is a multiple of `scale`.
    """
    tiles, patches, hidden = x.shape
    side = math.isqrt(patches)
    if side * side != patches or side % scale:
        raise InputError(
            f"A tile of {patches} patches can't be shuffled by {scale}: tiles must be square with a side that is a "
            f"multiple of {scale} patches. Let the image processor cut the tiles."
        )
    x = x.view(tiles, side // scale, scale, side // scale, scale, hidden)
    x = x.transpose(2, 3)  # (tiles, token row, token column, row in block, column in block, hidden)
    return x.reshape(tiles, patches // scale**2, hidden * scale**2)


class SmolVLMSimpleMLP(nn.Module):
    """The projection; a class of its own because the checkpoint's key has it."""

    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size * config.scale_factor**2
        self.proj = nn.Linear(width, config.text_config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class SmolVLMConnector(nn.Module):
    def __init__(self, config: SmolVLMConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.modality_projection = SmolVLMSimpleMLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """(tiles, patches, vision hidden) -> (tiles, image tokens, text hidden)."""
        return self.modality_projection(pixel_shuffle(x, self.scale_factor))
