"""Videos that are damaged, cut off, too large or none at all: what is left is shown, everything else says why not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import FetchError, ImageError, VideoError
from smolvlm.media.video import VideoLimits, open_video
from tests.videos import B_FRAMES, FRAMES, film, numbered_frame, numbers_shown, write_sound, write_video


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


def test_an_mp4_without_its_table_is_refused(tmp_path: Path) -> None:
    content = film("plain.mp4").read_bytes()
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
        shown = numbers_shown(video, range(left))
    assert len(shown) >= left - 3
    whole = shown[: left - 6]  # in the last group, frames are missing between others
    assert whole == [(n, n) for n in range(len(whole))]


@pytest.mark.parametrize("name", ["hurt.mkv", "hurt.mp4"])
def test_a_damaged_middle_never_gives_a_frame_a_wrong_number(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (90, 48, 64, 3), dtype=np.uint8)
    pictures = [np.where(numbered_frame(n) > 0, 255 - noise[n], noise[n]).astype(np.uint8) for n in range(90)]
    path = write_video(tmp_path / name, rate=30, pictures=pictures, codec="libx264", options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        video = open_video(path)
        shown = numbers_shown(video, range(video.info.num_frames))
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
def test_a_limit_is_held(name: str, limits: VideoLimits, part: str, tmp_path: Path) -> None:
    path = film(name) if "plain" in name else write_video(tmp_path / name, FRAMES, 10, codec="libx264")
    with pytest.raises(VideoError) as error:
        open_video(path, limits=limits)
    assert part in str(error.value)


def test_decoding_stops_at_its_time_limit() -> None:
    video = open_video(film("plain.mp4"), limits=VideoLimits(decode_s=60))
    object.__setattr__(video._limits, "decode_s", -1.0)  # type: ignore[attr-defined]
    with pytest.raises(VideoError, match="s to decode"):
        list(video.frames([39]))


@pytest.mark.parametrize("name", ["plain.mp4", "film.webm", "broadcast.ts", "camera.avi"])
def test_random_damage_gives_frames_or_a_media_error_and_nothing_else(name: str) -> None:
    content = film(name).read_bytes()
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
