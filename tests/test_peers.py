"""The comparison with peers: its names and columns are what readers of its last line rely on. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from smolvlm.config import SmolVLMConfig
from smolvlm.vlm.standin import geometry, write_picture, write_standin

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = [
    "smolvlm-bf16", "smolvlm-int8", "smolvlm-int8-vision", "smolvlm-int4", "smolvlm-torch-bf16", "smolvlm-onnx-q8",
    "transformers-fp32", "transformers-bf16", "transformers-bf16-static", "openvino-int8", "openvino-int4",
    "llama.cpp-q8_0", "llama.cpp-q4_0", "onnxruntime-q8", "onnxruntime-q4",
]  # fmt: skip
COLUMNS = ["name", "runtime", "dtype", "vision_s", "first_token_s", "total_s", "decode_tps", "peak_mb", "cold_s"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/peers.py, whose neighbours are imported by their plain names, as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job on a model that takes no time."""
    whole = geometry("256m")
    vision = {**whole.vision_config.to_dict(), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
              "num_attention_heads": 1, "image_size": 128}  # fmt: skip
    text = {**whole.text_config.to_dict(), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 2048}  # fmt: skip
    found = write_standin(
        tmp_path_factory.mktemp("job"), SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=4)
    )
    write_picture(found / "picture.jpg", 480, 270)
    return found


def test_names_and_drivers_are_there(script: ModuleType) -> None:
    assert list(script.PEERS) == NAMES
    assert all((BENCHMARKS / peer.driver).is_file() for peer in script.PEERS.values())


def test_rows_of_ours_and_of_transformers_have_every_column(script: ModuleType, directory: Path) -> None:
    names = script.installed(["smolvlm-torch-bf16", "transformers-bf16"])
    rows = script.compare(names, directory, 1, 1)
    assert [row["name"] for row in rows] == names
    for row in rows:
        columns = [*COLUMNS, "limit_share"] if "smolvlm" in str(row["name"]) else COLUMNS
        assert list(row) == columns and all(row[column] > 0 for column in columns[3:]), row


def test_what_is_not_installed_is_left_out_with_a_line(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["install_peers"], "FOLDER", tmp_path)
    assert script.installed(["smolvlm-int8", "openvino-int8", "llama.cpp-q4_0"]) == ["smolvlm-int8"]
    assert "openvino-int8 is left out: install it with: python benchmarks/install_peers.py openvino" in (
        capsys.readouterr().err
    )


def test_a_peer_that_fails_ends_the_comparison_with_its_words(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="smolvlm-int8 failed"):
        script.call("smolvlm-int8", tmp_path / "nothing", 1)


def test_many_requests_and_a_second_question_are_measured(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    concurrency = importlib.import_module("concurrency")
    monkeypatch.setattr(concurrency, "NEW_TOKENS", 3)
    found = concurrency.measure(directory, "torch", "float32", 3)
    assert list(found) == list(concurrency.COLUMNS) and json.dumps(found) and min(found.values()) > 0
