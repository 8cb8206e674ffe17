"""Twins of the benchmarks: files of their official layouts, drawn by scenes/, so that everything runs without them.

A twin has the name, the columns and the kinds of rows of the real files; its pictures and questions are drawn, and a
score on it says nothing about the benchmark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...errors import InputError
from ..tasks import ai2d, chartqa, docvqa, mathvista, mmmu, mmstar, ocrbench, scienceqa, textvqa, vqav2
from . import video
from .files import PARQUET, write_parquet, write_tsv
from .images import draw_rows

__all__ = ["TWINS", "draw_twin"]

_IMAGES = {
    "ai2d": ai2d.FILES,
    "chartqa": chartqa.FILES,
    "docvqa": docvqa.FILES,
    "docvqa-test": docvqa.TEST_FILES,
    "mathvista": mathvista.FILES,
    "mmmu": mmmu.FILES,
    "mmstar": mmstar.FILES,
    "ocrbench": ocrbench.FILES,
    "scienceqa": scienceqa.FILES,
    "textvqa": textvqa.FILES,
    "vqav2": vqav2.FILES,
}
TWINS = tuple(sorted([*_IMAGES, *video.TWINS]))


def draw_twin(name: str, directory: Path, rows: int, layout: Literal["tsv", "parquet"] = "tsv") -> Path:
    """Write the twin of a task into a directory of data sets, where the task finds it; the file, or its folder.

    layout: of mmmu, chartqa and docvqa also as the hub has them; videos have only their own. The same in every run.
    Raises InputError for a task without a twin, for a layout that it has none of, and for fewer rows than one.
    """
    if name not in TWINS:
        raise InputError(f"There is no twin of {name!r}. There are: {', '.join(TWINS)}.")
    if layout == "parquet" and name not in PARQUET:
        raise InputError(f"The twin of {name} isn't drawn as parquet. These are: {', '.join(PARQUET)}.")
    if name in video.TWINS:
        return video.draw_twin(name, directory, rows)
    if rows < 1:
        raise InputError(f"A twin of {rows} rows is none: draw at least 1.")
    if layout == "parquet":
        return write_parquet(name, directory, draw_rows(name, rows))
    return write_tsv(directory / f"{_IMAGES[name].tsv}.tsv", draw_rows(name, rows))
