"""Which frames a benchmark shows and how large they are: the harness's arithmetic, bounds, and transformers' pixels."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import smolvlm
from smolvlm.errors import VideoError
from smolvlm.evaluation import frames
from smolvlm.evaluation.subtitles import read_subtitles, subtitles_of
from smolvlm.evaluation.task import Protocol, Row
from smolvlm.types import VideoInfo
from tests.videos import numbered_frame, read_number, write_video

SIZES = [(1280, 720), (720, 1280), (640, 480), (64, 48), (512, 512), (384, 384), (900, 37), (37, 900), (513, 511)]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 7 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def info(count: int, fps: float) -> VideoInfo:
    return VideoInfo(count / fps, fps, count, 64, 48)


@given(st.integers(1, 5000), st.integers(1, 128))
def test_evenly_spread_frames_are_inside_and_ascend(count: int, most: int) -> None:
    numbers = frames.even(count, most)
    assert len(numbers) == most and numbers == sorted(numbers)
    assert numbers[0] >= 0 and numbers[-1] < count


@given(st.integers(1, 5000), st.floats(1, 120), st.floats(0.1, 10))
def test_frames_at_a_rate_are_inside_and_never_none(count: int, fps: float, rate: float) -> None:
    numbers = frames.at_rate(info(count, fps), rate)
    assert numbers[0] == 0 and numbers == sorted(numbers)
    assert numbers[-1] < count


@given(
    st.integers(2, 5000), st.floats(1, 60), st.none() | st.floats(0.5, 4), st.integers(1, 64), st.integers(0, 1),
    st.none() | st.tuples(st.floats(0, 100), st.floats(0, 100)),
)  # fmt: skip
def test_segments_stay_between_their_bounds(
    count: int, fps: float, rate: float | None, most: int, first: int, bound: tuple[float, float] | None
) -> None:
    numbers = frames.segments(info(count, fps), rate, most, bound, first)
    start, end = first, count - 1 + first
    if bound is not None:
        start, end = max(start, round(bound[0] * fps)), min(end, round(bound[1] * fps))
    assert all(start <= number <= end for number in numbers)
    assert bool(numbers) == (start <= end)


def test_the_demonstration_takes_every_so_many_th_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 180, Fraction(30000, 1001))
    protocol = Protocol(wrapper="smolvlm", frames=50)
    assert frames.choose(path, protocol, "steps").numbers == tuple(range(0, 180, 29))  # 29.97 is cut to 29
    shown = frames.show(path, Protocol(wrapper="smolvlm", frames=4, fps=None), "steps")
    assert shown.places == (0, 59, 119, 179)


def test_few_frames_are_shown_as_they_were_chosen(tmp_path: Path) -> None:
    """Of a video shorter than the number asked for, some come twice."""
    path = write_video(tmp_path / "film.mp4", 5, 10)
    shown = frames.show(path, Protocol(frames=8, fps=None))
    numbers = [read_number(picture) for picture in shown.pictures]
    assert numbers == [0, 1, 1, 2, 2, 3, 3, 4] == list(frames.choose(path, Protocol(frames=8, fps=None)).numbers)
    assert shown.places == tuple(range(8)) and shown.seconds[1] == shown.seconds[2] == 0.1


def test_a_folder_of_frames_counts_from_one_at_three_a_second(tmp_path: Path) -> None:
    for number in range(1, 14):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"{number:05}.jpg")
    shown = frames.show(tmp_path, Protocol(frames=4, fps=None), "segments", (1.0, 3.0))
    assert [read_number(picture) for picture in shown.pictures] == [3, 5, 6, 7]  # of frames 3 to 9
    assert shown.seconds == pytest.approx([2 / 3, 4 / 3, 5 / 3, 2.0])


def test_a_video_or_frame_that_was_replaced_is_looked_at_again(tmp_path: Path) -> None:
    path, folder = tmp_path / "film.mp4", tmp_path / "frames"
    folder.mkdir()
    protocol = Protocol(frames=2, fps=None)
    for first in (0, 100):  # the same number of frames
        pictures = [numbered_frame(first + number) for number in range(12)]
        write_video(path, rate=10, pictures=pictures)
        for number, picture in enumerate(pictures, 1):
            Image.fromarray(picture).save(folder / f"{number:05}.png")
        for video in (path, folder):
            shown = frames.show(video, protocol)
            assert [read_number(picture) for picture in shown.pictures] == [first + 4, first + 8]


def test_a_video_that_ends_before_its_question_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 10, 10)
    with pytest.raises(VideoError, match="1.0 s long; its question is on"):
        frames.show(path, Protocol(), "segments", (5.0, 9.0))


def test_what_can_be_decoded_of_a_damaged_video_is_shown(tmp_path: Path) -> None:
    pictures = [np.asarray(noise(64, 48 + number))[:48] for number in range(60)]  # noise, so that frames take bytes
    path = write_video(tmp_path / "film.avi", rate=30, pictures=pictures, codec="mjpeg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.warns(UserWarning, match="cut off or damaged"):
        shown = frames.show(path, Protocol(frames=64, fps=30.0))
    assert 30 <= len(shown.pictures) == len(shown.places) == len(shown.seconds) < 60
    assert shown.seconds == tuple(place / 30 for place in shown.places)


@pytest.mark.reference
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("side", [384, 512])
def test_a_frame_has_the_pixels_and_tokens_that_transformers_makes(size: tuple[int, int], side: int) -> None:
    """Size longest_edge and no splitting, as the harness sets its processor for videos."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    vlm = smolvlm.load()
    directory = Path(smolvlm.__file__).parent / "assets" / "nano"
    settings = vlm.processor.image_processor.to_dict()
    settings = {name: settings[name] for name in ("max_image_size", "image_mean", "image_std", "resample")}
    theirs = transformers.Idefics3Processor(
        SmolVLMImageProcessorPil(**settings),
        transformers.AutoTokenizer.from_pretrained(directory),
        image_seq_len=vlm.processor.image_seq_len,
    )
    theirs.image_processor.size = {"longest_edge": side}
    theirs.image_processor.do_image_splitting = False
    saved = frames.as_saved(noise(*size))
    prompt = "<|im_start|>User: Frame from 00:00: <image> \n Hi <end_of_utterance> \nAssistant:"
    expected = theirs(text=prompt, images=[Image.open(io.BytesIO(saved))], return_tensors="np")
    ready = frames.make_ready(noise(*size), Protocol(frame_side=side), "even")
    message = [{"role": "user", "content": [{"type": "image", "image": ready}]}]
    found = vlm.processor.prepare(message, prompt=prompt, detail="low")
    np.testing.assert_array_equal(found.pixel_values, expected["pixel_values"][0])
    assert found.input_ids.tolist() == expected["input_ids"][0].tolist()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_demonstration_crops_to_a_square(size: tuple[int, int]) -> None:
    assert frames.centre_square(noise(*size), 48).size == (48, 48)


