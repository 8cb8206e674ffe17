"""Pixels, grids and masks bit-equal to transformers' PIL image processor, over sizes, modes, shapes and settings."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.processing.image import SmolVLMImageProcessor, plan

pytest.importorskip("transformers")

SMALL = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}  # the 2048/512 grids at an eighth
LARGE = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}  # 256M and 500M
TWO_B = {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}}  # 2.2B

SIZES = [
    *[(1, 1), (1, 2), (3, 2), (7, 5), (16, 16), (31, 33), (40, 20), (63, 64), (64, 64), (65, 64), (100, 100)],
    *[(64, 128), (128, 64), (128, 128), (129, 127), (640, 480), (480, 640), (320, 240), (333, 777), (777, 333)],
    *[(256, 256), (256, 193), (193, 256), (256, 192), (255, 191), (257, 256), (500, 300), (512, 512), (300, 600)],
    *[(1000, 250), (250, 1000), (1024, 37), (37, 911), (3000, 50), (50, 3000), (2, 900), (900, 2), (1, 400), (400, 1)],
]
MODES = ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "YCbCr", "HSV"]


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed + width * 7 + height).integers(0, 256, shape, dtype=np.uint8)


def picture(mode: str, size: tuple[int, int] = (90, 70)) -> Image.Image:
    rgba = Image.fromarray(noise(*size, channels=4))
    return rgba.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else rgba.convert(mode)


def oracle(**settings: Any) -> Any:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    return SmolVLMImageProcessorPil(**settings)


def assert_same(images: Any, settings: dict[str, Any] | None = None, **call: Any) -> None:
    settings = SMALL if settings is None else settings
    call = {"return_tensors": "np", "return_row_col_info": True, **call}
    expected = oracle(**settings)(images, **call)
    found = SmolVLMImageProcessor(**settings)(images, **call)
    assert list(found) == list(expected)
    for name, value in expected.items():
        if name in ("rows", "cols"):
            assert found[name] == value
        else:
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_size_gives_the_same_pixels(size: tuple[int, int]) -> None:
    assert_same(Image.fromarray(noise(*size)))


@pytest.mark.parametrize("size", SIZES[::4], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_size_gives_the_same_pixels_without_splitting(size: tuple[int, int]) -> None:
    assert_same(Image.fromarray(noise(*size)), do_image_splitting=False)


@pytest.mark.parametrize("size", SIZES[::4], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_size_gives_the_same_pixels_without_the_first_resize(size: tuple[int, int]) -> None:
    assert_same(Image.fromarray(noise(*size)), do_resize=False)


@pytest.mark.parametrize("settings", [LARGE, TWO_B], ids=["2048/512", "1536/384"])
@pytest.mark.parametrize("size", [(1920, 1080), (96, 96), (500, 3000)], ids=str)
def test_released_geometries_give_the_same_pixels(settings: dict[str, Any], size: tuple[int, int]) -> None:
    assert_same(Image.fromarray(noise(*size)), settings)


def test_the_class_defaults_give_the_same_pixels() -> None:
    assert_same(Image.fromarray(noise(1000, 700)), {})


@pytest.mark.parametrize("size", [(5000, 700), (700, 5000), (4097, 4096), (9000, 30)], ids=str)
def test_sides_beyond_4096_are_cut_the_same_way(size: tuple[int, int]) -> None:
    settings = {"size": {"longest_edge": 6000}, "max_image_size": {"longest_edge": 512}}
    planned = plan(*size, longest_edge=6000, tile_size=512)
    tiles, rows, cols = oracle(**settings).get_number_of_image_patches(size[1], size[0])
    assert (planned.tiles, planned.rows, planned.cols) == (tiles, rows, cols)


def test_a_side_beyond_4096_gives_the_same_pixels() -> None:
    assert_same(
        Image.fromarray(noise(4500, 60)), {"size": {"longest_edge": 5000}, "max_image_size": {"longest_edge": 512}}
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("splitting", [True, False], ids=["split", "whole"])
def test_every_mode_gives_the_same_pixels(mode: str, splitting: bool) -> None:
    assert_same(picture(mode), do_image_splitting=splitting)


def test_a_palette_with_a_transparent_entry_gives_the_same_pixels() -> None:
    image = picture("P")
    image.info["transparency"] = 3
    assert_same(image)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("first", [True, False], ids=["channels first", "channels last"])
@pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "torch"])
def test_every_array_gives_the_same_pixels(channels: int, first: bool, kind: str) -> None:
    array: Any = noise(90, 70, channels)
    if kind == "float32":
        array = (array / 255).astype(np.float32) if channels == 4 else array.astype(np.float32)
    elif kind == "int64":
        array = array.astype(np.int64)
    array = np.ascontiguousarray(array.transpose(2, 0, 1)) if first else array
    if kind == "torch":
        array = pytest.importorskip("torch").from_numpy(array)
    assert_same(array, do_rescale=not (kind == "float32" and channels == 4))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_fractions_give_the_same_pixels_when_rescaling_is_off(dtype: str) -> None:
    array = np.random.default_rng(1).random((70, 90, 3)).astype(dtype)
    assert_same(array, do_rescale=False)


def test_fractions_rescaled_twice_are_a_quirk_we_can_repeat() -> None:
    array = np.random.default_rng(1).random((70, 90, 3)).astype(np.float32)
    expected = oracle(**SMALL)(array, return_tensors="np")["pixel_values"]
    assert expected.max() < -0.99  # the reference makes it black
    quirky = SmolVLMImageProcessor(**SMALL, reference_quirks=True)(array, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(quirky, expected)
    whole = SmolVLMImageProcessor(**SMALL)((array * 255).astype(np.uint8), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(SmolVLMImageProcessor(**SMALL)(array, return_tensors="np")["pixel_values"], whole)


def test_an_ambiguous_array_takes_its_channels_from_the_front() -> None:
    assert_same(np.random.default_rng(2).integers(0, 256, (3, 90, 4), dtype=np.uint8))


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_a_stated_channel_order_is_obeyed(order: str) -> None:
    shape = (3, 64, 4) if order == "channels_first" else (4, 64, 3)
    assert_same(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8), input_data_format=order)


@pytest.mark.parametrize(
    "images",
    [
        [Image.fromarray(noise(90, 70)), Image.fromarray(noise(30, 120))],
        [[Image.fromarray(noise(90, 70))], [Image.fromarray(noise(30, 120)), Image.fromarray(noise(64, 64))]],
        [[], [Image.fromarray(noise(90, 70))]],
        [[noise(90, 70)], []],
        noise(80, 60).reshape(2, 30, 80, 3),
        [noise(80, 60).reshape(2, 30, 80, 3), noise(80, 90).reshape(3, 30, 80, 3)],
        [noise(90, 70), noise(20, 30)],
    ],
    ids=["flat list", "ragged batch", "empty first", "empty last", "4-D", "list of 4-D", "arrays"],
)
def test_every_nesting_gives_the_same_batch(images: Any) -> None:
    assert_same(images)


@pytest.mark.parametrize(
    "call",
    [
        {"size": {"height": 100, "width": 200}},
        {"size": {"height": 64, "width": 64}},
        {"size": {"longest_edge": 64}},
        {"size": {"longest_edge": 100}},
        {"size": {"longest_edge": 333}},
        {"max_image_size": {"longest_edge": 100}},
        {"resample": 0},
        {"resample": 2},
        {"resample": 3},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.27, 0.28]},
        {"image_mean": 0.3, "image_std": 0.7},
        {"do_convert_rgb": False},
        {"do_pad": False},
    ],
    ids=str,
)
def test_every_setting_gives_the_same_pixels(call: dict[str, Any]) -> None:
    assert_same(Image.fromarray(noise(150, 90)), **call)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_modes_left_as_they_are_give_the_same_pixels(mode: str) -> None:
    assert_same(picture(mode), do_convert_rgb=False, do_normalize=False)


def test_a_file_is_turned_upright_as_in_the_reference(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(noise(90, 50)).save(path, exif=exif)
    assert_same(str(path))


@pytest.mark.parametrize("form", ["base64", "data URI"])
def test_encoded_files_give_the_same_pixels(form: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(90, 50)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    assert_same(text if form == "base64" else f"data:image/png;base64,{text}")


def test_quirks_drop_the_transparency_of_files_as_the_reference_does(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    picture("RGBA").save(path)
    expected = oracle(**SMALL)(str(path), return_tensors="np")["pixel_values"]
    quirky = SmolVLMImageProcessor(**SMALL)(str(path), return_tensors="np", reference_quirks=True)["pixel_values"]
    np.testing.assert_array_equal(quirky, expected)
    on_white = oracle(**SMALL)(Image.open(path), return_tensors="np")["pixel_values"]  # the reference, given the object
    np.testing.assert_array_equal(
        SmolVLMImageProcessor(**SMALL)(str(path), return_tensors="np")["pixel_values"], on_white
    )


@pytest.mark.parametrize("mode", ["I;16", "turned"])
def test_quirks_repeat_what_the_reference_makes_of_pil_objects(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(noise(90, 50, 0).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise(90, 50))
        image.getexif()[0x0112] = 6
    expected = oracle(**SMALL)(image, return_tensors="np")["pixel_values"]
    ours = SmolVLMImageProcessor(**SMALL)
    np.testing.assert_array_equal(ours(image, return_tensors="np", reference_quirks=True)["pixel_values"], expected)
    assert not np.array_equal(ours(image, return_tensors="np")["pixel_values"], expected)


def test_counted_tiles_agree_with_the_reference_for_every_size() -> None:
    ours, theirs = SmolVLMImageProcessor(**LARGE, reference_quirks=True), oracle(**LARGE)
    for width in range(1, 2400, 53):
        for height in range(1, 2400, 71):
            assert ours.get_number_of_image_patches(height, width) == theirs.get_number_of_image_patches(height, width)


def test_settings_travel_to_the_reference_and_back(tmp_path: Path) -> None:
    settings = {**SMALL, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "do_pad": False}
    SmolVLMImageProcessor(**settings).save_pretrained(tmp_path / "ours")
    read = type(oracle()).from_pretrained(tmp_path / "ours")
    assert read.to_json_string() == oracle(**settings).to_json_string()
    assert json.loads(read.to_json_string()) == SmolVLMImageProcessor(**settings).to_dict()
    oracle(**settings).save_pretrained(tmp_path / "theirs")
    assert SmolVLMImageProcessor.from_pretrained(tmp_path / "theirs").to_dict() == json.loads(read.to_json_string())
