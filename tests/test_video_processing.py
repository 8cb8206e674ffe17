"""Which frames of a video are shown, at which size, with which times; parity itself is in reference/test_video.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smolvlm.errors import FetchError, InputError, VideoError
from smolvlm.media.video import open_video
from smolvlm.processing.clips import VideoMetadata, nest_videos
from smolvlm.processing.frames import sample_indices, uniform_indices
from smolvlm.processing.image import normalise
from smolvlm.processing.video import SmolVLMVideoProcessor, frames_to_tiles
from smolvlm.types import VideoInfo
from tests.videos import numbered_frame, read_number, write_video

SMALL: dict[str, Any] = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 32}}
SAMPLING = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}, "max_image_size": 32}


def info(frames: int, fps: float = 30.0) -> VideoInfo:
    return VideoInfo(frames / fps, fps, frames, 64, 48)


def array(frames: int, first: int = 0) -> np.ndarray:
    return np.stack([numbered_frame(number) for number in range(first, first + frames)])


def shown(pixels: np.ndarray) -> list[int]:
    """The numbers that normalised frames (frames, 3, height, width) show."""
    return [read_number(((frame.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)) for frame in pixels]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", frames=50, rate=10)


# Which frames. Expected values: the reference's rule worked out by hand; tables are in reference/test_video.py.


def test_a_short_video_is_shown_at_one_frame_a_second() -> None:
    assert sample_indices(info(90), fps=1, max_frames=64) == [0, 44, 89]
    assert sample_indices(info(60), fps=2, max_frames=64) == [0, 19, 39, 59]


def test_half_seconds_round_to_even_as_python_rounds() -> None:
    assert len(sample_indices(info(75), fps=1, max_frames=64)) == 2  # 2.5 s
    assert len(sample_indices(info(105), fps=1, max_frames=64)) == 4  # 3.5 s


def test_a_long_video_leaves_out_its_first_and_last_second() -> None:
    chosen = sample_indices(info(30 * 67), fps=1, max_frames=64)  # 67 s - 2 s is more than 64 s
    assert (len(chosen), chosen[0], chosen[-1]) == (64, 30, 30 * 66)
    chosen = sample_indices(info(30 * 66), fps=1, max_frames=64)  # 66 s - 2 s isn't
    assert (len(chosen), chosen[0], chosen[-1]) == (64, 0, 30 * 66 - 1)
    assert sample_indices(info(30 * 67), fps=1, max_frames=64, skip_secs=0)[0] == 0


def test_a_video_shorter_than_what_is_left_out_is_shown_whole() -> None:
    assert sample_indices(info(40, 10), fps=1, max_frames=1, skip_secs=1.4)[0] == 14
    assert sample_indices(info(40, 10), fps=0.01, max_frames=1, skip_secs=1.99)[0] == 19
    assert sample_indices(VideoInfo(100, 10, 5, 1, 1), fps=1, max_frames=3) == [0, 2, 4]


def test_fifty_uniform_frames_hold_the_first_and_the_last() -> None:
    chosen = uniform_indices(1000, 50)
    assert (len(chosen), chosen[0], chosen[-1]) == (50, 0, 999)
    assert uniform_indices(7, 50) == list(range(7))
    assert uniform_indices(1, 50) == [0]


@given(
    frames=st.integers(1, 5000),
    rate=st.floats(0.5, 240),
    fps=st.floats(0.01, 60),
    most=st.integers(1, 100),
    skip=st.floats(0, 100),
)
def test_chosen_frames_exist_ascend_and_are_not_too_many(
    frames: int, rate: float, fps: float, most: int, skip: float
) -> None:
    for chosen in (
        sample_indices(info(frames, rate), fps=fps, max_frames=most, skip_secs=skip),
        uniform_indices(frames, most),
    ):
        assert 1 <= len(chosen) <= most
        assert chosen == sorted(set(chosen))
        assert chosen[0] >= 0 and chosen[-1] < frames


@pytest.mark.parametrize(
    "arguments", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"max_frames": 0}, {"skip_secs": -1}], ids=str
)
def test_a_rate_or_number_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        sample_indices(info(10), **{"fps": 1, "max_frames": 4, **arguments})


def test_a_checkpoint_with_video_sampling_follows_it_and_one_without_shows_fifty(film: Path) -> None:
    video = open_video(film)
    assert SmolVLMVideoProcessor(**SAMPLING).choose(video) == sample_indices(video.info, fps=1, max_frames=64)
    assert SmolVLMVideoProcessor(**SMALL).choose(video) == uniform_indices(50, 50)
    assert SmolVLMVideoProcessor(**SMALL).choose(video, max_frames=3) == [0, 24, 49]
    assert SmolVLMVideoProcessor(**SAMPLING).choose(video, fps=2) == sample_indices(video.info, fps=2, max_frames=64)
    assert SmolVLMVideoProcessor(**SAMPLING).choose(video, max_frames=4) == [0, 16, 32, 49]
    assert len(SmolVLMVideoProcessor(**SMALL).choose(video, fps=1)) == 5


def test_frames_picked_by_the_caller_are_all_shown_unless_asked_for_fewer() -> None:
    picked = open_video(list(array(9)))
    processor = SmolVLMVideoProcessor(**SAMPLING)
    assert processor.choose(picked) == list(range(9))
    assert processor.choose(picked, max_frames=3) == [0, 4, 8]
    assert processor.choose(picked, fps=0.5) == sample_indices(picked.info, fps=0.5, max_frames=64)


# Pixels.


def test_a_frame_is_resized_once_and_never_blown_up_first() -> None:
    frame = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    tiles = frames_to_tiles([frame], SmolVLMVideoProcessor(**SMALL))
    np.testing.assert_array_equal(tiles[0], np.asarray(frame.resize((32, 32), Image.Resampling.LANCZOS)))
    quirky = frames_to_tiles([frame], SmolVLMVideoProcessor(**SMALL, reference_quirks=True))
    blown_up = frame.resize((256, 192), Image.Resampling.LANCZOS).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(quirky[0], np.asarray(blown_up))


def test_a_frame_of_the_right_size_stays_as_it_is() -> None:
    frame = Image.fromarray(numbered_frame(5, 32, 32))
    np.testing.assert_array_equal(frames_to_tiles([frame], SmolVLMVideoProcessor(**SMALL))[0], np.asarray(frame))


def test_values_are_those_of_the_tiles() -> None:
    processor = SmolVLMVideoProcessor(**SMALL)
    frames = [Image.fromarray(frame) for frame in array(3)]
    expected = normalise(frames_to_tiles(frames, processor))
    np.testing.assert_array_equal(processor(frames, return_tensors="np")["pixel_values"][0], expected)


@pytest.mark.parametrize("kind", ["pil", "arrays", "4-D", "4-D first", "tensor", "fractions", "paths"])
def test_every_kind_of_frames_gives_the_same_values(kind: str, tmp_path: Path) -> None:
    frames = array(4)
    expected = SmolVLMVideoProcessor(**SMALL)([Image.fromarray(frame) for frame in frames], return_tensors="np")
    source: Any = frames
    if kind == "pil":
        source = tuple(Image.fromarray(frame) for frame in frames)
    elif kind == "arrays":
        source = list(frames)
    elif kind == "4-D first":
        source = frames.transpose(0, 3, 1, 2)
    elif kind == "tensor":
        source = pytest.importorskip("torch").from_numpy(frames)
    elif kind == "fractions":
        source = frames.astype(np.float32) / 255
    elif kind == "paths":
        paths = [tmp_path / f"{number}.png" for number in range(4)]
        for path, frame in zip(paths, frames, strict=True):
            Image.fromarray(frame).save(path)
        source = [[[str(path) for path in paths]]]
    found = SmolVLMVideoProcessor(**SMALL)(source, return_tensors="np")
    np.testing.assert_array_equal(found["pixel_values"], expected["pixel_values"])
    np.testing.assert_array_equal(found["pixel_attention_mask"], expected["pixel_attention_mask"])


def test_fractions_with_rescaling_off_are_scaled_once() -> None:
    frames = array(2)
    expected = SmolVLMVideoProcessor(**SMALL)(frames, return_tensors="np")["pixel_values"]
    found = SmolVLMVideoProcessor(**SMALL)(frames.astype(np.float32) / 255, do_rescale=False, return_tensors="np")
    np.testing.assert_array_equal(found["pixel_values"], expected)


def test_shorter_videos_are_filled_with_zero_frames_that_the_mask_leaves_out() -> None:
    batch = SmolVLMVideoProcessor(**SMALL)([array(3), array(1)], return_tensors="np")
    assert batch["pixel_values"].shape == (2, 3, 3, 32, 32)
    assert not batch["pixel_values"][1, 1:].any()
    assert batch["pixel_attention_mask"].all(axis=(2, 3)).tolist() == [[True, True, True], [True, False, False]]
    quirky = SmolVLMVideoProcessor(**SMALL, reference_quirks=True)([array(3), array(1)], return_tensors="np")
    assert quirky["pixel_attention_mask"].all()


def test_without_resizing_smaller_frames_get_a_rim() -> None:
    small = np.stack([numbered_frame(1, 32, 16)])
    batch = SmolVLMVideoProcessor(**SMALL)([array(2), small], do_resize=False, return_tensors="np")
    assert batch["pixel_values"].shape == (2, 2, 3, 48, 64)
    assert not batch["pixel_values"][1, 0, :, 16:].any()
    assert batch["pixel_attention_mask"][1, 0].sum() == 32 * 16


def test_videos_of_different_lengths_are_no_tensor_without_padding() -> None:
    with pytest.raises(InputError, match=r"\[3, 1\] frames.*do_pad=True"):
        SmolVLMVideoProcessor(**SMALL)([array(3), array(1)], do_pad=False)


def test_results_come_as_asked() -> None:
    torch = pytest.importorskip("torch")
    processor = SmolVLMVideoProcessor(**SMALL)
    assert isinstance(processor(array(2))["pixel_values"], list)
    assert processor(array(2), return_tensors="pt")["pixel_values"].dtype == torch.float32
    assert processor(array(2), return_tensors="np", data_format="channels_last")["pixel_values"].shape == (
        1,
        2,
        32,
        32,
        3,
    )


# Files and metadata.


def test_a_file_is_sampled_and_tells_what_was_seen(film: Path) -> None:
    batch = SmolVLMVideoProcessor(**SAMPLING)(str(film), return_tensors="np", return_metadata=True)
    (metadata,) = batch["video_metadata"]
    assert isinstance(metadata, VideoMetadata)
    expected = sample_indices(info(50, 10), fps=1, max_frames=64)
    assert list(metadata.frames_indices) == expected == shown(batch["pixel_values"][0])
    assert metadata.timestamps == pytest.approx([index / 10 for index in expected])
    assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (50, 10.0, 5.0)
    seen = metadata.seen()
    assert (seen.source, seen.indices, seen.duration_s) == (repr(str(film)), metadata.frames_indices, 5.0)


def test_calls_override_how_a_file_is_sampled(film: Path) -> None:
    processor = SmolVLMVideoProcessor(**SAMPLING)
    assert shown(processor(film, num_frames=3, return_tensors="np")["pixel_values"][0]) == [0, 24, 49]
    assert len(processor(film, fps=2, return_tensors="np")["pixel_values"][0]) == 10
    assert len(processor(film, do_sample_frames=False, return_tensors="np")["pixel_values"][0]) == 50
    assert processor.fps == 1


def test_a_batch_of_files_and_frames_goes_together(film: Path) -> None:
    batch = SmolVLMVideoProcessor(**SAMPLING)([str(film), array(2)], return_tensors="np", return_metadata=True)
    assert batch["pixel_values"].shape[:2] == (2, 5)
    assert [len(metadata.frames_indices) for metadata in batch["video_metadata"]] == [5, 2]


def test_metadata_of_the_caller_gives_frames_their_times() -> None:
    known = {"fps": 4.0, "total_num_frames": 100, "duration": 25.0, "frames_indices": [0, 8, 96]}
    batch = SmolVLMVideoProcessor(**SMALL)(array(3), video_metadata=known, return_metadata=True)
    (metadata,) = batch["video_metadata"]
    assert metadata.timestamps == (0.0, 2.0, 24.0)
    assert (metadata.frames_indices, metadata.duration, metadata.total_num_frames) == ((0, 8, 96), 25.0, 100)
    sampled = SmolVLMVideoProcessor(**SAMPLING, do_sample_frames=True)(
        array(40), video_metadata=[{"fps": 10}], return_metadata=True, return_tensors="np"
    )
    assert shown(sampled["pixel_values"][0]) == sample_indices(info(40, 10), fps=1, max_frames=64)


def test_frames_without_times_are_one_a_second_and_24_as_a_quirk() -> None:
    processor = SmolVLMVideoProcessor(**SMALL)
    (metadata,) = processor(array(3), return_metadata=True)["video_metadata"]
    assert (metadata.fps, metadata.duration, metadata.timestamps) == (None, None, (0.0, 1.0, 2.0))
    (quirky,) = processor(array(3), return_metadata=True, reference_quirks=True)["video_metadata"]
    assert quirky.timestamps == (0.0, 1 / 24, 2 / 24)


def test_frames_without_times_cannot_be_sampled_at_a_rate() -> None:
    with pytest.raises(InputError, match="video_metadata"):
        SmolVLMVideoProcessor(**SAMPLING)(array(3), do_sample_frames=True)
    assert len(SmolVLMVideoProcessor(**SMALL)(array(9), num_frames=3)["pixel_values"][0]) == 3


def test_sample_frames_is_there_under_the_references_name() -> None:
    processor = SmolVLMVideoProcessor(**SAMPLING)
    metadata = {"total_num_frames": 90, "fps": 30.0, "duration": 3.0}
    assert processor.sample_frames(metadata) == [0, 44, 89]
    assert processor.sample_frames(metadata, num_frames=1) == [0]
    assert processor.sample_frames({"total_num_frames": 90, "fps": 30.0, "duration": None}) == [0, 44, 89]
    with pytest.raises(InputError, match=r"metadata\.fps"):
        processor.sample_frames({"total_num_frames": 90, "fps": None, "duration": None})


def test_every_nesting_of_videos_is_understood() -> None:
    frame = Image.fromarray(numbered_frame(0))
    assert nest_videos("a.mp4") == ["a.mp4"]
    assert nest_videos(["a.mp4", "b.mp4"]) == nest_videos([["a.mp4"], ["b.mp4"]]) == ["a.mp4", "b.mp4"]
    assert nest_videos([[["1.png", "2.png"]], [["3.png"]]]) == [["1.png", "2.png"], ["3.png"]]
    assert nest_videos([frame, frame]) == [[frame, frame]]
    assert nest_videos([[frame, frame], [frame]]) == [[frame, frame], [frame]]
    assert [len(video) for video in nest_videos(np.zeros((2, 3, 4, 5, 3), np.uint8))] == [3, 3]
    assert [len(video) for video in nest_videos([array(2), array(3)])] == [2, 3]
    assert nest_videos(frame) == [[frame]]


@pytest.mark.parametrize(
    "videos,call,error,part",
    [
        ([], {}, InputError, "empty"),
        (None, {}, VideoError, "NoneType"),
        ("nope.mp4", {}, VideoError, "no file"),
        ("http://example.org/a.mp4", {}, FetchError, "allow_url=True"),
        (array(2), {"do_center_crop": True}, InputError, "do_center_crop"),
        (array(2), {"frames": 3}, InputError, "no argument 'frames'"),
        (array(2), {"size": {"foo": 1}}, InputError, "longest_edge"),
        (array(2), {"video_metadata": [{}, {}]}, InputError, "1 videos but 2"),
        (array(2), {"video_metadata": {"rate": 3}}, InputError, "no entry 'rate'"),
        (array(2), {"return_tensors": "numpy"}, InputError, "numpy"),
    ],
    ids=lambda value: str(value)[:18].replace("\n", ""),
)
def test_what_is_no_video_says_why(videos: Any, call: dict[str, Any], error: type[Exception], part: str) -> None:
    with pytest.raises(error) as found:
        SmolVLMVideoProcessor(**SMALL)(videos, **call)
    assert part in str(found.value)


def test_a_broken_tail_is_answered_from_what_is_left(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", frames=60, rate=10, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 4])
    with pytest.warns(UserWarning, match="cut off"):
        batch = SmolVLMVideoProcessor(**SAMPLING)(path, return_tensors="np", return_metadata=True)
    (metadata,) = batch["video_metadata"]
    assert shown(batch["pixel_values"][0]) == list(metadata.frames_indices)
    assert metadata.duration is not None and metadata.duration < 6


# Files of checkpoints.


def test_video_sampling_of_a_checkpoint_is_read_and_its_size_wins(tmp_path: Path) -> None:
    settings = {**SAMPLING, "image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, "future": 1}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = SmolVLMVideoProcessor.from_pretrained(tmp_path)
    assert (processor.fps, processor.num_frames, processor.size) == (1, 64, {"longest_edge": 32})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "size": {"longest_edge": 2048}}))
    assert SmolVLMVideoProcessor.from_pretrained(tmp_path).size == {"longest_edge": 2048}
    processor.save_pretrained(tmp_path / "copy")
    assert SmolVLMVideoProcessor.from_pretrained(tmp_path / "copy").to_dict() == processor.to_dict()
    assert processor.to_dict()["future"] == 1
    assert processor.to_dict()["video_processor_type"] == "SmolVLMVideoProcessor"
    assert "image_processor_type" not in processor.to_dict()


def test_a_nested_video_processor_comes_first(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_image_size": {"longest_edge": 99}}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": {**SMALL, "fps": 3}}))
    processor = SmolVLMVideoProcessor.from_pretrained(tmp_path)
    assert (processor.fps, processor.max_image_size) == (3, {"longest_edge": 32})


def test_defaults_are_the_references() -> None:
    processor = SmolVLMVideoProcessor()
    assert (processor.size, processor.max_image_size) == ({"longest_edge": 1456}, {"longest_edge": 364})
    assert (processor.fps, processor.num_frames, processor.do_sample_frames) == (None, None, False)
