"""Plans: sizes and grids by the reference's table, and what detail and max_tiles may and may not do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.errors import InputError
from smolvlm.processing.image import plan
from smolvlm.processing.tiles import MAX_SIDE

GRIDS = [
    *[(640, 480, 3, 4), (1920, 1080, 3, 4), (480, 640, 4, 3), (1080, 1920, 4, 3), (512, 512, 4, 4), (100, 100, 4, 4)],
    *[(3000, 500, 1, 4), (1000, 250, 1, 4), (500, 3000, 4, 1), (37, 911, 4, 1)],
]


@pytest.mark.parametrize("longest_edge,tile_size", [(2048, 512), (1536, 384)])
@pytest.mark.parametrize("width,height,rows,cols", GRIDS)
def test_grids_are_those_of_the_released_checkpoints(
    width: int, height: int, rows: int, cols: int, longest_edge: int, tile_size: int
) -> None:
    planned = plan(width, height, longest_edge=longest_edge, tile_size=tile_size)
    assert (planned.rows, planned.cols, planned.tiles) == (rows, cols, rows * cols + 1)


def test_the_two_geometries_differ_for_2048_by_1537() -> None:
    assert plan(2048, 1537, longest_edge=2048, tile_size=512).rows == 4
    assert plan(2048, 1537, longest_edge=1536, tile_size=384).rows == 3


def test_without_the_first_resize_a_picture_is_cut_as_it_is() -> None:
    assert plan(640, 480, longest_edge=None, tile_size=512).tiles == 5
    assert plan(300, 200, longest_edge=None, tile_size=512).tiles == 1


sides = st.integers(1, 6000)


@given(width=sides, height=sides, tile_size=st.sampled_from([14, 64, 128, 364, 384, 512]), times=st.integers(1, 5))
def test_every_plan_ends_in_whole_tiles(width: int, height: int, tile_size: int, times: int) -> None:
    for detail in ("low", "auto", "high"):
        planned = plan(width, height, longest_edge=times * tile_size, tile_size=tile_size, detail=detail)
        last = planned.sizes[-1]
        grid = (planned.cols or 1, planned.rows or 1)
        assert last == (grid[0] * tile_size, grid[1] * tile_size)
        assert (planned.rows, planned.cols) != (1, 1)
        assert max(planned.rows, planned.cols) <= times


@given(width=sides, height=sides, most=st.integers(1, 20))
def test_a_limit_of_tiles_is_kept_and_lost_on_nothing_else(width: int, height: int, most: int) -> None:
    free = plan(width, height, longest_edge=2048, tile_size=512)
    limited = plan(width, height, longest_edge=2048, tile_size=512, max_tiles=most)
    assert limited.tiles <= most
    if free.tiles <= most:
        assert limited == free


@given(width=sides, height=sides)
def test_auto_takes_no_more_tiles_than_high_and_few_for_few_pixels(width: int, height: int) -> None:
    high = plan(width, height, longest_edge=2048, tile_size=512)
    auto = plan(width, height, longest_edge=2048, tile_size=512, detail="auto")
    assert auto.tiles <= high.tiles
    longest = max(width, height)
    if longest <= 512:
        assert auto.tiles == 1
    if longest > 1536:
        assert auto == high
    if longest <= 2048:
        assert max(auto.rows, auto.cols) * 512 < longest + 512  # no more tiles along the long side than it fills


def test_low_is_one_tile_in_one_step() -> None:
    assert plan(1920, 1080, longest_edge=2048, tile_size=512, detail="low").sizes == ((512, 512),)


def test_no_side_goes_beyond_4096() -> None:
    assert max(plan(9000, 5000, longest_edge=8192, tile_size=512).sizes[0]) == MAX_SIDE


@pytest.mark.parametrize(
    "arguments,part",
    [
        ({"width": 0}, "0 x 10"),
        ({"max_tiles": 0}, "max_tiles=0"),
        ({"detail": "medium"}, "'low', 'auto' or 'high'"),
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        plan(**{"width": 10, "height": 10, "longest_edge": 2048, "tile_size": 512, **arguments})
