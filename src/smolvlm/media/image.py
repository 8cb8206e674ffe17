"""The door for pictures."""
from __future__ import annotations
from typing import Any
from PIL import Image
from .pixels import to_rgb, upright
def open_image(source: Any, *, allow_url: bool=False, rgb: bool=True, quirks: bool=False) -> Image.Image:
    if isinstance(source, Image.Image):
        return to_rgb(upright(source) if not quirks else source, quirks=quirks)
    return to_rgb(upright(Image.open(source)))
