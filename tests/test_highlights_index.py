"""What was seen of a video is kept: each frame once, the same after an interruption, found again by its content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import smolvlm
from smolvlm.errors import InputError, VideoError
from smolvlm.highlights import build_index
from smolvlm.media.container import FileVideo
from smolvlm.media.video import open_video
from smolvlm.vlm import VLM
from tests.eventful import FPS, Eventful, write_eventful
from tests.films import film as drawn
from tests.limits import files_of_at_most
from tests.videos import write_sound, write_video


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load(runtime="torch")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Eventful:
    return write_eventful(tmp_path_factory.mktemp("film") / "film.mp4", [None, "move", None])


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_features_are_those_of_the_frames_at_each_second(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    index = build_index(vlm, film.path, cache=tmp_path)
    assert list(index.encoded["time_s"]) == list(range(int(film.seconds)))
    assert list(index.encoded["number"]) == [FPS * second for second in range(int(film.seconds))]
    images = [frame.image for frame in open_video(film.path).frames([20, 30])]
    expected: Any = vlm.encode(videos=[images])
    found = index.features(vlm, index.choose(2.0, 4.0))
    np.testing.assert_allclose(found.values, expected.values, rtol=2e-3, atol=2e-3)  # stored in float16
    assert found.frames[0].timestamps_s == (0.0, 1.0) and found.frames[0].duration_s == 2.0
    with_frames = vlm.decide("Does anything move?", videos=[images]).probabilities["yes"]
    with_index = vlm.decide("Does anything move?", features=found).probabilities["yes"]
    assert with_index == pytest.approx(with_frames, abs=0.01)


def test_features_in_bfloat16_come_back_bit_for_bit(film: Eventful, tmp_path: Path) -> None:
    vlm = smolvlm.load(runtime="torch", dtype="bfloat16")
    index = build_index(vlm, film.path, cache=tmp_path)
    images = [frame.image for frame in open_video(film.path).frames(list(map(int, index.encoded["number"][:3])))]
    expected: Any = vlm.encode(videos=[images]).values
    found: Any = index.features(vlm, np.arange(3)).values
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.float().numpy(), expected.float().numpy(), rtol=0.02, atol=0.02)  # other batches


def test_a_second_run_decodes_nothing(
    vlm: VLM, film: Eventful, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_index(vlm, film.path, cache=tmp_path)
    monkeypatch.setattr(FileVideo, "frames", lambda *_: pytest.fail("frames were decoded again"))
    again = build_index(vlm, str(film.path), cache=tmp_path)
    assert again.directory == first.directory
    np.testing.assert_array_equal(again.track.peak, first.track.peak)


def test_other_content_rate_or_weights_have_a_place_of_their_own(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    directories = {build_index(vlm, film.path, cache=tmp_path, fps=fps).directory for fps in (None, 0.5, 2.0)}
    copied = film.path.with_name("copied.mp4")
    copied.write_bytes(film.path.read_bytes())
    assert len(directories) == 3
    assert build_index(vlm, copied, cache=tmp_path).directory in directories


def test_an_interrupted_run_goes_on_where_it_was(
    vlm: VLM, film: Eventful, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_index(vlm, film.path, cache=tmp_path / "whole", fps=4)
    looked: list[int] = []

    def interrupted(done: int, _: int) -> None:
        looked.append(done)
        if len(looked) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(vlm, film.path, cache=tmp_path / "parts", fps=4, on_look=interrupted)
    decoded: list[int] = []
    frames = FileVideo.frames

    def noted(self: FileVideo, indices: Any) -> Iterator[Any]:
        decoded.extend(indices)
        return frames(self, indices)

    monkeypatch.setattr(FileVideo, "frames", noted)
    resumed = build_index(vlm, film.path, cache=tmp_path / "parts", fps=4)
    assert len(decoded) == len(whole.track.times_s) - looked[-1] + 1  # one more, to compare the next with
    for name in ("frames.bin", "complete"):
        assert files(resumed.directory)[name] == files(whole.directory)[name]
    one, other = (np.frombuffer(files(index.directory)["features.bin"], np.float16) for index in (resumed, whole))
    np.testing.assert_allclose(one, other, rtol=0.01, atol=0.01)  # other batches round otherwise


def test_what_a_kill_left_half_written_is_written_again(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    whole = build_index(vlm, film.path, cache=tmp_path)
    expected = files(whole.directory)
    (whole.directory / "complete").unlink()
    table = whole.directory / "frames.bin"
    table.write_bytes(table.read_bytes()[:-7])  # in the middle of a row
    again = build_index(vlm, film.path, cache=tmp_path)
    assert files(again.directory)["frames.bin"] == expected["frames.bin"]


def test_what_was_lost_behind_a_mark_of_completeness_is_looked_at_again(
    vlm: VLM, film: Eventful, tmp_path: Path
) -> None:
    whole = build_index(vlm, film.path, cache=tmp_path)
    expected = files(whole.directory)
    features = whole.directory / "features.bin"
    for name, content in (("features.bin", features.read_bytes()[:-3000]), ("meta.json", b"{"), ("frames.bin", b"")):
        (whole.directory / name).write_bytes(content)
        again = build_index(vlm, film.path, cache=tmp_path)
        found = files(again.directory)
        assert found["frames.bin"] == expected["frames.bin"] and found["meta.json"] == expected["meta.json"]
        assert len(found["features.bin"]) == len(expected["features.bin"])


def test_cuts_are_found_and_known_to_the_frame(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    index = build_index(vlm, film.path, cache=tmp_path)
    assert index.cuts_s == pytest.approx(film.cuts_s, abs=0.25)
    assert [index.exact_cut_s(place) for place in index.cuts] == pytest.approx(film.cuts_s, abs=1e-6)


def test_max_frames_lowers_the_rate(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    index = build_index(vlm, film.path, cache=tmp_path, max_frames=5)
    assert len(index.encoded) == 5
    assert index.encoded["time_s"][-1] > 0.7 * film.seconds


def test_frames_with_their_seconds_stand_for_a_file(vlm: VLM, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "red", "blue", "green")]
    index = build_index(vlm, frames, timestamps_s=[0.0, 0.4, 5.0, 90.0], cache=tmp_path)
    assert list(index.encoded["time_s"]) == [0.0, 0.4, 5.0, 90.0]
    assert index.seen().timestamps_s == (0.0, 0.4, 5.0, 90.0)
    assert index.duration_s > 90


def test_a_short_window_is_shown_in_slow_motion(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    index = build_index(vlm, film.path, cache=tmp_path)
    slow = index.features(vlm, index.choose(1.0, 3.0), fewest=4)
    assert slow.frames[0].indices == (10, 10, 20, 20)
    assert slow.frames[0].timestamps_s == (0, 1, 2, 3)


def test_features_of_other_weights_are_refused(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    index = build_index(vlm, film.path, cache=tmp_path)
    with pytest.raises(InputError, match="made with other weights"):
        vlm.decide("Does anything move?", features=replace(index.features(vlm, np.arange(2)), fingerprint="other"))


def test_a_video_that_cannot_be_used_is_refused_and_leaves_no_index(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="has no picture track"):
        build_index(vlm, write_sound(tmp_path / "sound.mp4"), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_place_that_cannot_be_written_to_is_named(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoError, match="can't be kept in .*--cache"):
        build_index(vlm, film.path, cache=tmp_path / "file")


def test_a_full_disk_says_so_and_what_was_seen_before_is_kept(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    with files_of_at_most(20_000), pytest.raises(VideoError, match="can't be kept in .*Free some space"):
        build_index(vlm, film.path, cache=tmp_path, fps=4)
    (directory,) = (tmp_path / "videos").iterdir()
    assert 0 < (directory / "features.bin").stat().st_size <= 20_000 and not (directory / "complete").exists()
    assert len(build_index(vlm, film.path, cache=tmp_path, fps=4).encoded) == 4 * film.seconds


@pytest.mark.parametrize("name", ["slides.mp4", "fast.mp4", "deep.mkv", "odd.mkv", "varying.mp4", "turned.mp4"])
def test_unusual_films_are_seen_second_by_second(name: str, vlm: VLM, tmp_path: Path) -> None:
    one = drawn(name)
    index = build_index(vlm, one.path, cache=tmp_path)
    assert list(index.encoded["time_s"]) == pytest.approx(range(round(one.seconds)), abs=0.2)
    assert index.duration_s == pytest.approx(one.seconds, abs=0.1)


def test_a_film_of_one_frame_is_seen(vlm: VLM, tmp_path: Path) -> None:
    index = build_index(vlm, write_video(tmp_path / "one.mp4", 1, 1), cache=tmp_path)
    assert list(index.encoded["time_s"]) == [0.0] and index.duration_s == 1.0


def test_a_broken_tail_leaves_what_could_be_seen(vlm: VLM, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 80, 10, codec="libx264", options={"g": "10"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with pytest.warns(UserWarning, match="cut off or damaged"):
        index = build_index(vlm, cut, cache=tmp_path)
    assert 2 <= len(index.encoded) < 8
