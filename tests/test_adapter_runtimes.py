"""An adapter merged while weights are read: every runtime equals the PyTorch model with the unmerged one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm import LoraConfig, SmolVLMForConditionalGeneration, load_adapter
from smolvlm.cli import main
from smolvlm.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError
from smolvlm.export import export_onnx
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Motor, Span
from smolvlm.runtimes.native import NativeMotor
from smolvlm.runtimes.onnx import OnnxMotor
from smolvlm.runtimes.quantise import quantise
from smolvlm.runtimes.torch import TorchMotor
from tests.adapted import teach
from tests.tiny import tiny_checkpoint

needs_kernels = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
RUNTIMES = ["torch", pytest.param("native", marks=needs_kernels), "onnx"]
CONFIGS = {
    "LoRA": LoraConfig(r=4, lora_alpha=8),
    "DoRA": LoraConfig(["text", "vision.fc1", "lm_head"], r=4, use_dora=True),
    "whole parts": LoraConfig("vision", modules_to_save=["connector", "embed_tokens", "model.text_model.norm"]),
}
PIXELS = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
IDS = np.random.default_rng(1).integers(10, 500, 20)
BOUND = 5e-5  # of the largest value: the runtimes' own 2e-5 in float32, and the merged sum in another order


@pytest.fixture(scope="module", params=[False, True], ids=["", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), tie_word_embeddings=request.param)


@pytest.fixture(scope="module", params=CONFIGS)
def adapter(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("adapter"), base, CONFIGS[request.param])


def write(directory: Path, base: Path, config: LoraConfig) -> Path:
    model = SmolVLMForConditionalGeneration.from_pretrained(base)
    teach(smolvlm.add_adapter(model, config)).save(directory)
    return directory


def motor_of(runtime: str, base: Path, adapter: Path | None, dtype: str = "float32") -> Motor:
    if runtime == "native":
        return NativeMotor(base, dtype, threads=1, adapter=adapter)
    if runtime == "onnx":
        return OnnxMotor(base, dtype, threads=1, adapter=adapter)
    return TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(base, dtype=dtype, adapter=adapter))


def run(motor: Motor) -> list[np.ndarray]:
    """Features of two tiles, and logits of a prompt."""
    slot = motor.open(len(IDS))
    features = motor.encode(PIXELS)
    features = features.float().numpy() if isinstance(features, torch.Tensor) else features
    return [features, motor.forward([Span(slot, IDS)], range(len(IDS)))]


def assert_near(found: list[np.ndarray], expected: list[np.ndarray], bound: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= bound * np.abs(other).max()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_merged_at_loading_equals_unmerged(runtime: str, base: Path, adapter: Path) -> None:
    unmerged = SmolVLMForConditionalGeneration.from_pretrained(base)
    without = run(TorchMotor(unmerged))
    load_adapter(unmerged, adapter)
    expected = run(TorchMotor(unmerged))
    assert np.abs(expected[1] - without[1]).max() > 0.02 * np.abs(without[1]).max()
    assert_near(run(motor_of(runtime, base, adapter)), expected, BOUND)


@pytest.mark.parametrize(
    ("runtime", "dtype"),
    [
        ("torch", "bfloat16"),
        *(pytest.param("native", mode, marks=needs_kernels) for mode in ("bfloat16", "int8", "int8-vision", "int4")),
        *(("onnx", dtype) for dtype in ("float16", "int8", "int4")),
    ],
)
def test_rounding_and_quantising_come_after_merging(runtime: str, dtype: str, tmp_path: Path) -> None:
    """The same as of a checkpoint into which the adapter was merged before, in float32."""
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["DoRA"])
    merged = SmolVLMForConditionalGeneration.from_pretrained(base, adapter=adapter)
    merged.save_pretrained(tmp_path / "merged")
    expected = run(motor_of(runtime, tmp_path / "merged", None, dtype))
    assert_near(run(motor_of(runtime, base, adapter, dtype)), expected, 0)


@needs_kernels
def test_an_adapter_goes_onto_a_quantised_checkpoint(tmp_path: Path) -> None:
    """Its values are the base then: exactly so in float32."""
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["DoRA"])
    for mode in ("int8", "int4"):
        small = quantise(base, tmp_path / mode, mode)
        unmerged = SmolVLMForConditionalGeneration.from_pretrained(small)
        load_adapter(unmerged, adapter)
        expected = run(TorchMotor(unmerged))
        for runtime in ("torch", "native", "onnx"):
            assert_near(run(motor_of(runtime, small, adapter)), expected, BOUND)


# ---- from the front doors ----


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_loaded_vlm_answers_with_its_adapter(
    runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["LoRA"])
    picture = Image.radial_gradient("L").resize((50, 40))
    picture.save(tmp_path / "picture.png")
    model = SmolVLMForConditionalGeneration.from_pretrained(base)
    expected = []
    for given in (None, adapter):
        if given is not None:
            load_adapter(model, adapter).merge()
        model.save_pretrained(base)
        plain = smolvlm.load(base, runtime="torch", dtype="float32")
        expected.append(plain.ask("What is this?", images=[picture], max_new_tokens=8).text)
        if given is None:
            shutil.copytree(base, tmp_path / "plain")
    assert expected[0] != expected[1]
    vlm = smolvlm.load(tmp_path / "plain", runtime=runtime, dtype="float32", adapter=adapter)
    assert vlm.ask("What is this?", images=[picture], max_new_tokens=8).text == expected[1]
    command = ["ask", str(tmp_path / "picture.png"), "What is this?", "--model", str(tmp_path / "plain"), "--json"]
    options = ["--runtime", runtime, "--dtype", "float32", "--max-new-tokens", "8"]
    for added, answer in zip(([], ["--adapter", str(adapter)]), expected, strict=True):
        assert main([*command, *options, *added]) == 0
        assert json.loads(capsys.readouterr().out)["answer"] == answer


@pytest.mark.parametrize("runtime", ["native", "onnx"])
def test_merging_loads_no_torch(runtime: str, tmp_path: Path) -> None:
    if runtime == "native" and not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["DoRA"])
    program = (
        f"import sys, smolvlm; vlm = smolvlm.load({str(base)!r}, runtime={runtime!r}, adapter={str(adapter)!r}); "
        "vlm.ask('?', max_new_tokens=2); smolvlm.LoraConfig(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_features_belong_to_the_adapter_that_they_were_seen_with(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    seeing = write(tmp_path / "seeing", base, LoraConfig("connector", r=2))
    speaking = write(tmp_path / "speaking", base, LoraConfig("text", r=2))
    plain, other, same = (
        smolvlm.load(base, runtime="torch", dtype="float32", adapter=one) for one in (None, seeing, speaking)
    )
    features = plain.encode(images=[Image.new("RGB", (32, 32), "red")])
    assert same.ask("?", features=features, max_new_tokens=1).token_ids
    with pytest.raises(InputError, match="other weights"):
        other.ask("?", features=features, max_new_tokens=1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_adapter_that_does_not_fit_is_refused_by_every_runtime(runtime: str, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    config = LoraConfig("text", r=2, base_model_name_or_path="owner/tiny")
    adapter = write(tmp_path / "adapter", base, config)
    with pytest.raises(
        CheckpointError, match="(?s)don't fit.* 28 of another shape: .*It was made for owner/tiny: load that model"
    ):
        smolvlm.load(runtime=runtime, adapter=adapter)
    with pytest.raises(ModelNotFoundError, match="^The adapter can't be found: There is no directory (?!.*bundled)"):
        smolvlm.load(base, runtime=runtime, adapter="nowhere")
    with pytest.raises(CheckpointError, match="is no adapter"):
        smolvlm.load(base, runtime=runtime, adapter=base)


def test_graphs_of_an_export_take_no_adapter(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["LoRA"])
    export_onnx(base, tmp_path / "export", ["fp32"])
    with pytest.raises(ConfigError, match="no adapter can be merged"):
        smolvlm.load(tmp_path / "export", adapter=adapter)


def test_a_part_of_the_model_takes_no_adapter(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    adapter = write(tmp_path / "adapter", base, CONFIGS["LoRA"])
    with pytest.raises(InputError, match="needs the whole model"):
        smolvlm.SmolVLMModel.from_pretrained(base, adapter=adapter)
    whole = smolvlm.AutoModelForImageTextToText.from_pretrained(base, adapter=adapter)
    assert torch.isfinite(whole(torch.tensor([[5, 6]])).logits).all()
