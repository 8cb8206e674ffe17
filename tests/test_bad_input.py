"""Everything a user may give that can't be used: a typed error from the library, one line and exit code 2 (or 1, for a
damaged checkpoint) from the command line, and an answer with a warning where something can still be seen.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from smolvlm.errors import (
    CheckpointError,
    ContextLengthError,
    FetchError,
    ImageError,
    InputError,
    ModelNotFoundError,
    SmolVLMError,
    VideoError,
)
from smolvlm.vlm import VLM, load
from tests.commands import run
from tests.tiny import tiny_checkpoint
from tests.videos import write_sound, write_video


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return load(directory)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def truncated_jpeg(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    return written(folder / "cut.jpg", whole.getvalue()[: len(whole.getvalue()) // 2])


def bomb(folder: Path) -> Path:
    """A PNG whose header promises 40000 x 40000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return written(folder / "bomb.png", b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82")


def truncated_mp4(folder: Path) -> Path:
    content = write_video(folder / "whole.mp4").read_bytes()
    return written(folder / "cut.mp4", content[: len(content) // 3])  # the index lies at the end and is gone


PICTURES: dict[str, Callable[[Path], Path]] = {
    "a truncated JPEG": truncated_jpeg,
    "text named .png": lambda folder: written(folder / "text.png", b"just some words"),
    "a file of zero bytes": lambda folder: written(folder / "empty.png", b""),
    "a decompression bomb": bomb,
    "SVG": lambda folder: written(folder / "drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
    "EPS": lambda folder: written(folder / "drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
}
VIDEOS: dict[str, Callable[[Path], Path]] = {
    "a truncated MP4": truncated_mp4,
    "sound without pictures": lambda folder: write_sound(folder / "sound.mp4"),
    "text named .mp4": lambda folder: written(folder / "text.mp4", b"just some words"),
}
ADDRESSES = ["https://example.com/cat.png", "file:///etc/hostname", "ftp://example.com/cat.png"]
GUARDED = [
    "http://127.0.0.1:9/cat.png",
    "http://169.254.169.254/latest",
    "http://[::1]/cat.png",
    "http://10.0.0.1/a.png",
]


@pytest.mark.parametrize("what", [*PICTURES, *VIDEOS])
def test_a_file_that_cannot_be_used_is_refused(
    what: str, tmp_path: Path, vlm: VLM, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (PICTURES | VIDEOS)[what](tmp_path)
    with pytest.raises(ImageError if what in PICTURES else VideoError, match=file.name):
        vlm.ask("What?", **{"images" if what in PICTURES else "videos": [file]})  # type: ignore[arg-type]
    outcome = run(capsys, ["ask", str(file), "What?", "--model", str(directory)])
    assert file.name in outcome.error and outcome.code == 2


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_refused_unless_allowed(
    address: str, vlm: VLM, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FetchError):
        vlm.ask("What?", images=[address])
    outcome = run(capsys, ["ask", address, "What?", "--model", str(directory)])
    assert outcome.code == 2 and outcome.error


@pytest.mark.parametrize("address", [*GUARDED, *ADDRESSES[1:]])
def test_allowed_addresses_are_fetched_under_guard(
    address: str, vlm: VLM, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FetchError):
        vlm.ask("What?", images=[address], allow_url=True)
    outcome = run(capsys, ["ask", address, "What?", "--allow-url", "--model", str(directory)])
    assert outcome.code == 2 and outcome.error


def test_a_video_with_a_broken_tail_is_answered_from_what_decodes(
    tmp_path: Path, vlm: VLM, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=60, rate=10, options={"g": "5"})
    content = whole.read_bytes()
    broken = written(tmp_path / "broken.mkv", content[: int(len(content) * 0.7)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = vlm.ask("What?", videos=[broken], fps=2, max_new_tokens=3)
    assert [str(warning.message) for warning in caught if "broken.mkv" in str(warning.message)]
    assert len(answer.frames[0].indices) > 0
    assert max(answer.frames[0].indices) < 60
    words = ["ask", str(broken), "What?", "--fps", "2", "--max-new-tokens", "3", "--model", str(directory)]
    outcome = run(capsys, words)
    assert outcome.code == 0 and outcome.out == answer.text + "\n"
    assert outcome.err.startswith("smolvlm: warning: ") and "broken.mkv" in outcome.err


def test_more_pictures_than_the_context_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tiny_checkpoint(tmp_path / "small", context=256)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    words = ["ask", *[str(tmp_path / "red.png")] * 40, "What?", "--model", str(small)]
    outcome = run(capsys, words)
    assert outcome.code == 2 and "of 40 pictures and videos fit" in outcome.error
    with pytest.raises(ContextLengthError):
        load(small).ask("What?", images=[tmp_path / "red.png"] * 40)


@pytest.mark.parametrize("name", ["nobody/nothing-like-this", "no such model", "./away"])
def test_a_model_that_does_not_exist(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError):
        load(name, local_files_only=True)
    outcome = run(capsys, ["ask", "What?", "--offline", "--model", name])
    assert outcome.code == 2 and name.removeprefix("./") in outcome.error


@pytest.mark.parametrize("damage", ["missing", "misshaped", "unexpected"])
def test_a_checkpoint_with_a_wrong_tensor(
    damage: str, tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(directory, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    key = "model.text_model.norm.weight"
    if damage == "missing":
        del tensors[key]
    elif damage == "misshaped":
        tensors[key] = tensors[key][:-1]
    else:
        key = "model.text_model.norm.extra"
        tensors[key] = np.zeros(3, np.float32)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=key):
        load(copy)
    outcome = run(capsys, ["ask", "What?", "--model", str(copy)])
    assert outcome.code == 1 and key in outcome.error


def test_a_config_that_is_no_json(tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(directory, tmp_path / "copy")
    (copy / "config.json").write_text("{")
    outcome = run(capsys, ["ask", "What?", "--model", str(copy)])
    assert outcome.code == 1 and "config.json" in outcome.error


def test_an_unknown_keyword_is_named_with_the_nearest_known(vlm: VLM) -> None:
    for method in (vlm.ask, vlm.stream, vlm.decide, vlm.tokens):
        with pytest.raises(InputError, match="has no option 'imags'. Did you mean 'images'"):
            method("What?", imags=["a.png"])  # type: ignore[arg-type]


def test_every_error_is_of_the_tree_and_of_the_builtin_kind_it_is() -> None:
    for error, builtin in ((ImageError, ValueError), (ContextLengthError, ValueError), (ModelNotFoundError, OSError)):
        assert issubclass(error, SmolVLMError) and issubclass(error, builtin)


def test_json_output_stays_empty_on_failure(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, ["ask", "nowhere.png", "What?", "--json", "--model", str(directory)])
    assert outcome.error and outcome.code == 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(outcome.out)
