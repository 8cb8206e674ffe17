"""The door for pictures: everything that stands for one comes out upright and RGB, everything else says why not."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFile

from smolvlm.errors import FetchError, ImageError, SmolVLMError
from smolvlm.media.image import ImageLimits, load_image, measure_image, open_image

ORIENTATION = 0x0112


def noise(width: int = 24, height: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def assert_pixels(image: Image.Image, expected: np.ndarray) -> None:
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)


PIXELS = noise()
PNG = encoded(Image.fromarray(PIXELS))


def as_path(tmp_path: Path) -> Any:
    (tmp_path / "picture.png").write_bytes(PNG)
    return tmp_path / "picture.png"


@pytest.mark.parametrize(
    "make",
    [
        as_path,
        lambda tmp_path: str(as_path(tmp_path)),
        lambda _: PNG,
        lambda _: bytearray(PNG),
        lambda _: memoryview(PNG),
        lambda _: io.BytesIO(PNG),
        lambda _: base64.b64encode(PNG).decode(),
        lambda _: base64.encodebytes(PNG).decode(),  # with line ends
        lambda _: base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        lambda _: "data:image/png;base64," + base64.b64encode(PNG).decode(),
        lambda _: "DATA:image/png;base64," + base64.b64encode(PNG).decode(),
        lambda _: "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
        lambda _: Image.fromarray(PIXELS),
        lambda _: Image.open(io.BytesIO(PNG)),
        lambda _: PIXELS,
        lambda _: np.ascontiguousarray(PIXELS.transpose(2, 0, 1)),
        lambda _: (PIXELS / 255).astype(np.float32),
        lambda _: PIXELS.astype(np.float64),
        lambda _: PIXELS.astype(np.uint16) * 257,
    ],
    ids=[
        *["path", "str", "bytes", "bytearray", "memoryview", "file", "base64", "base64 lines", "base64 url"],
        *["data uri", "DATA uri", "data uri percent", "pil", "pil unloaded"],
        *["array", "array chw", "fractions", "floats", "16 bits"],
    ],
)
def test_every_kind_of_source_gives_the_same_picture(make: Callable[[Path], Any], tmp_path: Path) -> None:
    assert_pixels(open_image(make(tmp_path)), PIXELS)


def test_a_torch_tensor_is_a_picture() -> None:
    torch = pytest.importorskip("torch")
    assert_pixels(open_image(torch.from_numpy(PIXELS).permute(2, 0, 1)), PIXELS)
    assert_pixels(open_image(torch.from_numpy(PIXELS).requires_grad_(False).to(torch.float32)), PIXELS)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG", "JPEG2000", "AVIF"])
def test_every_accepted_format_opens_as_pillow_opens_it(form: str) -> None:
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow can't write {form}")
    content = encoded(Image.fromarray(PIXELS), form)
    assert_pixels(open_image(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(content).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_the_camera_was_held(orientation: int, form: str) -> None:
    upright = np.asarray(Image.fromarray(PIXELS))
    stored = {  # how a camera stores the upright picture, by the definition of the tag
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
    assert_pixels(open_image(content), upright)
    assert_pixels(open_image(Image.open(io.BytesIO(content))), upright)
    assert measure_image(content) == (24, 16)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_clear_is_seen_on_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, 3, 7), fill=(0, 0, 0, 255))
    if mode == "P":
        image = image.convert("RGB").convert("P")
        ImageDraw.Draw(image).rectangle((4, 0, 7, 7), fill=1)
        image.info["transparency"] = 1
    else:
        image = image.convert(mode)
    opened = open_image(image)
    assert opened.getpixel((0, 0)) == (0, 0, 0)
    assert opened.getpixel((7, 7)) == (255, 255, 255)
    if mode in ("RGBA", "LA", "P"):
        assert open_image(encoded(image)).getpixel((7, 7)) == (255, 255, 255)


def test_half_clear_red_is_pink() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[...] = (255, 0, 0, 128)
    for source in (pixels, Image.fromarray(pixels), encoded(Image.fromarray(pixels))):
        assert open_image(source).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_shades(form: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    opened = open_image(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(np.asarray(opened)[..., 0], grey)


@pytest.mark.parametrize(
    "values,expected",
    [
        (np.array([[0.0, 0.5], [1.0, 0.25]], np.float32), [[0, 128], [255, 64]]),
        (np.array([[0.0, 127.6], [255.0, 3.0]], np.float32), [[0, 128], [255, 3]]),
        (np.array([[0, 200], [255, 3]], np.int32), [[0, 200], [255, 3]]),
        (np.array([[0, 32768], [65535, 257]], np.int32), [[0, 128], [255, 1]]),
    ],
    ids=["fractions", "floats", "8 bits in 32", "16 bits in 32"],
)
def test_grey_values_of_wide_modes_are_scaled_by_what_they_hold(values: np.ndarray, expected: list[list[int]]) -> None:
    assert np.asarray(open_image(Image.fromarray(values)))[..., 0].tolist() == expected


def test_a_boolean_array_is_black_and_white() -> None:
    assert np.asarray(open_image(np.eye(3, dtype=bool)))[..., 0].tolist() == (np.eye(3) * 255).astype(int).tolist()


@pytest.mark.parametrize(
    "array,part",
    [
        (np.zeros((2, 2, 2), np.uint8), "shape (2, 2, 2)"),
        (np.zeros((5,), np.uint8), "shape (5,)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.full((5, 6, 3), 300, np.int64), "300"),
        (np.full((5, 6, 3), -0.5), "-0.5"),
        (np.full((5, 6, 3), 12.5), "12.5"),
        (np.full((5, 6, 3), np.nan), "nan"),
        (np.full((5, 6, 4), 100.0), "transparency"),
        (Image.fromarray(np.full((4, 4), -3.0, np.float32)), "-3"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_arrays_that_are_no_pictures_are_refused(array: Any, part: str) -> None:
    with pytest.raises(ImageError, match="(?s).*") as error:
        open_image(array)
    assert part in str(error.value)


# Bad files: each error names the source and says what to do.


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be this large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "empty.png": (b"", "empty"),
    "text.png": (b"Dear reader, this is a letter.\n" * 9, "text"),
    "cut.jpg": (encoded(Image.fromarray(noise(200, 200)), "JPEG")[:3000], "damaged or cut off"),
    "cut.png": (encoded(Image.fromarray(noise(200, 200)))[:3000], "damaged or cut off"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "SVG"),
    "drawing2.svg": (b"<?xml version='1.0'?>\n<svg></svg>", "SVG"),
    "figure.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    "figure.png": (b"\xc5\xd0\xd3\xc6" + b"\0" * 40, "EPS"),
    "page.pdf": (b"%PDF-1.7\n", "PDF"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "film.png": (b"\0\0\0\x20ftypisom\0\0\0\0", "Pass it as a video"),
    "photo.heic": (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
    "random.png": (bytes(range(256)) * 4, "no picture of a known format"),
    "bomb.png": (bomb(40_000, 40_000), "nothing was decoded"),
    "wide.png": (bomb(20_000, 9_000), "nothing was decoded"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_reason(name: str, tmp_path: Path) -> None:
    content, reason = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, str(path)):
        with pytest.raises(ImageError) as error:
            open_image(source)
        assert name in str(error.value)
        assert reason in str(error.value)


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_bytes_are_refused_too(name: str) -> None:
    content, reason = BAD_FILES[name]
    with pytest.raises(ImageError) as error:
        open_image(content)
    assert reason in str(error.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_takes_no_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ImageError):
        open_image(bomb(13_000, 13_700), limits=ImageLimits(max_pixels=100_000_000))
    with pytest.raises(ImageError, match="178,100,000 pixels, more than the limit of 100,000,000"):
        open_image(bomb(13_000, 13_700), limits=ImageLimits(max_pixels=100_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_picture_not_decoded_yet_is_held_to_the_limit_as_well() -> None:
    with pytest.raises(ImageError, match="limit of 100"):
        open_image(Image.open(io.BytesIO(PNG)), limits=ImageLimits(max_pixels=100))
    assert open_image(Image.fromarray(PIXELS), limits=ImageLimits(max_pixels=100)).size == (24, 16)  # in memory already


@pytest.mark.parametrize(
    "source,part",
    [
        ("no/such/picture.png", "no file 'no/such/picture.png'"),
        (Path("nope.jpg"), "no file 'nope.jpg'"),
        ("", "empty"),
        ("~/nope.png", "no file"),
        ("x" * 300 + "?", "no base64 either"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,%%%%", "base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/svg+xml;utf8,<svg/>", "SVG"),
        ("A" * 68, "no picture of a known format"),
        (None, "NoneType"),
        (7, "int"),
        ([PNG], "list"),
        (b"", "empty"),
        ("bad\0name.png", "no file"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_source_that_is_nothing_says_so(source: Any, part: str) -> None:
    with pytest.raises(ImageError) as error:
        open_image(source)
    assert part in str(error.value)
    assert len(str(error.value)) < 400


def test_a_directory_and_a_device_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="device or a pipe"):
        open_image("/dev/null")


def test_encoded_data_is_measured_before_it_is_decoded() -> None:
    limits = ImageLimits(max_bytes=1000)
    with pytest.raises(ImageError, match="1,000 bytes"):
        open_image("data:image/png;base64," + "A" * 2000, limits=limits)
    with pytest.raises(ImageError, match="1,000 bytes"):
        open_image("A" * 2000, limits=limits)


@pytest.mark.parametrize("url", ["http://example.org/cat.png", "HTTPS://example.org/cat.png"])
def test_a_url_is_refused_unless_allowed_and_the_message_names_the_flag(url: str) -> None:
    for function in (open_image, measure_image):
        with pytest.raises(FetchError, match=r"allow_url=True.*--allow-url"):
            function(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://x/y.png", "gopher://x", "s3://b/k"])
def test_other_schemes_are_refused_even_when_urls_are_allowed(url: str) -> None:
    with pytest.raises(FetchError, match="never opened"):
        open_image(url, allow_url=True)


def test_load_image_is_guarded_too() -> None:
    with pytest.raises(FetchError, match="not an address of the open internet"):
        load_image("http://127.0.0.1:9/cat.png")
    assert load_image(PNG).size == (24, 16)


def test_the_size_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    path.write_bytes(PNG[: len(PNG) // 2])
    assert measure_image(path) == (24, 16)
    assert (
        measure_image(PIXELS) == measure_image(PIXELS.transpose(2, 0, 1)) == measure_image(PIXELS[..., 0]) == (24, 16)
    )
    assert measure_image(Image.fromarray(PIXELS)) == (24, 16)


def test_pillows_global_switches_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    for content, _ in BAD_FILES.values():
        with pytest.raises(ImageError):
            open_image(content)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_an_opened_file_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "frames.gif"
    path.write_bytes(encoded(Image.fromarray(PIXELS), "GIF"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        opened = open_image(path)
        path.unlink()
        assert not isinstance(opened, ImageFile.ImageFile)


@settings(max_examples=150)
@given(
    form=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    keep=st.integers(1, 10_000),
)
def test_damaged_bytes_give_a_picture_or_an_image_error_and_nothing_else(
    form: str, edits: list[tuple[int, int]], keep: int
) -> None:
    content = bytearray(encoded(Image.fromarray(noise(40, 30)), form))
    for place, value in edits:
        content[place % len(content)] = value
    damaged = bytes(content[: keep % len(content) + 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        for function in (open_image, measure_image):
            try:
                function(damaged, limits=ImageLimits(max_pixels=1_000_000))
            except ImageError:
                continue


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_door(text: str) -> None:
    try:
        open_image(text)
    except SmolVLMError as error:
        assert str(error)
