"""The door for videos: every frame under its own number, at its own time, upright; bad files say why not.

The videos are made here; each frame shows its number, so a frame that is one off is seen.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import FetchError, ImageError, InputError, VideoError
from smolvlm.media import container
from smolvlm.media.video import VideoLimits, open_video, probe, read_frames
from tests.videos import numbered_frame, read_number, write_sound, write_video

B_FRAMES = {"g": "12", "bf": "2"}
KINDS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"rate": 10},
    "reordered.mp4": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "reordered.mkv": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "reordered.mov": {"rate": 30, "codec": "libx264", "options": B_FRAMES},
    "open.mp4": {"rate": 25, "codec": "libx264", "options": {**B_FRAMES, "x264-params": "open-gop=1"}},
    "fragmented.mp4": {
        "rate": 30,
        "codec": "libx264",
        "options": B_FRAMES,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "ntsc.mp4": {"rate": Fraction(30000, 1001), "codec": "libx264"},
    "film.webm": {"rate": 24, "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "9"}},
    "camera.avi": {"rate": 25},
    "broadcast.ts": {"rate": 25, "codec": "libx264", "options": B_FRAMES},
    "old.mpg": {"rate": 25, "codec": "mpeg2video"},
    "web.flv": {"rate": 25, "codec": "flv"},
}
FRAMES = 40


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("films")

    def film(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, FRAMES, **KINDS[name])

    return film


def numbers(video: Any, indices: Any) -> list[tuple[int, int]]:
    return [(frame.number, read_number(frame.image)) for frame in video.frames(indices)]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_under_its_own_number_and_time(name: str, films: Callable[[str], Path]) -> None:
    rate = KINDS[name]["rate"]
    video = open_video(films(name))
    assert video.info.num_frames == FRAMES
    assert video.info.fps == pytest.approx(float(rate), rel=1e-6)
    assert video.info.duration_s == pytest.approx(FRAMES / float(rate), abs=0.002)
    assert (video.info.width, video.info.height) == (64, 48)
    shown = list(video.frames(range(FRAMES)))
    assert [(frame.number, read_number(frame.image)) for frame in shown] == [(n, n) for n in range(FRAMES)]
    assert [frame.timestamp_s for frame in shown] == pytest.approx([n / float(rate) for n in range(FRAMES)], abs=1e-9)
    assert {(frame.image.mode, frame.image.size) for frame in shown} == {("RGB", (64, 48))}


@pytest.mark.parametrize("name", ["reordered.mp4", "reordered.mkv", "open.mp4", "fragmented.mp4", "film.webm"])
def test_jumping_finds_the_same_frames_as_decoding_straight_on(
    name: str, films: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = {frame.number: np.asarray(frame.image) for frame in open_video(films(name)).frames(range(FRAMES))}
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
    video = open_video(films(name))
    for wanted in ([0], [39], [0, 11, 12, 13, 39], [23, 24, 25], [7, 30], list(range(FRAMES))):
        for frame in video.frames(wanted):
            np.testing.assert_array_equal(np.asarray(frame.image), straight[frame.number])
    assert len(jumped) == 1 + 1 + 5 + 3 + 2 + FRAMES  # none of them was missed and fetched the slow way


def test_indices_are_taken_in_order_and_once(films: Callable[[str], Path]) -> None:
    assert numbers(open_video(films("plain.mp4")), [9, 3, 3, 0]) == [(0, 0), (3, 3), (9, 9)]
    assert numbers(open_video(films("plain.mp4")), np.array([5, 6])) == [(5, 5), (6, 6)]
    assert numbers(open_video(films("plain.mp4")), []) == []


@pytest.mark.parametrize("wrong", [-1, 40, 1000])
def test_a_frame_that_does_not_exist_is_named(wrong: int, films: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=f"frames 0 to 39; there is no frame {wrong}"):
        list(open_video(films("plain.mp4")).frames([0, wrong]))


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
def test_bytes_paths_and_texts_are_the_same_video(name: str, films: Callable[[str], Path]) -> None:
    path = films(name)
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), memoryview(path.read_bytes())):
        assert numbers(open_video(source), [0, 17]) == [(0, 0), (17, 17)]
    assert probe(path) == open_video(path).info
    assert [(frame.number, read_number(frame.image)) for frame in read_frames(path, [3])] == [(3, 3)]


def test_a_name_with_odd_characters_is_a_file_all_the_same(films: Callable[[str], Path], tmp_path: Path) -> None:
    odd = tmp_path / "100% http:x?y#z,é.mp4"
    odd.write_bytes(films("plain.mp4").read_bytes())
    assert numbers(open_video(odd), [2]) == [(2, 2)]


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


def test_frames_come_as_they_are_decoded(films: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[object] = []
    to_image = container.FileVideo._to_image
    monkeypatch.setattr(
        container.FileVideo, "_to_image", lambda self, frame: (turned.append(frame), to_image(self, frame))[1]
    )
    frames = open_video(films("plain.mp4")).frames(range(FRAMES))
    next(frames)
    assert len(turned) == 1


# Moving pictures and lists of frames.


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
    assert numbers(video, range(5)) == [(n, n) for n in range(5)]


def test_frames_may_be_paths_and_are_opened_when_asked_for(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(numbered_frame(number)).save(paths[-1])
    video = open_video([*paths, str(tmp_path / "missing.png")])
    assert numbers(video, [0, 2]) == [(0, 0), (2, 2)]
    with pytest.raises(VideoError, match=r"Frame 3 .*missing\.png"):
        numbers(video, [3])


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


# Bad files.


def test_sound_without_pictures_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no picture track, only audio"):
        open_video(write_sound(tmp_path / "song.mp4"))


def test_the_cover_of_a_song_is_no_picture_track(tmp_path: Path) -> None:
    import av
    from av.stream import Disposition

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        sound: Any = output.add_stream("aac", rate=16000, layout="mono")
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frame(3), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
        output.mux(cover.encode(None))
    with av.open(str(path)) as written:
        if not any(int(s.disposition) & int(Disposition.attached_pic) for s in written.streams.video):
            pytest.skip("this FFmpeg does not write the mark of a cover")
    with pytest.raises(VideoError, match="no picture track"):
        open_video(path)


def test_an_mp4_without_its_table_is_refused(films: Callable[[str], Path], tmp_path: Path) -> None:
    content = films("plain.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(VideoError, match=r"cut\.mp4.*cut off or damaged"):
        open_video(path)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
@pytest.mark.parametrize("name", ["front.mp4", "film.mkv", "fragmented.mp4", "camera.avi"])
def test_a_broken_tail_leaves_what_decodes_and_a_warning(name: str, share: float, tmp_path: Path) -> None:
    options = {"faststart": {"movflags": "faststart"}, "fragmented": {"movflags": "frag_keyframe+empty_moov"}}
    kind = "fragmented" if name.startswith("frag") else "faststart" if name.endswith(".mp4") else ""
    noise = np.random.default_rng(0).integers(0, 60, (120, 48, 64, 3), dtype=np.uint8)  # so that frames take bytes
    pictures = [np.where(numbered_frame(n) > 0, 255 - noise[n], noise[n]).astype(np.uint8) for n in range(120)]
    codec = {"codec": "mjpeg"} if name.endswith("avi") else {"codec": "libx264", "options": B_FRAMES}
    path = write_video(tmp_path / name, rate=30, pictures=pictures, container_options=options.get(kind), **codec)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    video = open_video(path)
    left = video.info.num_frames
    assert 120 * share - 25 < left < 120
    assert video.info.duration_s == pytest.approx(left / 30, abs=0.2)
    with pytest.warns(UserWarning, match=rf"{name}.* cut off or damaged"):
        shown = numbers(video, range(left))
    assert len(shown) >= left - 3
    whole = shown[: left - 6]  # in the last group, frames are missing between others
    assert whole == [(n, n) for n in range(len(whole))]


def test_a_damaged_middle_never_gives_a_frame_a_wrong_number(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (90, 48, 64, 3), dtype=np.uint8)
    pictures = [np.where(numbered_frame(n) > 0, 255 - noise[n], noise[n]).astype(np.uint8) for n in range(90)]
    path = write_video(
        tmp_path / "hurt.mkv", rate=30, pictures=pictures, codec="libx264", options={"g": "10", "bf": "0"}
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        video = open_video(path)
        shown = numbers(video, range(video.info.num_frames))
    times = {number: round(video.timestamp_s(number) * 30) for number, _ in shown}
    right = sum(read == times[number] for number, read in shown)
    assert right >= len(shown) - 12  # frames of the hurt groups may show wreckage, the others show what they are


@pytest.mark.parametrize(
    "content,part",
    [
        (b"", "empty"),
        (b"hello, I am a letter" * 9, "no video of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "picture, not a video"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "picture, not a video"),
        (b"#EXTM3U\nhttp://169.254.169.254/x.ts\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "playlist"),
        (b"<?xml version='1.0'?><MPD/>", "playlist"),
        (b"ID3" + bytes(40), "sound file"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound file"),
        (b"\0\0\0\x20ftypisom\0\0\0\0" + bytes(400), "can't be opened as a video"),
        (b"\x1a\x45\xdf\xa3" + bytes(400), "can't be opened as a video"),
        (b"GIF89a" + bytes(40), "damaged"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_bytes_that_are_no_video_say_why(content: bytes, part: str) -> None:
    with pytest.raises(VideoError) as error:
        open_video(content)
    assert part in str(error.value)


def test_a_picture_renamed_to_mp4_is_refused(tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(1)).save(tmp_path / "picture.png")
    path = (tmp_path / "picture.png").rename(tmp_path / "film.mp4")
    with pytest.raises(VideoError, match=r"film\.mp4.*is a picture"):
        open_video(path)


@pytest.mark.parametrize("source,part", [("nope.mp4", "no file"), (None, "NoneType"), (".", "directory")])
def test_a_source_that_is_nothing_says_so(source: Any, part: str) -> None:
    with pytest.raises(VideoError, match=part):
        open_video(source)


@pytest.mark.parametrize(
    "source", ["http://example.org/film.mp4", "file:///etc/passwd", "rtsp://camera/1", "concat:a|b"]
)
def test_addresses_are_refused(source: str) -> None:
    with pytest.raises((FetchError, VideoError)):
        open_video(source)


@pytest.mark.parametrize(
    "limits,part",
    [
        (VideoLimits(max_seconds=2), "limit is 2 s"),
        (VideoLimits(max_pixels=3000), "64 x 48 pixels, more than the limit of 3,000"),
        (VideoLimits(max_frames=30), "30 frames"),
        (VideoLimits(max_streams=0), "1 tracks"),
    ],
    ids=["seconds", "pixels", "frames", "tracks"],
)
@pytest.mark.parametrize("name", ["plain.mp4", "reordered.mkv"])
def test_a_limit_is_held(
    name: str, limits: VideoLimits, part: str, films: Callable[[str], Path], tmp_path: Path
) -> None:
    path = films(name) if "plain" in name else write_video(tmp_path / name, FRAMES, 10, codec="libx264")
    with pytest.raises(VideoError) as error:
        open_video(path, limits=limits)
    assert part in str(error.value)


def test_decoding_stops_at_its_time_limit(films: Callable[[str], Path]) -> None:
    video = open_video(films("plain.mp4"), limits=VideoLimits(decode_s=60))
    object.__setattr__(video._limits, "decode_s", -1.0)  # type: ignore[attr-defined]
    with pytest.raises(VideoError, match="s to decode"):
        list(video.frames([39]))


@pytest.mark.parametrize("name", ["plain.mp4", "film.webm", "broadcast.ts", "camera.avi"])
def test_random_damage_gives_frames_or_a_media_error_and_nothing_else(name: str, films: Callable[[str], Path]) -> None:
    content = films(name).read_bytes()
    random = np.random.default_rng(5)
    for _ in range(25):
        damaged = bytearray(content[: random.integers(1, len(content) + 1)])
        for place in random.integers(0, len(damaged), random.integers(0, 30)):
            damaged[place] = random.integers(0, 256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                video = open_video(
                    bytes(damaged), limits=VideoLimits(max_seconds=600, max_pixels=1_000_000, decode_s=5)
                )
                for _ in video.frames(range(min(video.info.num_frames, 50))):
                    pass
            except (VideoError, ImageError):
                continue
