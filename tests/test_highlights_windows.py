"""Where windows lie: shots end at cuts, motion is a window of its own, and together they cover the video."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smolvlm.errors import InputError
from smolvlm.highlights.shots import Track, compare, exact_cut, find_cuts, thumbnail
from smolvlm.highlights.windows import Window, curve_of, cut_windows, spans
from smolvlm.media.video import Frame


def track(peaks: list[float], cuts: list[int], step_s: float = 0.25) -> Track:
    """Frames that change by these amounts; at the cuts everything does."""
    peak = np.array(peaks, np.float32)
    change, share = peak / 50, np.minimum(peak, 1) / 10
    for place in cuts:
        peak[place], change[place], share[place] = 0.9, 0.2, 1.0
    return Track(step_s * np.arange(len(peaks)), change, share, peak)


def bordered(windows: list[Window]) -> list[tuple[float, float]]:
    return [(one.start_s, one.end_s) for one in windows]


def test_a_cut_is_where_everything_changes_at_once() -> None:
    assert find_cuts(track([0.0] * 40, [12, 30])) == [12, 30]


def test_steady_motion_is_no_cut() -> None:
    moving = Track(np.arange(40) / 4, np.full(40, 0.09), np.full(40, 0.8), np.full(40, 0.5))
    assert find_cuts(moving) == []


def test_something_that_appears_is_no_cut() -> None:
    red = Image.new("RGB", (64, 64), "white")
    red.paste((255, 0, 0), (10, 10, 22, 22))
    before, after = thumbnail(Image.new("RGB", (64, 64), "white")), thumbnail(red)
    change, share, peak = compare(before, after)
    series = np.zeros((3, 20))
    series[:, 10] = change, share, peak
    assert peak > 0.5 and find_cuts(Track(np.arange(20) / 4, *series)) == []


def test_the_exact_cut_is_the_first_frame_of_the_new_shot() -> None:
    colours = ["white"] * 3 + ["navy"] * 4
    frames = [Frame(n, 2 + n / 30, Image.new("RGB", (40, 30), colour)) for n, colour in enumerate(colours)]
    assert exact_cut(frames) == pytest.approx(2 + 3 / 30)


def test_still_shots_are_one_window_each() -> None:
    assert bordered(cut_windows(track([0.0] * 40, [16]), [16], 10.0)) == [(0, 4), (4, 10)]


def test_a_motion_is_a_window_of_its_own_and_is_shown_with_what_surrounds_it() -> None:
    peaks = [0.0] * 12 + [0.4] * 8 + [0.0] * 12  # something moves from 2.75 s to 4.75 s
    still, moving, after = cut_windows(track(peaks, []), [], 8.0)
    assert (moving.start_s, moving.end_s) == (2.75, 4.75)
    assert (moving.from_s, moving.to_s) == (1.25, 6.25)
    assert (still.from_s, still.to_s, after.from_s, after.to_s) == (0, 2.75, 4.75, 8)


def test_a_sudden_change_has_a_window_of_a_second() -> None:
    peaks = [0.0] * 16 + [0.6] + [0.0] * 15
    windows = cut_windows(track(peaks, []), [], 8.0)
    assert (3.375, 4.375) in bordered(windows)


def test_a_moving_camera_is_no_motion() -> None:
    peaks = list(np.random.default_rng(0).uniform(0.3, 0.6, 32))
    assert bordered(cut_windows(track(peaks, []), [], 8.0)) == [(0, 8)]


def test_long_shots_are_covered_by_windows_that_overlap_by_half_or_more() -> None:
    windows = cut_windows(track([0.0] * 80, []), [], 20.0, window_s=8.0)
    assert bordered(windows) == [(0, 8), (4, 12), (8, 16), (12, 20)]


@given(
    peaks=st.lists(st.sampled_from([0.0, 0.01, 0.3, 0.9]), min_size=2, max_size=120),
    cuts=st.lists(st.integers(1, 119), max_size=5, unique=True),
)
def test_windows_cover_the_video_and_stay_inside_their_shot(peaks: list[float], cuts: list[int]) -> None:
    places = sorted(place for place in cuts if place < len(peaks))
    seen, duration_s = track(peaks, places), len(peaks) / 4
    windows = cut_windows(seen, places, duration_s)
    covered_s = 0.0
    for one in sorted(windows, key=lambda one: one.start_s):
        assert one.start_s <= covered_s + 1e-6
        covered_s = max(covered_s, one.end_s)
    assert covered_s == pytest.approx(duration_s)
    for one, place in itertools.product(windows, places):
        assert one.to_s <= seen.times_s[place] + 1e-6 or one.from_s >= seen.times_s[place] - 1e-6


def test_a_moment_has_the_geometric_mean_of_the_windows_that_cover_it() -> None:
    windows = [Window(0, 8, 0, 8), Window(4, 12, 4, 12), Window(8, 16, 8, 16)]
    found = curve_of(windows, [0.04, 0.9, 0.9])
    assert found.times_s == (0, 4, 8, 12)
    assert found.scores == pytest.approx((0.04, (0.04 * 0.9) ** 0.5, 0.9, 0.9))


def test_spans_cover_a_video_once_and_join_short_shots() -> None:
    seen = track([0.0] * 160, [4, 40])
    assert spans(seen, [4, 40], 40.0, shortest_s=3, longest_s=16) == [(0, 10), (10, 25), (25, 40)]


def test_a_window_of_no_length_is_refused() -> None:
    with pytest.raises(InputError, match="window_s=0.1 is too short"):
        cut_windows(track([0.0] * 8, []), [], 2.0, window_s=0.1)