def test_subtitles_are_those_of_the_chosen_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 100, 10)
    subtitles = tmp_path / "film.srt"
    subtitles.write_text("1\n00:00:01,000 --> 00:00:03,500\nOne\n\n2\n00:00:05,500 --> 00:00:06,500\nTwo\n")
    row = Row("0", "?", ("A",), video=path, fields={"subtitles": subtitles})
    assert subtitles_of(row, Protocol()) == "One\nOne\nTwo"  # frames at 2, 3 and 6 s; a line at its bounds is none
    assert subtitles_of(row, Protocol(frames=2)) == "One\nOne\nTwo"  # also of those that are thinned out
    missing = Row("0", "?", ("A",), video=path, fields={"subtitles": tmp_path / "missing.srt"})
    assert subtitles_of(missing, Protocol()) == ""


def test_subtitles_are_read_as_pysubs2_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "film.srt"
    path.write_bytes(
        b"1\r\n0:0:1.5 --> 00:01:09,99\r\n<i>Two</i> < b >lines</b>,\r\n<font color='red'>\xc3\xa4</font>\r\n\r\n2\r\n"
        b"00:00:02,000 --> 00:00:03,000\r\n\r\n3\r\n00:00:04,000 --> 00:00:05,000\r\n1 < 2\\Nstays\r\n"
    )
    assert read_subtitles(path) == [
        (1500, 69990, r"{\i1}Two{\i0} {\b1}lines{\b0}, ä"),
        (2000, 3000, ""),
        (4000, 5000, "1 < 2 stays"),
    ]
