"""Only listed formats are opened, whatever a file claims to be: pictures, playlists, codings, two formats in one."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.errors import ImageError, MediaError, VideoError
from smolvlm.media.container import _open_options
from smolvlm.media.image import measure_image, open_image
from smolvlm.media.source import Source
from smolvlm.media.video import VideoLimits, open_video

DEMO = Path(__file__).parents[1] / "src" / "smolvlm" / "assets" / "demo"
MP4 = (DEMO / "video.mp4").read_bytes()


def saved(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, form, **options)
    return file.getvalue()


PNG, GIF, JPEG = saved("PNG"), saved("GIF"), saved("JPEG")


@pytest.mark.parametrize(
    "form", ["EPS", "PDF", "ICO", "ICNS", "TGA", "PCX", "SGI", "DDS", "IM", "SPIDER", "DIB", "BLP", "QOI"]
)
def test_pictures_off_the_list_are_refused(form: str) -> None:
    try:
        content = saved(form) if form not in ("SPIDER", "BLP") else _saved_as(form)
    except (KeyError, ValueError, OSError):
        pytest.skip(f"this Pillow writes no {form}")
    for opened in (open_image, measure_image):
        with pytest.raises(ImageError, match=r"no picture of a known format|never run|PDF document|holds text"):
            opened(content)


def _saved_as(form: str) -> bytes:
    file = io.BytesIO()
    mode = "F" if form == "SPIDER" else "P"
    Image.new(mode, (16, 16)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        b"\xef\xbb\xbf\n <svg/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        b"\xc5\xd0\xd3\xc6" + b"\0" * 40,
        b"%PDF-1.7\n",
        b"8BPS\0\1" + b"\0" * 40,
        b"\xd7\xcd\xc6\x9a" + b"\0" * 40,
        b"SIMPLE  =                    T" + b" " * 2880,
        b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = { 0 };",
        b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://localhost/x.png)'\npop graphic-context",
        b"!<arch>\n",
        b"\x7fELF" + b"\0" * 60,
        b"PK\x03\x04" + b"\0" * 60,
    ],
)
def test_programs_and_drawings_are_no_pictures(content: bytes) -> None:
    for opened in (open_image, measure_image):
        with pytest.raises(ImageError):
            opened(content)
    with pytest.raises(VideoError):
        open_video(content)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1/k"\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n',
        b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\ndata:video/mp4;base64,AAAA\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"concat:/etc/passwd|/etc/hosts",
        b"subfile,,start,0,end,9,,:/etc/passwd",
        b"crypto:/etc/passwd",
        b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>',
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        b"[playlist]\nFile1=/etc/passwd\n",
        b"RTSPtext rtsp://127.0.0.1/",
        b";FFMETADATA1\n",
        b"\n\n#EXTM3U\nfile:///etc/passwd\n",
    ],
)
def test_playlists_and_addresses_are_no_videos(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(content)
    for source in (content, tmp_path / "film.mp4"):
        with pytest.raises(VideoError):
            open_video(source)


def test_ffmpeg_would_open_nothing_else_even_if_it_were_asked(tmp_path: Path) -> None:
    """A playlist that was taken for one reaches no file; with the option for files on disk it would."""
    import av

    inner = tmp_path / "inner.ts"
    with av.open(io.BytesIO(MP4)) as film, av.open(str(inner), "w") as copy:
        stream = copy.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile:{inner}\n#EXT-X-ENDLIST\n".encode()
    lax = {"allowed_extensions": "ALL", "extension_picky": "0"}
    with av.open(io.BytesIO(playlist), format="hls", options={**_open_options(inner), **lax}) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(playlist), format="hls", options={**_open_options(b""), **lax})


def write_film(path: Path, codec: str) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 32), "red"))))
        container.mux(stream.encode(None))


def test_a_coding_off_the_list_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    write_film(path, "asv1")
    with pytest.raises(VideoError, match="coded as asv1"):
        open_video(path)


@pytest.mark.parametrize(
    "tail", [MP4, JPEG, b"PK\x03\x04" + b"\0" * 40, b"#EXTM3U\nfile:///etc/passwd\n", b"<svg/>", b"<script>"]
)
def test_a_picture_with_another_file_behind_it_is_that_picture(tail: bytes) -> None:
    for content in (PNG + tail, GIF + tail):
        assert open_image(content).size == (16, 16)
    with pytest.raises(VideoError):
        open_video(PNG + tail)


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypisom",
        b"\x1aE\xdf\xa3",
        b"RIFF\x10\0\0\0AVI ",
        b"FLV\x01",
        b"OggS\0",
        b"\0\0\x01\xba",
        b"\0\0\x01\xb3",
    ],
)
@pytest.mark.parametrize(
    "tail", [b"#EXTM3U\nfile:///etc/passwd\n", PNG, b"ffconcat version 1.0\nfile /etc/passwd\n", b""]
)
def test_a_head_of_a_video_alone_opens_nothing(head: bytes, tail: bytes) -> None:
    with pytest.raises(VideoError):
        open_video(head + tail)
    with pytest.raises(ImageError):
        open_image(head + tail)


def test_a_picture_passes_for_no_video_and_a_video_for_no_picture() -> None:
    with pytest.raises(VideoError, match="is a picture"):
        open_video(PNG)
    with pytest.raises(ImageError, match="is a video"):
        open_image(MP4)


def test_a_source_that_was_found_already_keeps_its_name() -> None:
    with pytest.raises(ImageError, match="^the first one is a PDF"):
        open_image(Source("the first one", b"%PDF-1.7"))
    assert open_image(Source("red", PNG)).size == (16, 16)
    assert open_video(Source("film", MP4)).name == "film"
    assert open_video([Source("a", PNG), Source("b", PNG)]).info.num_frames == 2
    with pytest.raises(VideoError, match="Frame 1 .* b is a PDF"):
        list(open_video([Source("a", PNG), Source("b", b"%PDF-1.7")]).frames([0, 1]))


def bomb(frames: int) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("L", (8, 8), index % 256) for index in range(frames)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=20)
    return file.getvalue()


def test_an_animation_of_too_many_frames_or_too_much_work_is_refused() -> None:
    content = bomb(300)
    with pytest.raises(VideoError, match="more than 100 frames"):
        open_video(content, limits=VideoLimits(max_frames=100))
    with pytest.raises(VideoError, match="to decode"):
        open_video(content, limits=VideoLimits(decode_s=0.0))
    assert open_video(content).info.num_frames == 300


@pytest.mark.parametrize("size", [(60_000, 60_000), (3000, 3000)])
def test_a_frame_that_is_larger_than_the_animation_is_not_decoded(size: tuple[int, int]) -> None:
    """Found by benchmarks/server_fuzz.py: the header's size is not the last word."""
    content = bytearray(bomb(3))
    place = content.rindex(b",\0\0\0\0\x08\0\x08\0")  # the last frame: its place, width and height
    content[place + 5 : place + 9] = struct.pack("<HH", *size)
    with pytest.raises(VideoError, match="more pixels than are safe|more than the limit"):
        open_video(bytes(content), limits=VideoLimits(max_pixels=1_000_000))


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_an_animation_that_breaks_off_anywhere_is_shown_as_far_as_it_goes(cut: int) -> None:
    content = bomb(4)
    try:
        film = open_video(content[:-cut])
    except VideoError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(list(film.frames(range(film.info.num_frames)))) == film.info.num_frames


@pytest.mark.parametrize("size", [(40_000, 40_000), (2**31 - 1, 1), (1, 2**31 - 1), (65_535, 65_535)])
@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "GIF"])
def test_a_header_that_promises_too_much_is_enough_to_refuse(size: tuple[int, int], form: str) -> None:
    content = header(form, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for opened in (open_image, measure_image):
            with pytest.raises(MediaError):
                opened(content)


def header(form: str, width: int, height: int) -> bytes:
    """The beginning of a small file whose header says that it is huge."""
    import zlib

    if form == "PNG":

        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        rows = zlib.compress(b"\0" * 100_000)
        start = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    if form == "BMP":
        return (
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
            + b"\0" * 99
        )
    if form == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + b"\0" * 40
    return f"P6 {width} {height} 255\n".encode() + b"\0" * 99
