"""Checkpoint files: equal to the safetensors library in both directions, and firm against hostile headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.checkpoint import (
    INDEX_NAME,
    OutgoingTensor,
    map_tensor,
    map_tensors,
    parse_size,
    read_header,
    read_index,
    read_json,
    write,
    write_json,
)
from smolvlm.errors import CheckpointError, InputError

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def save_raw(file: Path, header: object, num_bytes: int = 8) -> Path:
    """A safetensors file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))
    return file


def some_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "a.weight": generator.normal(size=(3, 5)).astype(np.float32),
        "a.bias": generator.normal(size=(5,)).astype(np.float16),
        "count": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "flags": np.array([True, False, True]),
        "odd": generator.integers(0, 255, size=(3,), dtype=np.uint8),
    }


def test_files_of_the_safetensors_library_are_read_exactly(tmp_path: Path) -> None:
    tensors = some_tensors()
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    entries = read_index(tmp_path)
    assert entries.keys() == tensors.keys()
    for name, array in map_tensors(entries):
        np.testing.assert_array_equal(array, tensors[name], strict=True)


def test_our_files_are_read_exactly_by_the_safetensors_library(tmp_path: Path) -> None:
    tensors = some_tensors()
    assert write(tmp_path, tensors) == ["model.safetensors"]
    loaded = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, tensors[name], strict=True)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=6),
    dtypes=st.lists(st.sampled_from(["bool", "u1", "i1", "<i2", "<f2", "<i4", "<f4", "<i8", "<f8"]), min_size=6),
    limit=st.one_of(st.none(), st.integers(1, 300)),
)
def test_whatever_is_written_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], dtypes: list[str], limit: int | None
) -> None:
    directory = tmp_path_factory.mktemp("checkpoint")
    generator = np.random.default_rng(len(shapes))
    pairs = zip(shapes, dtypes, strict=False)
    tensors = {f"t{i}": (generator.normal(size=shape) * 9).astype(dtype) for i, (shape, dtype) in enumerate(pairs)}
    write(directory, tensors, max_shard_bytes=limit)
    found = dict(map_tensors(read_index(directory))) if tensors else {}
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_bfloat16_is_kept_as_its_bits(tmp_path: Path) -> None:
    values = torch.tensor([1.0, -2.5, 3e38, float("inf")], dtype=torch.bfloat16)
    safetensors.torch.save_file({"x": values}, tmp_path / "model.safetensors")
    entry = read_index(tmp_path)["x"]
    bits = map_tensor(entry)
    assert (entry.dtype, bits.dtype) == ("BF16", np.uint16)
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), values)
    write(tmp_path / "again", {"x": OutgoingTensor("BF16", (4,), lambda: bits)})
    assert torch.equal(safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")["x"], values)


def test_tensor_of_a_header_with_odd_length_is_aligned(tmp_path: Path) -> None:
    text = json.dumps({"x": GOOD}).encode()
    text += b" " * (1 - len(text) % 2)
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + np.array([1.5, 2.5], "<f4").tobytes())
    array = map_tensor(read_header(file)["x"])
    assert array.flags.aligned
    np.testing.assert_array_equal(array, [1.5, 2.5])


def test_changing_a_mapped_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.zeros(4, np.float32)})
    before = (tmp_path / "model.safetensors").read_bytes()
    map_tensor(read_index(tmp_path)["x"])[:] = 1
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_shards_hold_no_more_than_asked_and_the_index_finds_every_tensor(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.full(25, i, np.float32) for i in range(7)}  # 100 bytes each
    names = write(tmp_path, tensors, max_shard_bytes=250)
    assert names == [f"model-{i:05d}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == 700
    for name, shard in index["weight_map"].items():
        np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / shard)[name], tensors[name])
    for name, array in map_tensors(read_index(tmp_path)):
        np.testing.assert_array_equal(array, tensors[name])


def test_saving_again_removes_the_weight_files_of_the_earlier_save(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.full(25, i, np.float32) for i in range(4)}
    (tmp_path / "notes.safetensors").write_bytes(b"mine")
    for limit, expected in ((100, 5), (None, 1), (200, 3)):
        write(tmp_path, tensors, max_shard_bytes=limit)
        assert len(list(tmp_path.glob("model*"))) == expected
        assert dict(map_tensors(read_index(tmp_path))).keys() == tensors.keys()
    assert (tmp_path / "notes.safetensors").read_bytes() == b"mine"


def test_directory_the_tensors_are_mapped_from_can_be_written_to(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.arange(1000, dtype=np.float32)})
    mapped = dict(map_tensors(read_index(tmp_path)))
    write(tmp_path, {"y": mapped["x"], "z": mapped["x"]})
    for array in dict(map_tensors(read_index(tmp_path))).values():
        np.testing.assert_array_equal(array, np.arange(1000, dtype=np.float32))


def test_failed_write_leaves_the_earlier_files_alone(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.ones(3, np.float32)})

    def fail() -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        write(tmp_path, {"x": OutgoingTensor("F32", (3,), fail)})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    np.testing.assert_array_equal(map_tensor(read_index(tmp_path)["x"]), np.ones(3))


