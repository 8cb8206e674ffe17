"""The native motor: every copy of its kernels against plain arithmetic, whole towers against the PyTorch model."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from smolvlm.checkpoint.shapes import expected_shapes
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import CheckpointError, ConfigError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.vision import position_ids
from smolvlm.runtimes import bindings, native
from smolvlm.runtimes.bindings import BF16, F32, GROUP, INT4, INT8, PANEL, LinearStruct
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.native import MODES, NativeMotor
from tests.motors import (
    copies_a_prefix,
    forgets_what_was_set_back,
    holds_sequences_apart,
    holds_towers,
    odd_config,
    read_all,
    write,
)
from tests.tiny import tiny_config

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")


# ---- products ----


@pytest.fixture(params=["avx512", "avx512vnni", "avxvnni", "avx2", "arm86", "plain"])
def copy_of_kernels(request: pytest.FixtureRequest) -> Iterator[object]:
    """The library with one of its copies chosen."""
    library = bindings.load_kernels()
    if library.sm_choose(request.param.encode()) is None:
        pytest.skip(f"this processor has no {request.param}")
    yield library
    library.sm_choose(None)


def product(library: object, weights: np.ndarray, x: np.ndarray, form: int, int8_inputs: bool = False) -> np.ndarray:
    """y = W x by the kernels. weights: (outputs, inputs), x: (rows, inputs)."""
    outputs, inputs = weights.shape
    pool = library.sm_start(2)
    addresses = weights.ctypes.data + np.arange(outputs, dtype=np.uint64) * np.uint64(weights.strides[0])
    addresses = np.concatenate([addresses, np.zeros(-outputs % PANEL, np.uint64)])
    panels = np.zeros(len(addresses) * inputs * 4, np.uint8)
    scale = np.zeros(len(addresses) * max(1, inputs // GROUP) * 4, np.uint8)
    library.sm_pack(
        pool, form, 0, len(addresses) // PANEL, inputs, addresses.ctypes.data, None, panels.ctypes.data,
        scale.ctypes.data,
    )  # fmt: skip
    linear = LinearStruct(panels.ctypes.data, scale.ctypes.data, None, inputs, outputs, form, int(int8_inputs))
    y = np.full((len(x), outputs), np.nan, np.float32)
    library.sm_multiply(pool, linear, len(x), x.ctypes.data, y.ctypes.data)
    library.sm_stop(pool)
    return y


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (576, 960), (96, 100), (704, 256)])
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 13, 40, 65])
def test_products_equal_plain_arithmetic(copy_of_kernels: object, rows: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((outputs, inputs), np.float32)
    x = rng.standard_normal((rows, inputs), np.float32)
    exact = x.astype(np.float64) @ weights.T
    in_8_bits = x.astype(np.float64) @ _rounded_to_8_bits(weights).T
    size = np.abs(exact).max()
    few = rows <= 8  # activations keep 16 bits, so the rounded weights are all that differs from plain arithmetic
    assert np.abs(product(copy_of_kernels, weights, x, F32) - exact).max() < 5e-6 * size
    assert np.abs(product(copy_of_kernels, weights, x, BF16) - exact).max() < 0.01 * size
    assert np.abs(product(copy_of_kernels, weights, x, INT8) - in_8_bits).max() < (1e-4 if few else 0.01) * size
    assert np.abs(product(copy_of_kernels, weights, x, INT8, True) - in_8_bits).max() < 0.03 * size
    assert np.abs(product(copy_of_kernels, weights, x, INT4) - exact).max() < 0.3 * size


def test_4_bit_weights_are_the_same_for_few_rows_and_for_many(copy_of_kernels: object) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((128, 256), np.float32)
    x = rng.standard_normal((40, 256), np.float32)
    many = product(copy_of_kernels, weights, x, INT4)
    few = np.concatenate([product(copy_of_kernels, weights, x[start : start + 4], INT4) for start in range(0, 40, 4)])
    assert np.abs(many - few).max() < 0.01 * np.abs(many).max()


def test_4_bit_weights_are_near_the_given_ones() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((64, 128), np.float32)
    packed = product(bindings.load_kernels(), weights, np.eye(128, dtype=np.float32)[:12], INT4).T  # (64, 12)
    groups = weights.reshape(64, 4, GROUP)
    step = np.abs(groups).max(axis=2) / 7  # the plain way to choose scales
    plain = (np.rint(groups / step[..., None]) * step[..., None]).reshape(64, 128)
    errors = [np.square(found - weights[:, :12]).mean() for found in (packed, plain[:, :12])]
    assert errors[0] < errors[1]


def _rounded_to_8_bits(weights: np.ndarray) -> np.ndarray:
    step = np.abs(weights).max(axis=1, keepdims=True) / 127
    return np.rint(weights / step) * step


# ---- towers ----


@pytest.fixture(scope="module", params=["tiny", "odd"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config() if request.param == "tiny" else odd_config()
    return write(tmp_path_factory.mktemp("native") / request.param, config)


@pytest.fixture(scope="module")
def model(directory: Path) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(directory)


# How far from the float32 model each mode may be: measured 2e-6, 0.005, 0.02, 0.03, 0.2 of the largest logit.
BOUNDS = {"float32": 2e-5, "bfloat16": 0.02, "int8": 0.06, "int8-vision": 0.06, "int4": 0.5}


@pytest.mark.parametrize("dtype", MODES)
def test_towers_equal_the_pytorch_model(directory: Path, model: SmolVLMForConditionalGeneration, dtype: str) -> None:
    holds_towers(NativeMotor(directory, dtype, threads=2), model, BOUNDS[dtype])


def test_sequences_read_together_equal_each_alone(directory: Path) -> None:
    holds_sequences_apart(NativeMotor(directory, "float32", threads=2))


def test_a_slot_that_is_set_back_forgets_what_came_later(directory: Path) -> None:
    forgets_what_was_set_back(NativeMotor(directory, "float32", threads=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [1, 20, 63, 64, 101])
def test_a_copied_prefix_goes_on_as_the_original(directory: Path, dtype: str, tokens: int) -> None:
    copies_a_prefix(NativeMotor(directory, dtype, threads=1), tokens)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_motor_goes_on_in_a_forked_process(directory: Path) -> None:
    motor = NativeMotor(directory, "float32", threads=2)
    ids = np.arange(10, 40)
    expected = read_all(motor, ids, (30,))
    child = os.fork()
    if not child:
        same = (read_all(motor, ids, (30,)) == expected).all()
        del motor  # stops the threads of this process, and waits for none of the other
        os._exit(0 if same else 1)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
    assert ended and status == 0
    assert (read_all(motor, ids, (30,)) == expected).all()


def test_grids_that_are_left_out_are_those_with_moved_positions() -> None:
    for side in range(1, native.LARGEST_GRID + 1):
        ids = position_ids(torch.ones(1, side, side, dtype=torch.bool), side)[0]
        assert torch.equal(ids, torch.arange(side * side)) == (side not in native.MOVED_GRIDS), side


@pytest.mark.parametrize("tied", [False, True])
def test_expected_shapes_are_those_of_the_module(tied: bool) -> None:
    config = SmolVLMConfig.from_dict(tiny_config(tie_word_embeddings=tied))
    config.text_config.attention_bias = config.text_config.mlp_bias = True
    with torch.device("meta"):
        state = SmolVLMForConditionalGeneration(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert expected_shapes(config) == {
        name: shape for name, shape in shapes.items() if not (tied and "lm_head" in name)
    }


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_every_stored_type_is_read(tmp_path: Path, stored: torch.dtype) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(write(tmp_path / "a", tiny_config())).to(stored)
    model.save_pretrained(tmp_path / "b")
    ids = np.arange(10, 40)
    with torch.inference_mode():
        expected = model.float()(torch.from_numpy(ids)[None]).logits[0].numpy()
    found = read_all(NativeMotor(tmp_path / "b", "float32", threads=1), ids, (30,))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


# ---- what can't be ----


def changed(**fields: object) -> dict[str, object]:
    config = copy.deepcopy(tiny_config())
    for path, value in fields.items():
        part, _, name = path.partition("__")
        config[part] |= {name: value}
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(vision_config__hidden_act="gelu"), "vision hidden_act 'gelu'"),
        (changed(text_config__hidden_act="gelu"), "text hidden_act 'gelu'"),
        (changed(text_config__mlp_bias=True), "biases"),
        (changed(vision_config__image_size=38 * 4), "38 patches a side"),
    ],
)
def test_unusual_models_are_refused_with_the_cure(tmp_path: Path, config: dict[str, object], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"{message}.*runtime='torch'"):
        NativeMotor(tmp_path, "float32")


def test_a_checkpoint_that_does_not_fit_is_told_apart(tmp_path: Path) -> None:
    directory = write(tmp_path / "m", tiny_config())
    tensors = load_file(directory / "model.safetensors")
    tensors["extra"] = tensors.pop("model.text_model.norm.weight")
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: model.text_model.norm.weight\n  1 unexpected: extra"):
        NativeMotor(directory, "bfloat16")


def test_without_built_kernels_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bindings.load_kernels.cache_clear()
    monkeypatch.setattr(bindings, "LIBRARY", tmp_path / "none.so")
    with pytest.raises(ConfigError, match="no C compiler.*runtime='torch'"):
        bindings.load_kernels()
    (tmp_path / "none.so").write_bytes(b"not a library")
    with pytest.raises(ConfigError, match="can't be loaded.*runtime='torch'"):
        bindings.load_kernels()
    bindings.load_kernels.cache_clear()


def test_a_build_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.raises(kernels.BuildError, match="no-such-compiler"):
        kernels.build(tmp_path / "out.so")
    monkeypatch.delenv("CC")
    monkeypatch.setattr(os, "environ", {**os.environ, "PATH": str(tmp_path)})
    with pytest.raises(kernels.BuildError, match="no C compiler"):
        kernels.build(tmp_path / "out.so")
