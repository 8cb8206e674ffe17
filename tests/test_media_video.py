"""The door for videos: every frame under its own number, at its own time, upright; bad files say why not.

The videos are made here; each frame shows its number, so a frame that is one off is seen.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from smolvlm.errors import InputError
from smolvlm.media import container
from smolvlm.media.video import open_video, probe, read_frames
from tests.videos import FILMS, FRAMES, film, numbered_frame, numbers_shown, read_number, write_video


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_comes_under_its_own_number_and_time(name: str) -> None:
    rate = FILMS[name]["rate"]
    video = open_video(film(name))
    assert video.info.num_frames == FRAMES
    assert video.info.fps == pytest.approx(float(rate), rel=1e-6)
    assert video.info.duration_s == pytest.approx(FRAMES / float(rate), abs=0.002)
    assert (video.info.width, video.info.height) == (64, 48)
    shown = list(video.frames(range(FRAMES)))
    assert [(frame.number, read_number(frame.image)) for frame in shown] == [(n, n) for n in range(FRAMES)]
    assert [frame.timestamp_s for frame in shown] == pytest.approx([n / float(rate) for n in range(FRAMES)], abs=1e-9)
    assert {(frame.image.mode, frame.image.size) for frame in shown} == {("RGB", (64, 48))}


@pytest.mark.parametrize("name", ["reordered.mp4", "reordered.mkv", "open.mp4", "fragmented.mp4", "film.webm"])
def test_jumping_finds_the_same_frames_as_decoding_straight_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = {frame.number: np.asarray(frame.image) for frame in open_video(film(name)).frames(range(FRAMES))}
    monkeypatch.setattr(container, "_WORTH_SEEKING", 0)
    jumped: list[int] = []
    read = container.FileVideo._read_jumping
    monkeypatch.setattr(
        container.FileVideo,
        "_read_jumping",
        lambda self, wanted, packets: (
            jumped.append(found := (index, image)) or found for index, image in read(self, wanted, packets)
        ),
    )
    video = open_video(film(name))
    for wanted in ([0], [39], [0, 11, 12, 13, 39], [23, 24, 25], [7, 30], list(range(FRAMES))):
        for frame in video.frames(wanted):
            np.testing.assert_array_equal(np.asarray(frame.image), straight[frame.number])
    assert len(jumped) == 1 + 1 + 5 + 3 + 2 + FRAMES  # none of them was missed and fetched the slow way


def test_indices_are_taken_in_order_and_once() -> None:
    assert numbers_shown(open_video(film("plain.mp4")), [9, 3, 3, 0]) == [(0, 0), (3, 3), (9, 9)]
    assert numbers_shown(open_video(film("plain.mp4")), np.array([5, 6])) == [(5, 5), (6, 6)]
    assert numbers_shown(open_video(film("plain.mp4")), []) == []


@pytest.mark.parametrize("wrong", [-1, 40, 1000])
def test_a_frame_that_does_not_exist_is_named(wrong: int) -> None:
    with pytest.raises(InputError, match=f"frames 0 to 39; there is no frame {wrong}"):
        list(open_video(film("plain.mp4")).frames([0, wrong]))


@pytest.mark.parametrize("name", ["phone.mp4", "phone.mkv"])
def test_a_frame_rate_that_varies_keeps_the_times_of_the_file(name: str, tmp_path: Path) -> None:
    times_ms = [0, 100, 200, 1000, 1100, 4000, 5000, 5033]
    path = write_video(tmp_path / name, len(times_ms), 30, codec="libx264", pts=times_ms)
    video = open_video(path)
    shown = list(video.frames(range(len(times_ms))))
    assert [read_number(frame.image) for frame in shown] == list(range(len(times_ms)))
    assert [frame.timestamp_s for frame in shown] == pytest.approx([time / 1000 for time in times_ms], abs=0.001)
    assert [video.timestamp_s(n) for n in range(len(times_ms))] == [frame.timestamp_s for frame in shown]
    assert 5.0 < video.info.duration_s < 6.0
    assert video.info.fps == pytest.approx(len(times_ms) / video.info.duration_s)


@pytest.mark.parametrize("degrees,turns", [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(degrees: int, turns: int, tmp_path: Path) -> None:
    picture = numbered_frame(1)  # the white bar is at the left
    path = write_video(tmp_path / "turned.mp4", pictures=[picture] * 3, rotation=degrees)
    video = open_video(path)
    expected = np.rot90(picture, turns)
    assert (video.info.height, video.info.width) == expected.shape[:2]
    shown = np.asarray(next(video.frames([1])).image)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 12  # lossy coding; a wrong turn is above 40


def test_a_phone_held_upright_is_shown_upright(tmp_path: Path) -> None:
    """The matrix phones write for portrait: right becomes down, a quarter turn clockwise (QuickTime file format)."""
    path = write_video(tmp_path / "phone.mp4", pictures=[numbered_frame(1)] * 2)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer and volume
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    shown = np.asarray(next(open_video(bytes(content)).frames([0])).image)
    assert shown.shape == (64, 48, 3)
    assert shown[4].mean() > 200  # the bar from the left is at the top
    assert shown[20:].mean() < 60


@pytest.mark.parametrize("name", ["plain.mp4", "reordered.mkv"])
def test_bytes_paths_and_texts_are_the_same_video(name: str) -> None:
    path = film(name)
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), memoryview(path.read_bytes())):
        assert numbers_shown(open_video(source), [0, 17]) == [(0, 0), (17, 17)]
    assert probe(path) == open_video(path).info
    assert [(frame.number, read_number(frame.image)) for frame in read_frames(path, [3])] == [(3, 3)]


def test_a_name_with_odd_characters_is_a_file_all_the_same(tmp_path: Path) -> None:
    odd = tmp_path / "100% http:x?y#z,é.mp4"
    odd.write_bytes(film("plain.mp4").read_bytes())
    assert numbers_shown(open_video(odd), [2]) == [(2, 2)]


def test_reading_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        path = write_video(tmp_path / f"{frames}.mp4", frames, 30, codec="libx264", options={"preset": "ultrafast"})
        video = open_video(path)
        tracemalloc.start()
        for frame in video.frames(range(frames)):
            frame.image.close()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(20)
    assert peak(800) < peak(40) + 400_000  # 800 frames of 64 x 48 would be 7 MB


def test_frames_come_as_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[object] = []
    to_image = container.FileVideo._to_image
    monkeypatch.setattr(
        container.FileVideo, "_to_image", lambda self, frame: (turned.append(frame), to_image(self, frame))[1]
    )
    frames = open_video(film("plain.mp4")).frames(range(FRAMES))
    next(frames)
    assert len(turned) == 1
