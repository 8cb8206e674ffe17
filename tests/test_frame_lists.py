"""Moving GIF and WebP pictures and lists of frames are videos too, with the times that are known of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import InputError, VideoError
from smolvlm.media.video import open_video
from tests.videos import numbered_frame, numbers_shown, read_number


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_a_moving_picture_is_a_video(form: str) -> None:
    frames = [Image.fromarray(numbered_frame(number)) for number in range(6)]
    buffer = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {}
    lengths = [100, 200, 100, 300, 100, 200]
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:], duration=lengths, **options)
    video = open_video(buffer.getvalue())
    assert (video.info.num_frames, video.info.duration_s, video.info.fps) == (6, 1.0, 6.0)
    shown = list(video.frames([1, 3, 5]))
    assert [read_number(frame.image) for frame in shown] == [1, 3, 5]
    assert [frame.timestamp_s for frame in shown] == pytest.approx([0.1, 0.4, 0.8])
    assert {frame.image.mode for frame in shown} == {"RGB"}


def test_frames_of_a_list_are_one_a_second_unless_told_otherwise() -> None:
    frames = [Image.fromarray(numbered_frame(number)) for number in range(4)]
    video = open_video(frames)
    assert video.sampled
    assert [frame.timestamp_s for frame in video.frames(range(4))] == [0, 1, 2, 3]
    assert video.info.duration_s == 4
    assert [frame.timestamp_s for frame in open_video(frames, fps=2).frames(range(4))] == [0, 0.5, 1, 1.5]
    timed = open_video(frames, timestamps_s=[0, 0.2, 5, 60])
    assert [frame.timestamp_s for frame in timed.frames([1, 3])] == [0.2, 60]
    assert timed.info.duration_s == 60


@pytest.mark.parametrize("first", [True, False], ids=["channels first", "channels last"])
@pytest.mark.parametrize("torch_tensor", [True, False], ids=["tensor", "array"])
def test_an_array_of_four_axes_is_a_video(first: bool, torch_tensor: bool) -> None:
    array: Any = np.stack([numbered_frame(number) for number in range(5)])
    if first:
        array = array.transpose(0, 3, 1, 2)
    if torch_tensor:
        array = pytest.importorskip("torch").from_numpy(np.ascontiguousarray(array))
    video = open_video(array)
    assert (video.info.width, video.info.height, video.info.num_frames) == (64, 48, 5)
    assert numbers_shown(video, range(5)) == [(n, n) for n in range(5)]


def test_frames_may_be_paths_and_are_opened_when_asked_for(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(numbered_frame(number)).save(paths[-1])
    video = open_video([*paths, str(tmp_path / "missing.png")])
    assert numbers_shown(video, [0, 2]) == [(0, 0), (2, 2)]
    with pytest.raises(VideoError, match=r"Frame 3 .*missing\.png"):
        numbers_shown(video, [3])


@pytest.mark.parametrize(
    "source,options,part",
    [
        ([], {}, "empty"),
        ([1, 2], {}, "Frame 0 of the list is a int"),
        (np.zeros((4, 4, 3), np.uint8), {}, "shape (4, 4, 3)"),
        (np.zeros((2, 2, 4, 5, 3), np.uint8), {}, "shape (2, 2, 4, 5, 3)"),
        ([np.zeros((4, 4, 3), np.uint8)], {"timestamps_s": [0, 1]}, "1 frames but 2"),
        ([np.zeros((4, 4, 3), np.uint8)] * 2, {"timestamps_s": [1, 0]}, "ascend"),
        ([np.zeros((4, 4, 3), np.uint8)], {"timestamps_s": [0], "fps": 1}, "not both"),
        ([np.zeros((4, 4, 3), np.uint8)], {"fps": 0}, "fps=0"),
        ("film.mp4", {"fps": 2}, "a video file says itself"),
    ],
    ids=lambda value: str(value)[:16].replace("\n", ""),
)
def test_a_list_that_is_no_video_says_why(source: Any, options: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as error:
        open_video(source, **options)
    assert part in str(error.value)
