"""`smolvlm bench` and what it is made of. Nothing here depends on how fast this machine is."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from smolvlm.cli import bench
from smolvlm.config import SmolVLMConfig
from smolvlm.runtimes import limits
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.vlm import load, standin
from smolvlm.vlm.measure import work_of
from smolvlm.vlm.memory import stored_tensors
from smolvlm.vlm.standin import geometry, write_picture, write_standin
from tests.commands import run
from tests.tiny import tiny_checkpoint

TINY = ({"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 64, "patch_size": 8}, 4, (64, 64, 1, 1, 1))  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is only large so that it can be timed."""
    monkeypatch.setitem(standin.SIZES, "256m", TINY)
    monkeypatch.setitem(standin.TEXT, "vocab_size", 2048)
    monkeypatch.setattr(limits, "ROWS", 32)
    monkeypatch.setattr(limits, "OUTPUTS", 256)
    monkeypatch.setattr(limits, "READ_BYTES", 2 * limits.READ_PART)
    monkeypatch.setattr(bench, "CONTEXT", 40)


def test_random_weights_are_measured_without_a_download(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, ["bench", "--quick", "--context", "40", "--runtime", "torch", "--device", "cpu", "--json"])
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert (found["model"], found["runtime"]) == ("random weights, 256m", "torch")
    assert found["speed"]["context"] == 40 and found["speed"]["new_tokens"] == bench.QUICK_NEW_TOKENS
    assert min(found["speed"].values()) > 0 and min(found["limits"].values()) > 0 and min(found["shares"].values()) > 0
    if find_spec("transformers") is None:
        assert "isn't installed" in found["transformers"]
    else:
        assert found["transformers"]["decode_tps"] > 0, found["transformers"]


def test_a_model_of_your_own_is_measured_as_a_table(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    outcome = run(capsys, ["bench", "--quick", "--context", "40", "--model", str(tiny_checkpoint(tmp_path))])
    assert (outcome.code, outcome.err) == (0, "")
    for said in ("images/s", "ms a tile", "at 40", "peak memory", "limits, measured", "transformers isn't installed"):
        assert said in outcome.out, outcome.out


def test_a_rival_that_fails_is_told_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = load(tiny_checkpoint(tmp_path))
    picture = write_picture(tmp_path / "picture.jpg", 100, 60)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(bench, "find_spec", lambda name: argparse.Namespace())
    speed = argparse.Namespace(context=8, new_tokens=2)
    said = bench.ask_rival(vlm, tmp_path, picture, "low", speed, tmp_path)  # type: ignore[arg-type]
    assert isinstance(said, str) and said.startswith("transformers failed: ")


def test_the_standin_has_the_vocabulary_of_a_released_model_and_answers_to_the_end(tmp_path: Path) -> None:
    vision, scale, _ = TINY
    text = {**geometry("256m").text_config.to_dict(), "num_hidden_layers": 1, "vocab_size": 49280}
    vlm = load(write_standin(tmp_path, SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale)))
    tokenizer = vlm.processor.tokenizer
    assert tokenizer.backend.get_vocab_size() == 49280
    words = "What is shown? 12 red circles."
    assert tokenizer.encode(words) == load().processor.tokenizer.encode(words)
    answer = vlm.ask("What?", images=[write_picture(tmp_path / "picture.jpg", 100, 60)], max_new_tokens=20)
    assert len(answer.token_ids) == 20 and answer.image_tokens > 0


def test_work_is_counted_by_hand(tmp_path: Path) -> None:
    vision, scale, _ = TINY
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 1024, "pad_token_id": 2}  # fmt: skip
    directory = write_standin(tmp_path, SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale))
    vlm = load(directory, runtime="torch", device="cpu", dtype="float32")
    work = work_of(vlm, stored_tensors(directory, vlm.config), 10)
    assert work is not None and (work.vision_dtype, work.text_dtype) == ("float32", "float32")
    tower = 4 * 32 * 32 + 2 * 32 * 64 + 2 * 64 * 32  # weights of a layer, and attention over 64 patches
    assert work.tile_operations == 2 * 64 * (tower + 3 * 64 * 32 + 32 * 64)
    layer = 64 * (2 * 64 + 2 * 32 + 3 * 128)
    assert work.prompt_operations == 2 * 10 * (layer + 10 * 64)
    assert work.token_bytes == 4 * (layer + 2 * 64 + 1024 * 64) + 2 * 32 * 10 * 4  # two norms; keys and values


@pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
def test_the_native_rate_is_measured_in_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("ROWS", 40), ("INPUTS", 64), ("OUTPUTS", 128)):
        monkeypatch.setattr(limits, name, size)
    assert all(limits.multiply_rate(name) > 0 for name in limits.FORMATS)
