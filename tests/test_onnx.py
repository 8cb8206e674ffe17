"""The motor on ONNX Runtime: towers, slots and the engine against the PyTorch model and the plain loop; loading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smolvlm.cli import main
from smolvlm.errors import CheckpointError, ConfigError, InputError, MissingDependencyError
from smolvlm.export import export_onnx
from smolvlm.generation.generate import generate
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes import onnx as onnx_motor
from smolvlm.runtimes.motor import Span
from smolvlm.runtimes.onnx import DTYPES, OnnxMotor
from smolvlm.types import SamplingParams
from smolvlm.vlm import VLM, load
from tests.motors import (
    copies_a_prefix,
    forgets_what_was_set_back,
    holds_sequences_apart,
    holds_towers,
    odd_config,
    question,
    read_all,
    write,
)
from tests.tiny import tiny_checkpoint, tiny_config
from tests.tiny_batches import request as tiny_request
from tests.tiny_batches import tiny_model

# As in tests/test_graphs.py: shares of the largest value.
BOUNDS = {"float32": 2e-5, "float16": 5e-3, "int8": 0.06, "int4": 0.5, "int4-float16": 0.5}


@pytest.fixture(scope="module", params=["tiny", "odd"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config() if request.param == "tiny" else odd_config()
    return write(tmp_path_factory.mktemp("onnx") / request.param, config)


@pytest.fixture(scope="module")
def motor(directory: Path) -> OnnxMotor:
    return OnnxMotor(directory, "float32", threads=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_towers_equal_the_pytorch_model(directory: Path, dtype: str) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(directory)
    holds_towers(OnnxMotor(directory, dtype, threads=1), model, BOUNDS[dtype])


def test_sequences_read_together_equal_each_alone(motor: OnnxMotor) -> None:
    holds_sequences_apart(motor)


def test_slots_that_are_idle_keep_what_they_hold_even_when_they_are_full(tmp_path: Path) -> None:
    motor = OnnxMotor(write(tmp_path / "m", tiny_config(context=256)), threads=1)
    slots = [motor.open(256) for _ in range(4)]
    ids = np.random.default_rng(0).integers(10, 500, 256)
    for slot in slots[1:3]:
        motor.forward([Span(slot, ids)], [])  # full
    slots[2].length = 200
    for slot in (slots[0], slots[3]):
        motor.forward([Span(slot, ids[:5])], [])
    for token in range(3):
        motor.forward([Span(slots[0], ids[token : token + 1]), Span(slots[3], ids[token : token + 1])], [0, 1])
    expected = read_all(motor, ids, (200, 56))
    slots[1].length = 255
    logits = motor.forward([Span(slots[1], ids[255:])], [0])
    np.testing.assert_allclose(logits[0], expected[-1], rtol=0, atol=2e-5 * np.abs(expected).max())
    logits = motor.forward([Span(slots[2], ids[200:])], [55])
    np.testing.assert_allclose(logits[0], expected[-1], rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_slot_that_is_set_back_forgets_what_came_later(motor: OnnxMotor) -> None:
    forgets_what_was_set_back(motor)


@pytest.mark.parametrize("tokens", [1, 64, 101])
def test_a_copied_prefix_goes_on_as_the_original(motor: OnnxMotor, tokens: int) -> None:
    copies_a_prefix(motor, tokens)


def test_rows_are_used_again(motor: OnnxMotor) -> None:
    for _ in range(20):
        slot = motor.open(2000)
        motor.forward([Span(slot, np.arange(10, 15))], [])
        del slot
    assert len(motor._slabs[2048].arrays[0]) == onnx_motor.FIRST_ROWS
    assert motor.slot_bytes(2000) == sum(array[0].nbytes for array in motor._slabs[2048].arrays)


# ---- lower precision: the same tokens but where two are as near as the error of the logits ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_tokens_part_only_where_two_are_near(tmp_path: Path, dtype: str) -> None:
    motor = OnnxMotor(tiny_checkpoint(tmp_path), dtype, threads=1)
    parted, steps = 0, 0
    for seed in range(6):
        batch = tiny_request(seed, text=20, tiles=seed % 3)
        ids = batch["input_ids"][0].numpy()
        pictures = None
        if "pixel_values" in batch:
            pictures = motor.encode(batch["pixel_values"][0].numpy()).reshape(-1, 64)
        (answer,) = generate(tiny_model(), batch, SamplingParams(max_new_tokens=12), eos_token_ids=())
        whole = {**batch, "input_ids": torch.tensor([[*ids, *answer.token_ids]])}
        with torch.inference_mode():
            expected = tiny_model()(**whole).logits[0, len(ids) - 1 : -1].numpy()
        slot = motor.open(64)
        found = [motor.forward([Span(slot, ids, pictures)], [len(ids) - 1])[0]]
        found += [motor.forward([Span(slot, np.array([token]))], [0])[0] for token in answer.token_ids[:-1]]
        errors = np.abs(np.array(found) - expected)
        assert errors.max() < BOUNDS[dtype] * np.abs(expected).max()
        differs = np.array(found).argmax(axis=1) != np.array(answer.token_ids)
        best = np.sort(expected, axis=1)
        assert (best[differs, -1] - best[differs, -2] < 2 * errors.max()).all()
        parted, steps = parted + int(differs.sum()), steps + len(differs)
    print(f"{dtype}: another token at {parted} of {steps} places")
    assert dtype != "float32" or parted == 0


# ---- the whole hall ----


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from smolvlm import hub

    return export_onnx(hub.resolve("nano"), tmp_path_factory.mktemp("export") / "nano", ("q8", "fp32"))


@pytest.fixture(scope="module")
def both() -> tuple[VLM, VLM]:
    return load(runtime="onnx"), load(runtime="torch", dtype="float32")


@pytest.mark.parametrize("skill", ["scene", "pair", "video", "text"])
def test_nano_answers_the_same_with_pytorch(both: tuple[VLM, VLM], skill: str) -> None:
    ours, theirs = both
    requests = [question(skill, index, 24) for index in range(3)]
    expected = [answer.token_ids for answer in theirs.ask_batch(requests)]
    assert [answer.token_ids for answer in ours.ask_batch(requests)] == expected
    assert ours.ask(**requests[0]).token_ids == expected[0]


def test_an_export_answers_as_the_checkpoint_it_was_made_from(both: tuple[VLM, VLM], export: Path) -> None:
    vlm = load(export, dtype="float32")
    assert (vlm.runtime, vlm.device, vlm.dtype) == ("onnx", "cpu", "float32")
    asked = question("scene", 0, 24)
    assert vlm.ask(**asked).token_ids == both[0].ask(**asked).token_ids
    assert vlm.fingerprint() != load(export).fingerprint()
    assert load(export).dtype == "int8"  # what was written first
    ours, theirs = (one.decide("Is it red?", images=asked["images"]) for one in (vlm, both[1]))
    assert ours.probabilities == pytest.approx(theirs.probabilities, rel=1e-3)


@pytest.mark.parametrize("what", ["checkpoint", "export"])
def test_no_torch_is_imported(export: Path, what: str) -> None:
    code = (
        "import sys, smolvlm; from PIL import Image; "
        f"vlm = smolvlm.load({str(export)!r} if {what == 'export'} else None, runtime='onnx');"
        "answer = vlm.ask('What colour is this?', images=[Image.new('RGB', (64, 64), 'red')], max_new_tokens=4);"
        "print('LOADED', sorted({'torch', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ("LOADED []" if what == "export" else "LOADED ['onnx']") in done.stdout, done.stderr


def test_wrong_arguments_are_named(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float32, float16, int8, int4, int4-float16"):
        load(runtime="onnx", dtype="bfloat16")
    with pytest.raises(ConfigError, match="onnx runtime runs on the CPU, not on cuda"):
        load(runtime="onnx", device="cuda")
    with pytest.raises(ConfigError, match="attn_implementation"):
        load(runtime="onnx", attn_implementation="eager")
    with pytest.raises(CheckpointError, match="exported in float32, int8, not in int4.*--dtype q4"):
        load(export, dtype="int4")
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load(export, runtime="torch")
    motor = OnnxMotor(tiny_checkpoint(tmp_path), threads=1)
    with pytest.raises(InputError, match=r"\(2, 3, 64, 64\).*\(tiles, 3, 32, 32\)"):
        motor.encode(np.zeros((2, 3, 64, 64), np.float32))


def test_a_damaged_graph_is_named(export: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "motor_vision.onnx"
    damaged.write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match=r"ONNX Runtime can't read .*motor_vision.onnx"):
        onnx_motor._session(damaged, 1)


def test_without_onnxruntime_the_message_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'smolvlm\[onnx\]'"):
        load(runtime="onnx")


def test_the_command_answers_with_onnx_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (128, 128), "white").save(tmp_path / "p.png")
    asked = ["ask", str(tmp_path / "p.png"), "Who are you?", "--runtime", "onnx", "--dtype", "int8"]
    assert main([*asked, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()
