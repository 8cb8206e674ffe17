"""WING: models made and tuned. So far: training from nothing on drawn scenes, by recipe."""

from .loop import Progress, train
from .mixture import Mixture
from .recipe import Recipe, Stage, read_recipe

__all__ = ["Mixture", "Progress", "Recipe", "Stage", "read_recipe", "train"]
