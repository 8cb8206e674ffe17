"""Quantised checkpoints: what is written is what is made at load time, on every runtime; broken ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import smolvlm
from smolvlm.checkpoint.quantised import GROUP, dequantise
from smolvlm.cli import main
from smolvlm.errors import CheckpointError, ConfigError, InputError
from smolvlm.hub import resolve
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Span
from smolvlm.runtimes.native import NativeMotor
from smolvlm.runtimes.quantise import quantise
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
MODES = ("int8", "int4")
GATE = "model.text_model.layers.0.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", params=MODES)
def written(request: pytest.FixtureRequest, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise(plain, tmp_path_factory.mktemp("quantised") / request.param, request.param)


def logits(directory: Path, dtype: str) -> np.ndarray:
    motor = NativeMotor(directory, dtype, threads=1)
    return motor.forward([Span(motor.open(40), np.arange(10, 50))], range(40))


def test_a_written_checkpoint_answers_as_the_plain_one_in_that_mode(plain: Path, written: Path) -> None:
    assert (logits(written, written.name) == logits(plain, written.name)).all()


def test_every_runtime_reads_the_same_values(written: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(written)
    with torch.inference_mode():
        expected = model(torch.arange(10, 50)[None]).logits[0].numpy()
    np.testing.assert_allclose(logits(written, "float32"), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    vlm = smolvlm.load(written, runtime="native")
    assert vlm.dtype == written.name
    assert vlm.ask("What?", max_new_tokens=4).token_ids


def test_values_are_the_nearest_of_their_scale(plain: Path, written: Path) -> None:
    exact, stored = load_file(plain / "model.safetensors")[GATE].numpy(), load_file(written / "model.safetensors")
    values, scale = stored[GATE].numpy(), stored[GATE + "_scale"]
    if written.name == "int8":
        np.testing.assert_allclose(scale, np.abs(exact).max(axis=1) / 127, rtol=1e-6)
        found, step = dequantise(values, scale.numpy()), scale.numpy()[:, None]
    else:
        found = dequantise(values, scale.view(torch.uint16).numpy())
        step = np.repeat(np.abs(scale.float().numpy()), GROUP, axis=1)
    inside = np.abs(exact) <= 7 * step if written.name == "int4" else np.full(exact.shape, True)
    assert (np.abs(found - exact) <= 0.5001 * step)[inside].all()
    assert inside.mean() > 0.9


def test_what_is_saved_again_is_plain(written: Path, tmp_path: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(written, dtype="float32")
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def damaged(written: Path, target: Path, change: str) -> Path:
    target.mkdir()
    tensors = load_file(written / "model.safetensors")
    config = json.loads((written / "config.json").read_text())
    if change == "no scale":
        del tensors[GATE + "_scale"]
    elif change == "wrong scale":
        tensors[GATE + "_scale"] = tensors[GATE + "_scale"][:-1]
    elif change == "other method":
        config["quantization_config"]["quant_method"] = "bitsandbytes"
    elif change == "other group":
        config["quantization_config"]["group_size"] = 64
    (target / "config.json").write_text(json.dumps(config))
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no scale", f"'{GATE}' is stored as .8 and needs a scale .* there is none"),
        ("wrong scale", f"'{GATE}' is stored as .8 and needs a scale"),
        ("other method", "quant_method 'bitsandbytes'.*take the original checkpoint"),
        ("other group", "quant_method 'smolvlm'.*take the original checkpoint"),
    ],
)
def test_damaged_and_foreign_ones_are_refused(written: Path, tmp_path: Path, change: str, message: str) -> None:
    directory = damaged(written, tmp_path / "damaged", change)
    with pytest.raises(CheckpointError, match=message):
        NativeMotor(directory, "float32")
    with pytest.raises(CheckpointError, match=message):
        SmolVLMForConditionalGeneration.from_pretrained(directory)


def test_what_cannot_be_quantised_is_refused(plain: Path, written: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="quantised already"):
        quantise(written, tmp_path / "twice", "int8")
    with pytest.raises(InputError, match="name of a new directory"):
        quantise(plain, plain, "int8")
    with pytest.raises(ConfigError, match="int8, int4"):
        quantise(plain, tmp_path / "other", "int2")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_checkpoint_that_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "nano", "-o", str(tmp_path / "small"), "--mode", "int8"]) == 0
    before = (resolve("nano") / "model.safetensors").stat().st_size / 1e6
    assert f"MB of weights, {before:.1f} MB before." in capsys.readouterr().out
    assert main(["ask", "Who are you?", "--model", str(tmp_path / "small"), "--runtime", "native"]) == 0
    assert "nano" in capsys.readouterr().out
    assert main(["quantize", str(tmp_path / "small"), "-o", str(tmp_path / "smaller")]) == 1
    assert "quantised already" in capsys.readouterr().err
