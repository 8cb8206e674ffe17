"""WING: models made and tuned. So far: training from nothing on drawn scenes, by recipe; data sets made ready (data/).

Names are resolved on first use (PEP 562), because data/ needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Progress as Progress
    from .loop import train as train
    from .mixture import Mixture as Mixture
    from .recipe import Recipe as Recipe
    from .recipe import Stage as Stage
    from .recipe import read_recipe as read_recipe

_HOME_OF = {
    "Mixture": "mixture",
    "Progress": "loop",
    "Recipe": "recipe",
    "Stage": "recipe",
    "read_recipe": "recipe",
    "train": "loop",
}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  the one list of names is _HOME_OF


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value