HOSTILE = {
    "length beyond the file": (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes"),
    "length zero": (struct.pack("<Q", 0) + b"{}" * 9, "damaged or not a safetensors file"),
    "nothing in it": (b"", "only 0 bytes"),
    "a pointer of git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged or not a safetensors file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_file_that_is_not_safetensors_is_refused(tmp_path: Path, case: str) -> None:
    content, expected = HOSTILE[case]
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_index(tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ([1, 2], "not a JSON object"),
        (b"{not json}", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"x": ' + json.dumps(GOOD).encode() + b', "x": ' + json.dumps(GOOD).encode() + b"}", "'x' twice"),
        ({"x": 7}, "'x': it needs dtype, shape and data_offsets"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "it needs dtype, shape and data_offsets"),
        ({"x": {**GOOD, "dtype": "F33"}}, "dtype 'F33' is not known"),
        ({"x": {**GOOD, "dtype": ["F32"]}}, "is not known"),
        ({"x": {**GOOD, "shape": [-2]}}, "whole numbers from 0"),
        ({"x": {**GOOD, "shape": [2.0]}}, "whole numbers from 0"),
        ({"x": {**GOOD, "shape": [True, 2]}}, "whole numbers from 0"),
        ({"x": {**GOOD, "shape": 2}}, "whole numbers from 0"),
        ({"x": {**GOOD, "data_offsets": [0]}}, "whole numbers from 0"),
        ({"x": {**GOOD, "data_offsets": [8, 0]}}, "lies at bytes 8 to 0"),
        ({"x": {**GOOD, "data_offsets": [0, 16]}}, "the file holds 8 bytes of tensors"),
        ({"x": {**GOOD, "data_offsets": [2**70, 2**70 + 8]}}, "the file holds 8 bytes of tensors"),
        ({"x": {**GOOD, "shape": [3]}}, "takes 12 bytes, not 8"),
        ({"x": {**GOOD, "shape": [2**40, 2**40]}}, "not 8"),
        ({"x": GOOD, "y": GOOD}, "'y' overlaps"),
        ({"x": {**GOOD, "shape": [1], "data_offsets": [4, 8]}}, "'x' leaves a gap"),
        ({"x": {**GOOD, "shape": [1], "data_offsets": [0, 4]}}, "4 bytes at its end belong to no tensor"),
        ({}, "8 bytes at its end belong to no tensor"),
    ],
)
def test_hostile_header_is_refused_naming_file_and_fault(tmp_path: Path, header: object, expected: str) -> None:
    file = save_raw(tmp_path / "model.safetensors", header)
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_index(tmp_path)
    assert str(file) in str(caught.value)
    if "twice" not in expected:  # the library takes the last of two equal names, and refuses all the rest
        with pytest.raises(safetensors.SafetensorError):
            safetensors.numpy.load_file(file)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    content = bytearray(safetensors.numpy.save(some_tensors()))
    content[position % len(content)] = value
    (directory / "model.safetensors").write_bytes(content[: len(content) - cut % len(content)])
    try:
        for name, array in map_tensors(read_index(directory)):
            assert array.nbytes == read_index(directory)[name].num_bytes
    except CheckpointError as error:
        assert str(directory) in str(error)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"x": "../outside.safetensors"}}, "plain file name"),
        ({"weight_map": {"x": "/etc/passwd"}}, "plain file name"),
        ({"weight_map": {"x": "..\\outside.safetensors"}}, "plain file name"),
        ({"weight_map": {"x": 3}}, "plain file name"),
        ({"weight_map": {"x": ".."}}, "plain file name|is missing"),
        ({"weight_map": {"x": "absent.safetensors"}}, "absent.safetensors is missing"),
        ({"weight_map": {"y": "one.safetensors"}}, "disagree: it places 'w' in no shard"),
        ({"weight_map": {"y": "one.safetensors", "z": "one.safetensors"}}, "'z' in one.safetensors.*none of them"),
    ],
)
def test_index_that_lies_is_refused(tmp_path: Path, index: dict[str, object], expected: str) -> None:
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    zeros = np.zeros(2, np.float32)
    safetensors.numpy.save_file({"w": zeros, "y": zeros}, tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match=expected):
        read_index(tmp_path)


def test_directory_with_only_a_pickle_says_why_it_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(CheckpointError, match=r"only pytorch_model.bin.*runs the code"):
        read_index(tmp_path)


def test_directory_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"It holds config\.json"):
        read_index(tmp_path)


def test_json_files_keep_their_content_and_bad_ones_are_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write_json(file, {"name": "caf\u00e9", "list": [1, 2.5, None]})
    assert read_json(file) == {"name": "caf\u00e9", "list": [1, 2.5, None]}
    for content, expected in ((b"{", "not valid JSON"), (b"[]", "holds a list"), (b"\xff", "not valid JSON")):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=expected) as caught:
            read_json(file)
        assert str(file) in str(caught.value)
    with pytest.raises(CheckpointError, match="is missing"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("size", "expected"), [(7, 7), ("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), ("200kb", 200_000), ("1TB", 10**12)]
)
def test_sizes_are_read_as_people_write_them(size: int | str, expected: int) -> None:
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", [0, -1, True, "5", "GB", "0GB", "five GB", ""])
def test_size_that_is_none_is_refused(size: int | str) -> None:
    with pytest.raises(InputError, match="'5GB'"):
        parse_size(size)


def test_array_that_safetensors_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'words' is of numpy type"):
        write(tmp_path, {"words": np.array(["a"])})
