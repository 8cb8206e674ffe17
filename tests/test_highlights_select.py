"""From scores over time to segments: what is kept, how long, and where it begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.errors import InputError, VideoError
from smolvlm.highlights import Curve, Segment, Selection, select

PLAIN = Selection(padding_s=0, snap_s=0, join_s=0, longest_s=None)


def curve(*scores: float, step_s: float = 2.0) -> Curve:
    return Curve(tuple(step_s * place for place in range(len(scores))), scores)


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(one.start_s, one.end_s) for one in segments]


def test_what_reaches_the_threshold_is_kept_with_its_best_score() -> None:
    found = select(curve(0.1, 0.6, 0.9, 0.2, 0.5), 10, (), PLAIN)
    assert spans(found) == [(2, 6), (8, 10)]
    assert [one.score for one in found] == [0.9, 0.5]


def test_nothing_is_kept_when_nothing_reaches_the_threshold() -> None:
    assert select(curve(0.1, 0.2), 4, (), PLAIN) == []


def test_a_pause_shorter_than_join_s_does_not_end_a_segment() -> None:
    two = curve(0.9, 0.1, 0.9, 0.1, 0.1, 0.9, step_s=1)
    assert spans(select(two, 6, (), Selection(padding_s=0, join_s=1.5))) == [(0, 3), (5, 6)]


def test_a_stretch_is_split_at_a_cut_when_both_sides_are_long() -> None:
    assert spans(select(curve(0.9, 0.9, 0.9, 0.9), 8, (4.0,), PLAIN)) == [(0, 4), (4, 8)]
    assert spans(select(curve(0.9, 0.9, 0.9, 0.9), 8, (2.0,), PLAIN)) == [(0, 8)]


def test_top_keeps_the_best_in_the_order_of_the_video() -> None:
    found = select(curve(0.7, 0, 0.9, 0, 0.8), 10, (), Selection(padding_s=0, top=2, join_s=0))
    assert spans(found) == [(4, 6), (8, 10)]


def test_target_length_takes_the_best_that_fit() -> None:
    scores = curve(0.7, 0, 0.9, 0.9, 0.9, 0, 0.8)
    fitting = Selection(padding_s=0, join_s=0, target_length_s=8.0)
    assert spans(select(scores, 14, (), fitting)) == [(4, 10), (12, 14)]


def test_a_best_segment_longer_than_the_target_is_cut_to_its_middle() -> None:
    found = select(curve(0.9, 0.9, 0.9), 6, (), Selection(padding_s=0, target_length_s=2.0))
    assert spans(found) == [(2, 4)]


def test_the_weaker_of_two_near_segments_is_dropped() -> None:
    near = curve(0.8, 0, 0.9, 0, 0, 0, 0.7)
    assert spans(select(near, 14, (), Selection(padding_s=0, join_s=0, min_gap_s=3))) == [(4, 6), (12, 14)]


def test_a_long_stretch_is_shortened_to_its_best_part_and_the_rest() -> None:
    found = select(curve(0.6, 0.6, 0.9, 0.9, 0.6), 10, (), Selection(padding_s=0, longest_s=4, top=1))
    assert spans(found) == [(4, 8)]


def test_padding_ends_at_cuts_and_at_the_ends_of_the_video() -> None:
    padded = Selection(padding_s=1.5, snap_s=0)
    assert spans(select(curve(0.9, 0, 0.9, 0), 8, (3.0,), padded)) == [(0, 3), (3, 7.5)]


def test_a_border_near_a_cut_moves_to_it() -> None:
    snapped = Selection(padding_s=0, snap_s=0.5)
    assert spans(select(curve(0, 0.9, 0), 6, (1.7, 4.4), snapped)) == [(1.7, 4.4)]


def test_smoothing_spreads_a_moment_but_not_across_a_cut() -> None:
    scores = curve(0, 1, 0, step_s=1)
    smooth = Selection(threshold=0.2, padding_s=0, snap_s=0, smooth_s=1.0, longest_s=None)
    assert spans(select(scores, 3, (), smooth)) == [] or spans(select(scores, 3, (), smooth)) == [(1, 2)]
    wide = Selection(threshold=0.1, padding_s=0, snap_s=0, smooth_s=2.0, longest_s=None)
    assert spans(select(scores, 3, (), wide)) == [(0, 3)]
    assert spans(select(scores, 3, (1.0, 2.0), wide)) == [(1, 2)]


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 59), max_size=6, unique=True),
    threshold=st.floats(0, 1),
    top=st.none() | st.integers(1, 5),
    target_s=st.none() | st.floats(1, 20),
    smooth_s=st.sampled_from([0.0, 0.5, 3.0]),
    longest_s=st.none() | st.floats(1, 9),
    step_s=st.sampled_from([0.5, 2.0, 10.0]),
)
def test_segments_never_overlap_leave_the_video_or_exceed_what_is_asked(
    scores: list[float], cuts: list[int], threshold: float, top: int | None, target_s: float | None,
    smooth_s: float, longest_s: float | None, step_s: float,
) -> None:  # fmt: skip
    how = Selection(threshold, top, target_s, smooth_s=smooth_s, longest_s=longest_s)
    duration_s = step_s * len(scores)
    found = select(curve(*scores, step_s=step_s), duration_s, [cut for cut in sorted(cuts) if cut < duration_s], how)
    for one, other in zip(found, found[1:], strict=False):
        assert one.end_s <= other.start_s + 1e-6
    assert all(0 <= one.start_s < one.end_s <= duration_s + 1e-6 for one in found)
    assert top is None or len(found) <= top
    assert target_s is None or sum(one.duration_s for one in found) <= target_s + 1e-6


def test_nothing_is_kept_of_no_scores() -> None:
    assert select(Curve((), ()), 10.0) == []


def test_a_score_that_goes_across_a_cut_stays_whole() -> None:
    assert spans(select(curve(0.9, 0.9, step_s=20.0), 40, (10, 30), PLAIN)) == [(0, 20), (20, 40)]


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"top": 0}, {"target_length_s": 0}, {"padding_s": -1}])
def test_a_choice_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        Selection(**wrong)  # type: ignore[arg-type]


def test_a_segment_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(VideoError, match="can't go from 3 s to 2 s"):
        Segment(3, 2)


def test_hours_without_a_pause_are_cut_into_parts() -> None:
    scores = Curve(tuple(2.0 * place for place in range(7200)), (0.8,) * 7200)
    found = select(scores, 14400, (), Selection(padding_s=0, longest_s=5))
    assert len(found) == 2880 and all(one.duration_s == pytest.approx(5) for one in found)


def test_hours_of_changing_scores_are_cut_in_a_moment() -> None:
    rng = np.random.default_rng(0)
    scores = Curve(tuple(2.0 * place for place in range(7200)), tuple(rng.uniform(0.5, 1, 7200).tolist()))
    found = select(scores, 14400, (), Selection(padding_s=0, longest_s=30))
    assert sum(one.duration_s for one in found) == pytest.approx(14400)
    assert all(one.duration_s <= 30 + 1e-6 for one in found)
