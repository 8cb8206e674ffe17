"""How a picture is resized and cut into tiles: the arithmetic alone, no pixels.

The token preview, the processors and the trainer all ask here, so that a count made from a file's header equals
the tiles made from its pixels. Rounding rules: transformers' image_processing_pil_smolvlm.py (5.23), parity in
tests/reference/test_image.py. The levels "low" and "auto" are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError
from ..types import Detail

MAX_SIDE = 4096  # no side is resized beyond this, whatever longest_edge asks for


@dataclass(frozen=True)
class TilePlan:
    """The way from a picture of known size to its tiles.

    sizes: (width, height) of each resize in turn; the last one is cut. rows, cols: the grid, 0 x 0 when the picture
    is one unsplit tile. A grid is followed by one global tile, the whole picture resized to a tile.
    """

    sizes: tuple[tuple[int, int], ...]
    rows: int
    cols: int
    tile_size: int

    @property
    def tiles(self) -> int:
        return self.rows * self.cols + 1


def plan(
    width: int,
    height: int,
    *,
    longest_edge: int | None,
    tile_size: int,
    detail: Detail = "high",
    max_tiles: int | None = None,
    exact_size: tuple[int, int] | None = None,
    split: bool = True,
) -> TilePlan:
    """Decide resizes and grid for a picture of width x height pixels.

    longest_edge: the first resize brings the long side to it; None leaves that resize out. exact_size: (width, height)
    of the first resize instead. tile_size: side of a tile. detail: "high" is the reference; "auto" takes no more tiles
    than the picture has pixels for; "low" is one unsplit tile. max_tiles: most tiles, the global one included; the
    longest edge shrinks by whole tiles until they suffice. split=False: one unsplit tile by the reference's own road
    (through longest_edge). Raises InputError for a size or limit below 1, or an unknown detail.
    """
    if width < 1 or height < 1:
        raise InputError(f"A picture of {width} x {height} pixels is empty: both sides must be at least 1.")
    if max_tiles is not None and max_tiles < 1:
        raise InputError(f"max_tiles={max_tiles} leaves no tile for the picture: it must be at least 1.")
    if detail not in ("low", "auto", "high"):
        raise InputError(f"detail={detail!r} is unknown: it must be 'low', 'auto' or 'high'.")
    one_tile = TilePlan(((tile_size, tile_size),), 0, 0, tile_size)
    if detail == "low" or (detail == "auto" and max(width, height) <= tile_size):
        return one_tile
    first = exact_size or (fit_longest_edge(width, height, longest_edge) if longest_edge else (width, height))
    if not split:
        return TilePlan((first, (tile_size, tile_size)), 0, 0, tile_size)
    if detail == "auto":
        enough = math.ceil(max(width, height) / tile_size) * tile_size
        if max(first) > enough:
            first = fit_longest_edge(width, height, enough)
    for size in (first, *_smaller(width, height, max(first), tile_size)):
        candidate = _grid(size, tile_size)
        if max_tiles is None or candidate.tiles <= max_tiles:
            return candidate
    return one_tile


def fit_longest_edge(width: int, height: int, longest_edge: int) -> tuple[int, int]:
    """(width, height) after the first resize: the long side is longest_edge, the short one is made even, upwards."""
    ratio = width / height
    if width >= height:
        new_width, new_height = longest_edge, _even(int(longest_edge / ratio))
    else:
        new_width, new_height = _even(int(longest_edge * ratio)), longest_edge
    new_width, new_height = max(new_width, 1), max(new_height, 1)

    ratio = new_width / new_height  # of the rounded sides, as the reference has it
    if new_width >= new_height and new_width > MAX_SIDE:
        new_width, new_height = MAX_SIDE, int(MAX_SIDE / ratio)
    elif new_height > new_width and new_height > MAX_SIDE:
        new_width, new_height = int(MAX_SIDE * ratio), MAX_SIDE
    return max(new_width, 1), max(new_height, 1)


def fit_tile_grid(width: int, height: int, tile_size: int) -> tuple[int, int]:
    """(width, height) after the second resize: each side rounded up to whole tiles, so the shape is not quite kept."""
    ratio = width / height
    if width >= height:
        new_width = _whole_tiles(width, tile_size)
        return new_width, _whole_tiles(int(new_width / ratio), tile_size)
    new_height = _whole_tiles(height, tile_size)
    return _whole_tiles(int(new_height * ratio), tile_size), new_height


def _grid(first: tuple[int, int], tile_size: int) -> TilePlan:
    second = fit_tile_grid(*first, tile_size)
    cols, rows = second[0] // tile_size, second[1] // tile_size
    if rows == cols == 1:
        rows = cols = 0
    return TilePlan((first, second), rows, cols, tile_size)


def _smaller(width: int, height: int, longest_edge: int, tile_size: int) -> Iterator[tuple[int, int]]:
    """First sizes with a longest edge of fewer and fewer whole tiles, down to two."""
    for count in range(math.ceil(longest_edge / tile_size) - 1, 1, -1):
        yield fit_longest_edge(width, height, count * tile_size)


def _whole_tiles(side: int, tile_size: int) -> int:
    return max(math.ceil(side / tile_size), 1) * tile_size


def _even(side: int) -> int:
    return side + side % 2
