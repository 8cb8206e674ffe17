"""Memory told beforehand: held to real processes, refused where there is too little, flat in the number of tiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import smolvlm
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import ConfigError, MemoryBudgetError
from smolvlm.processing import processor
from smolvlm.runtimes import machine
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.memory import native_slot, weight_bytes
from smolvlm.runtimes.native import MODES, NativeMotor
from smolvlm.vlm import load
from smolvlm.vlm.memory import stored_tensors
from smolvlm.vlm.standin import geometry, write_picture, write_standin
from tests.commands import run
from tests.tiny import tiny_checkpoint

BUILT = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system tells what a process holds on Linux only")
PEAK = """
import sys
from smolvlm.cli import main
from smolvlm.runtimes.machine import peak_memory
code = main(sys.argv[1:])
print(f"\\n{peak_memory()}")
sys.exit(code)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 31 million weights, large enough to be seen beside Python, and a picture of 13 tiles."""
    config = SmolVLMConfig(
        vision_config={**geometry("256m").vision_config.to_dict(), "num_hidden_layers": 2, "image_size": 128},
        text_config={**geometry("256m").text_config.to_dict(), "num_hidden_layers": 3, "vocab_size": 8192},
        scale_factor=4,
    )
    written = write_standin(tmp_path_factory.mktemp("standin"), config)
    write_picture(written / "picture.jpg", 480, 270)
    return written


@LINUX
@BUILT
@pytest.mark.parametrize(("runtime", "dtype"), [("native", "float32"), ("native", "int8"), ("torch", "float32")])
def test_a_process_holds_what_was_predicted(standin: Path, runtime: str, dtype: str) -> None:
    words = [str(standin / "picture.jpg"), "-q", "What is it?", "--detail", "high", "--max-new-tokens", "8"]
    words += ["--model", str(standin), "--runtime", runtime, "--dtype", dtype, "--json"]
    told = json.loads(child("-m", "smolvlm", "tokens", *words, "--memory"))["memory"]
    held = int(child("-c", PEAK, "ask", *words).splitlines()[-1])
    assert told["fits"] and told["peak"] == pytest.approx(held, rel=0.15), told


def child(*words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@BUILT
@pytest.mark.parametrize("mode", MODES)
def test_what_the_native_motor_keeps_is_what_its_rule_says(standin: Path, mode: str) -> None:
    motor = NativeMotor(standin, mode)
    kept = sum(array.nbytes for array in motor._weights.kept if isinstance(array, np.ndarray))
    told, _ = weight_bytes("native", motor.config, stored_tensors(standin, motor.config), mode)
    assert told == pytest.approx(kept, rel=0.02)
    assert native_slot(motor.config, mode, 300) == motor.slot_bytes(300)


@pytest.mark.parametrize("runtime", ["torch", pytest.param("native", marks=BUILT)])
def test_a_request_that_does_not_fit_is_refused_before_a_picture_is_opened(
    directory: Path, tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load(directory, runtime=runtime)
    picture = write_picture(tmp_path / "picture.jpg", 200, 100)
    monkeypatch.setattr(machine, "free_memory", lambda: 50_000)
    monkeypatch.setattr(processor, "decode", lambda *_: pytest.fail("opened"))
    for ask in (lambda: vlm.ask("What?", images=[picture]), lambda: vlm.encode(images=[picture])):
        with pytest.raises(
            MemoryBudgetError, match=r"needs about \d+ MB of memory \(\d+ tiles.* and 0 MB are free: use"
        ):
            ask()


@pytest.mark.parametrize("runtime", ["torch", pytest.param("native", marks=BUILT)])
def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    directory: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 100_000)
    with pytest.raises(MemoryBudgetError, match="weights in float32 need .* free: use a dtype of fewer bits"):
        load(directory, runtime=runtime, device="cpu")


def test_nothing_is_refused_where_the_system_does_not_tell(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert load(directory).ask("Who are you?", max_new_tokens=2).token_ids
    assert machine.available_memory() > 0


def test_copies_of_files_in_a_container_can_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "limit", tmp_path / "used"
    limit.write_text("3000000\n")
    used.write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 1500000\ninactive_file 300000\nactive_file 200000\n")
    monkeypatch.setattr(machine, "CONTAINER", ((str(limit), str(used)),))
    assert machine.free_memory() == 1_500_000


def test_torch_looks_at_many_tiles_a_few_at_a_time(directory: Path) -> None:
    motor = load(directory, runtime="torch", device="cpu")._driver.motor
    seen: list[int] = []
    motor.model.model.vision_model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))  # type: ignore[attr-defined]
    pixels = np.random.default_rng(0).standard_normal((64, 3, 32, 32), np.float32)
    features = motor.encode(pixels)
    assert seen == [16] * 4  # 64 patches a tile
    np.testing.assert_allclose(features[17:19], motor.encode(pixels[17:19]), atol=1e-5)


# ---- the command and the preview ----


def test_tokens_shows_memory_and_whether_it_fits(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tokens", str(write_picture(tmp_path / "picture.jpg", 200, 100)), "--memory", "--model", str(directory)]
    words += ["--runtime", "torch", "--device", "cpu"]
    outcome = run(capsys, words)
    assert outcome.code == 0 and "most at one time" in outcome.out and "It fits: " in outcome.out
    found = json.loads(run(capsys, [*words, "--json"]).out)
    assert found["tiles"] > 1 and found["memory"]["peak"] > found["memory"]["program"] > 0
    monkeypatch.setattr(machine, "available_memory", lambda: -machine.resident_memory())
    outcome = run(capsys, words)
    assert outcome.code == 2 and "It doesn't fit: 0 MB are free" in outcome.out


def test_longer_answers_and_more_tiles_take_more(directory: Path) -> None:
    def told(**options: object) -> smolvlm.MemoryReport:
        return smolvlm.preview_memory(directory, "What?", runtime="torch", device="cpu", **options)  # type: ignore[arg-type]

    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    alone, longer, seeing = told(max_new_tokens=8), told(max_new_tokens=1500), told(images=[noise])
    assert alone.tokens < longer.tokens and alone.pictures == alone.vision == 0 < seeing.pictures
    assert seeing.request.tiles > 1 and seeing.fits


def test_what_can_not_be_predicted_is_said(directory: Path) -> None:
    for options in (
        {"runtime": "onnx"},
        {"runtime": "torch", "device": "cuda"},
        {"runtime": "native", "dtype": "int2"},
    ):
        with pytest.raises(ConfigError, match="native and the torch runtime on a CPU"):
            smolvlm.preview_memory(directory, **options)  # type: ignore[arg-type]
