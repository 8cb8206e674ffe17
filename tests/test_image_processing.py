"""Plans, tiles and settings of the image processor, against Pillow; parity itself is in reference/test_image.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import (
    CheckpointError,
    FetchError,
    ImageError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
)
from smolvlm.processing.image import SmolVLMImageProcessor, normalise, tile
from smolvlm.processing.scale import _scale_table

SMALL: dict[str, Any] = {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}
NANO: dict[str, Any] = {"size": {"longest_edge": 256}, "max_image_size": 128}


def picture(width: int = 100, height: int = 70, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# Tiles and values.


def test_a_picture_of_a_tile_is_shown_as_it_is() -> None:
    processor = SmolVLMImageProcessor(**NANO)
    image = picture(128, 128)
    tiled = tile(image, processor, "auto")
    assert (tiled.rows, tiled.cols) == (0, 0)
    np.testing.assert_array_equal(tiled.tiles[0], np.asarray(image))


def test_tiles_are_cut_row_by_row_and_the_whole_comes_last() -> None:
    processor = SmolVLMImageProcessor(**NANO)
    image = picture(256, 256)
    tiled = tile(image, processor)
    assert (tiled.rows, tiled.cols, tiled.tiles.shape) == (2, 2, (5, 128, 128, 3))
    for index, box in enumerate([(0, 0), (128, 0), (0, 128), (128, 128)]):
        crop = image.crop((*box, box[0] + 128, box[1] + 128))
        np.testing.assert_array_equal(tiled.tiles[index], np.asarray(crop))
    whole = image.resize((128, 128), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(tiled.tiles[4], np.asarray(whole))


def test_tile_takes_any_mode_and_obeys_detail_and_limit() -> None:
    processor = SmolVLMImageProcessor(**NANO)
    assert tile(picture().convert("L"), processor).tiles.shape == (5, 128, 128, 3)
    assert tile(picture(), processor, "low").tiles.shape == (1, 128, 128, 3)
    assert tile(picture(), processor, "auto").tiles.shape == (1, 128, 128, 3)
    assert tile(picture(), processor, "high", 4).tiles.shape == (1, 128, 128, 3)
    assert tile(picture(250, 100), processor, "high", 4).tiles.shape == (3, 128, 128, 3)
    processor.do_image_splitting = False
    assert tile(picture(), processor).tiles.shape == (1, 128, 128, 3)
    assert tile(picture(), processor, "high").tiles.shape == (5, 128, 128, 3)


def test_normalised_values_run_from_minus_one_to_one_and_none_is_zero() -> None:
    tiles = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    values = normalise(tiles)
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (-1.0, 1.0)
    assert np.all(values != 0)  # the model takes tiles of zeros for padding
    np.testing.assert_allclose(values.ravel(), np.arange(256) / 127.5 - 1, atol=1e-6)


def test_the_fast_arithmetic_equals_the_table_bit_for_bit() -> None:
    options = SmolVLMImageProcessor().options
    tiles = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    table = _scale_table(options, 3, unit=False, twice=False)
    np.testing.assert_array_equal(normalise(tiles).reshape(3, 256), table)


def test_normalise_writes_where_it_is_told() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    out = np.empty((2, 3, 4, 4), np.float32)
    assert normalise(tiles, out=out) is out
    np.testing.assert_array_equal(out, normalise(tiles))


# The processor's call.


def test_a_ragged_batch_is_filled_with_zero_tiles() -> None:
    batch = SmolVLMImageProcessor(**SMALL)([[picture(250, 60)], [picture(), picture()], []], return_tensors="np")
    assert batch["pixel_values"].shape == (3, 26, 3, 64, 64)
    assert batch.pixel_attention_mask.dtype == np.int64
    assert batch.pixel_attention_mask[:, :, 0, 0].sum(axis=1).tolist() == [5, 26, 0]
    assert not batch["pixel_values"][0, 5:].any()
    assert batch["pixel_values"][0, :5].any(axis=(1, 2, 3)).all()


def test_without_return_tensors_a_list_of_arrays_comes_back() -> None:
    batch = SmolVLMImageProcessor(**SMALL)([[picture(250, 60)], [picture()]])
    assert isinstance(batch["pixel_values"], list)
    assert [values.shape for values in batch["pixel_values"]] == [(13, 3, 64, 64)] * 2
    assert all(isinstance(values, np.ndarray) for values in batch["pixel_values"])
    ragged = SmolVLMImageProcessor(**SMALL)([[picture(250, 60)], [picture()]], do_pad=False)
    assert [len(values) for values in ragged["pixel_values"]] == [5, 13]
    assert "pixel_attention_mask" not in ragged


def test_ragged_samples_without_padding_are_no_tensor() -> None:
    with pytest.raises(InputError, match=r"\[5, 13\] tiles.*do_pad=True"):
        SmolVLMImageProcessor(**SMALL)([[picture(250, 60)], [picture()]], do_pad=False, return_tensors="np")


def test_torch_tensors_come_when_asked_for() -> None:
    torch = pytest.importorskip("torch")
    batch = SmolVLMImageProcessor(**SMALL)(picture(), return_tensors="pt")
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_attention_mask"].dtype == torch.int64
    assert batch.to(dtype=torch.bfloat16)["pixel_values"].dtype == torch.bfloat16
    assert batch["pixel_attention_mask"].dtype == torch.int64


@pytest.mark.parametrize("name,package", [("tf", "tensorflow"), ("jax", "jax")])
def test_a_missing_library_names_its_cure(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        SmolVLMImageProcessor(**SMALL)(picture(), return_tensors=name)


@pytest.mark.parametrize(
    "data_format,last", [("channels_first", False), ("channels_last", True), ("none", True), (None, True)]
)
def test_the_channels_go_where_they_are_asked(data_format: Any, last: bool) -> None:
    first = SmolVLMImageProcessor(**SMALL)(picture(), return_tensors="np")["pixel_values"]
    found = SmolVLMImageProcessor(**SMALL)(picture(), return_tensors="np", data_format=data_format)["pixel_values"]
    np.testing.assert_array_equal(found, np.moveaxis(first, 2, -1) if last else first)


def test_without_a_data_format_the_channels_stay_where_the_input_has_them() -> None:
    array = np.asarray(picture()).transpose(2, 0, 1)
    assert SmolVLMImageProcessor(**SMALL)(array, return_tensors="np", data_format=None)["pixel_values"].shape[2] == 3


def test_a_grey_array_of_two_axes_is_a_picture() -> None:
    grey = np.asarray(picture().convert("L"))
    processor = SmolVLMImageProcessor(**SMALL)
    expected = processor(Image.fromarray(grey), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(processor(grey, return_tensors="np")["pixel_values"], expected)
    np.testing.assert_array_equal(
        processor(grey, return_tensors="np", input_data_format="none")["pixel_values"], expected
    )


@pytest.mark.parametrize("given_size", [64, {"longest_edge": 64}, {"height": 64, "width": 64}])
def test_the_tile_size_may_be_written_in_three_ways(given_size: Any) -> None:
    batch = SmolVLMImageProcessor(size={"longest_edge": 256}, max_image_size=given_size)(picture(), return_tensors="np")
    assert batch["pixel_values"].shape == (1, 13, 3, 64, 64)


def test_an_attribute_and_an_argument_do_the_same() -> None:
    processor = SmolVLMImageProcessor(**SMALL)
    by_call = processor(picture(), do_image_splitting=False, return_tensors="np")["pixel_values"]
    assert by_call.shape == (1, 1, 3, 64, 64)
    processor.do_image_splitting = False
    np.testing.assert_array_equal(processor(picture(), return_tensors="np")["pixel_values"], by_call)


def test_paths_and_pictures_mix_and_a_url_is_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    processor = SmolVLMImageProcessor(**SMALL)
    batch = processor([str(tmp_path / "a.png"), picture(), tmp_path / "a.png"], return_tensors="np")
    first, second, third = np.split(batch["pixel_values"][0], 3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    with pytest.raises(FetchError, match="allow_url=True"):
        processor("https://example.org/a.png")


@pytest.mark.parametrize(
    "images,error,part",
    [
        (None, InputError, "NoneType"),
        ([], InputError, "empty"),
        ([[]], InputError, "empty"),
        ([[], []], InputError, "empty"),
        ([None], InputError, "NoneType"),
        ([picture(), [picture()]], InputError, "mixes"),
        ([[[picture()]]], InputError, "list"),
        (np.zeros((2, 2)) + 7.5, ImageError, "7.5"),
        (np.zeros((5, 6, 2)), ImageError, "(5, 6, 2)"),
        (3.5, ImageError, "float"),
    ],
    ids=lambda value: str(value)[:20].replace("\n", ""),
)
def test_what_is_no_picture_says_why(images: Any, error: type[Exception], part: str) -> None:
    with pytest.raises(error) as found:
        SmolVLMImageProcessor(**SMALL)(images)
    assert part in str(found.value)


@pytest.mark.parametrize(
    "arguments,part",
    [
        ({"do_resise": True}, "no argument 'do_resise'.*do_resize"),
        ({"size": {"foo": 1}}, "longest_edge"),
        ({"size": {"longest_edge": 0}}, "longest_edge"),
        ({"size": -3}, "size=-3"),
        ({"size": {"shortest_edge": 300}}, "longest_edge"),
        ({"max_image_size": {"height": 64, "width": 32}}, "square"),
        ({"max_image_size": "big"}, "square"),
        ({"resample": 9}, "0 to 5"),
        ({"resample": "lanczos"}, "0 to 5"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": 0}, "image_std"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"crop_size": 20}, "crop_size"),
        ({"device": "cuda"}, "device"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused_at_once(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        SmolVLMImageProcessor(**arguments)
    with pytest.raises(InputError, match=part):
        SmolVLMImageProcessor()(picture(), **arguments)


@pytest.mark.parametrize(
    "call", [{"return_tensors": "numpy"}, {"data_format": "last"}, {"input_data_format": 3}], ids=str
)
def test_a_call_that_cannot_be_is_refused(call: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SmolVLMImageProcessor(**SMALL)(picture(), **call)


def test_idle_arguments_of_the_reference_are_taken() -> None:
    SmolVLMImageProcessor(do_center_crop=False, crop_size=None, default_to_square=True, device=None)
    SmolVLMImageProcessor(**SMALL)(picture(), device="cpu", disable_grouping=True, pad_size=None)


def test_counted_tiles_equal_cut_tiles() -> None:
    processor = SmolVLMImageProcessor(**SMALL)
    for width, height in [(90, 70), (64, 64), (300, 20), (20, 300), (1, 1), (256, 255)]:
        batch = processor(picture(width, height), return_tensors="np", return_row_col_info=True)
        tiles, rows, cols = processor.get_number_of_image_patches(height, width)
        assert (tiles, [[rows]], [[cols]]) == (batch["pixel_values"].shape[1], batch["rows"], batch["cols"])
    assert processor.get_number_of_image_patches(50, 50, {"do_image_splitting": False}) == (1, 0, 0)


# Files.


def test_the_class_defaults_are_1456_and_364() -> None:
    processor = SmolVLMImageProcessor()
    assert processor.size == {"longest_edge": 1456}
    assert processor.max_image_size == {"longest_edge": 364}
    assert (processor.image_mean, processor.resample) == ([0.5, 0.5, 0.5], Image.Resampling.LANCZOS)


def test_settings_survive_a_file_with_its_unknown_keys(tmp_path: Path) -> None:
    settings = {**SMALL, "video_sampling": {"fps": 1}, "processor_class": "X", "image_processor_type": "Y"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = SmolVLMImageProcessor.from_pretrained(tmp_path)
    assert processor.size == {"longest_edge": 256}
    processor.save_pretrained(tmp_path / "copy")
    written = json.loads((tmp_path / "copy" / "preprocessor_config.json").read_text())
    assert settings.items() <= written.items()
    assert SmolVLMImageProcessor.from_pretrained(tmp_path / "copy").to_dict() == processor.to_dict()


def test_nested_settings_of_newer_checkpoints_come_first(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": 100}}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SMALL}))
    assert SmolVLMImageProcessor.from_pretrained(tmp_path).size == {"longest_edge": 256}
    assert SmolVLMImageProcessor.from_pretrained(tmp_path, size={"longest_edge": 7}).size == {"longest_edge": 7}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": 64}))
    assert SmolVLMImageProcessor.from_pretrained(tmp_path).size == {"longest_edge": 100}


def test_missing_and_broken_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"preprocessor_config\.json"):
        SmolVLMImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no valid JSON"):
        SmolVLMImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        SmolVLMImageProcessor.from_pretrained(tmp_path)


def test_defaults_belong_to_each_processor_alone() -> None:
    changed = SmolVLMImageProcessor()
    changed.size["longest_edge"] = 7
    changed.image_mean[0] = 0.0
    assert SmolVLMImageProcessor().size == {"longest_edge": 1456}
    assert SmolVLMImageProcessor().image_mean == [0.5, 0.5, 0.5]


def test_the_processor_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys, numpy as np; from smolvlm.processing.image import SmolVLMImageProcessor as P;"
        "from smolvlm.processing.video import SmolVLMVideoProcessor as V;"
        "P(size=64, max_image_size=32)(np.zeros((9, 9, 3), np.uint8), return_tensors='np');"
        "V(max_image_size=32)(np.zeros((2, 9, 9, 3), np.uint8), return_tensors='np');"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules, 'imported too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
