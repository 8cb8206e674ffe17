"""The ONNX graphs: both forms against the PyTorch model, the blocks against plain arithmetic, the files they lie in."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file, save_file

from smolvlm.checkpoint.shapes import expected_shapes
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import CheckpointError, MissingDependencyError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.model.vision import position_ids
from smolvlm.runtimes import graphs
from smolvlm.runtimes.graphs import FORMS, graph, vision, weights, write_graphs
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.native import LARGEST_GRID, MOVED_GRIDS
from smolvlm.runtimes.quantise import quantise
from tests.motors import odd_config, write
from tests.tiny import tiny_checkpoint, tiny_config

# How far each may be from the float32 model, as a share of the largest value: measured 2e-6, 1e-3, 0.03, 0.28, 0.28.
BOUNDS = {"fp32": 2e-5, "fp16": 5e-3, "q8": 0.06, "q4": 0.5, "q4f16": 0.5}


def unusual_config() -> dict[str, object]:
    """Biases and activations that no released model has, tied embeddings, keys that every query head has of its own."""
    config = copy.deepcopy(tiny_config(model_type="idefics3", tie_word_embeddings=True))
    config["vision_config"] |= {"hidden_act": "quick_gelu"}  # type: ignore[operator]
    config["text_config"] |= {"hidden_act": "gelu", "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}  # type: ignore[operator]
    return config


@pytest.fixture(scope="module", params=["tiny", "odd", "unusual"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"tiny": tiny_config, "odd": odd_config, "unusual": unusual_config}[request.param]()
    directory = write(tmp_path_factory.mktemp("graphs") / request.param, config)
    tensors = load_file(directory / "model.safetensors")
    for name, shape in expected_shapes(SmolVLMConfig.from_dict(config)).items():
        if name not in tensors:  # biases of the text model
            tensors[name] = np.random.default_rng(len(tensors)).standard_normal(shape, np.float32) / 4
    save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(checkpoint)


def session(folder: Path, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, ["CPUExecutionProvider"])


def empty_cache(decoder: onnxruntime.InferenceSession, rows: int) -> dict[str, np.ndarray]:
    """As transformers.js makes it: what isn't a number or the batch is 0."""
    caches = [one for one in decoder.get_inputs() if one.name.startswith("past_key_values")]
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    return {
        one.name: np.zeros(
            [rows if size == "batch_size" else size if isinstance(size, int) else 0 for size in one.shape],
            kinds[one.type],
        )
        for one in caches
    }


def pictures(model: SmolVLMForConditionalGeneration) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of three tiles: one tile is padding, one has padding on the right, one at the bottom."""
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3, side, side)).astype(np.float32)
    mask = np.ones((2, 3, side, side), bool)
    pixels[1, 2], mask[1, 2] = 0, False
    mask[0, 1, :, side // 2 + 3 :] = False
    mask[1, 0, side // 3 :] = False
    return pixels, mask


def near(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < BOUNDS[dtype] * np.abs(expected).max()


@pytest.mark.parametrize("dtype", FORMS)
def test_portable_graphs_equal_the_pytorch_model(
    checkpoint: Path, model: SmolVLMForConditionalGeneration, dtype: str, tmp_path: Path
) -> None:
    write_graphs(checkpoint, tmp_path, dtype)
    suffix = FORMS[dtype].suffix
    embed, see, decoder = (
        session(tmp_path, name + suffix) for name in (graphs.EMBEDDINGS, graphs.VISION, graphs.DECODER)
    )
    pixels, mask = pictures(model)
    ids = np.random.default_rng(1).integers(10, 500, (2, 20))
    real = np.ones((2, 20), np.int64)
    real[1, :5] = 0  # padding on the left
    with torch.inference_mode():
        features = model.get_image_features(torch.from_numpy(pixels), torch.from_numpy(mask)).numpy()
        logits = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(real)).logits.numpy()
    near(see.run(None, {"pixel_values": pixels, "pixel_attention_mask": mask})[0], features, dtype)

    cache, found = empty_cache(decoder, 2), []
    positions = np.maximum(real.cumsum(axis=1) - 1, 0)
    for start, end, keep in ((0, 12, 0), (12, 13, 1), (13, 20, 7)):
        feeds = {
            "inputs_embeds": embed.run(None, {"input_ids": ids[:, start:end]})[0],
            "attention_mask": real[:, :end],
            "position_ids": positions[:, start:end],
            "num_logits_to_keep": np.array(keep),
        }
        names = [name.replace("past_key_values", "present") for name in cache]
        rows, *presents = decoder.run(["logits", *names], feeds | cache)
        cache = dict(zip(cache, presents, strict=True))
        found.append(rows)
    near(np.concatenate(found, axis=1)[real > 0], logits[real > 0], dtype)


def test_a_batch_of_nothing_but_padding_counts_its_first_tile(
    checkpoint: Path, model: SmolVLMForConditionalGeneration, tmp_path: Path
) -> None:
    write_graphs(checkpoint, tmp_path, "fp32")
    side = model.config.vision_config.image_size
    pixels, mask = np.zeros((1, 2, 3, side, side), np.float32), np.ones((1, 2, side, side), bool)
    with torch.inference_mode():
        expected = model.get_image_features(torch.from_numpy(pixels)).numpy()
    found = session(tmp_path, graphs.VISION).run(None, {"pixel_values": pixels, "pixel_attention_mask": mask})[0]
    near(found, expected, "fp32")


def test_positions_of_whole_tiles_are_the_models() -> None:
    for side in set(range(1, LARGEST_GRID + 1)) - MOVED_GRIDS:
        expected = position_ids(torch.ones(1, side, side, dtype=torch.bool), side)[0].numpy()
        assert (vision.whole_positions(side) == expected).all(), side


def test_names_and_dimensions_are_those_that_transformers_js_looks_for(tmp_path: Path) -> None:
    write_graphs(tiny_checkpoint(tmp_path / "m"), tmp_path / "g", "fp16")
    decoder = session(tmp_path / "g", "decoder_model_merged_fp16")
    shapes = {one.name: one.shape for one in decoder.get_inputs()}
    assert shapes.pop("num_logits_to_keep") == []
    cache = {name: shapes.pop(name) for name in list(shapes) if name.startswith("past_key_values.")}
    assert list(cache) == [f"past_key_values.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert all(shape == ["batch_size", 2, "past_sequence_length", 16] for shape in cache.values())
    assert shapes == {
        "inputs_embeds": ["batch_size", "sequence_length", 64],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
    }
    outputs = {one.name for one in decoder.get_outputs()}
    assert outputs == {"logits", *(name.replace("past_key_values", "present") for name in cache)}
    see = session(tmp_path / "g", "vision_encoder_fp16")
    assert {one.name: one.type for one in see.get_inputs()} == {
        "pixel_values": "tensor(float)",
        "pixel_attention_mask": "tensor(bool)",
    }
    assert [one.name for one in see.get_outputs()] == ["image_features"]
    assert [one.name for one in session(tmp_path / "g", "embed_tokens_fp16").get_outputs()] == ["inputs_embeds"]


def test_portable_graphs_of_floats_have_standard_operators_only(tmp_path: Path) -> None:
    write_graphs(tiny_checkpoint(tmp_path / "m"), tmp_path / "g", "fp32")
    for name in (graphs.EMBEDDINGS, graphs.VISION, graphs.DECODER):
        model = onnx.load(tmp_path / "g" / f"{name}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} == {""}


# ---- blocks ----


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_hold_the_matrix_as_near_as_plain_rounding_or_nearer(bits: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((48, 104), np.float32)  # 104 fill no whole block
    matrix[3] = 0
    packed, scales = weights.quantise(matrix, bits)
    numbers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 32)
    whole = (numbers.astype(np.float32) - (1 << bits - 1)) * scales[..., None]
    found = whole.reshape(48, -1)[:, :104]
    groups = np.pad(matrix, ((0, 0), (0, 24))).reshape(48, 4, 32)
    step = np.maximum(np.abs(groups).max(axis=2, keepdims=True), 1e-9) / ((1 << bits - 1) - 1)
    plain = (np.rint(groups / step) * step).reshape(48, -1)[:, :104]
    assert np.square(found - matrix).mean() <= 1.0001 * np.square(plain - matrix).mean()
    assert (found[3] == 0).all()


@pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
@pytest.mark.parametrize(("mode", "dtype", "bits"), [("int8", "q8", 8), ("int4", "q4", 4)])
def test_a_quantised_checkpoint_keeps_its_numbers(tmp_path: Path, mode: str, dtype: str, bits: int) -> None:
    directory = quantise(tiny_checkpoint(tmp_path / "m"), tmp_path / "q", mode)
    name = "model.text_model.layers.1.mlp.down_proj"
    source = weights.Source(directory)
    packed, scales = source.blocks(f"{name}.weight", bits)
    numbers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 32)
    found = (numbers.astype(np.float32) - (1 << bits - 1)) * scales[..., None]
    expected = source.floats(f"{name}.weight")
    assert (found.reshape(expected.shape) == expected).all()
    write_graphs(directory, tmp_path / "g", dtype)
    write_graphs(directory, tmp_path / "g", "fp32")  # as floats it can be held, too


# ---- files ----


def test_weights_that_are_too_large_for_one_file_lie_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "m")
    whole = write_graphs(checkpoint, tmp_path / "a", "fp32")
    monkeypatch.setattr(graph, "CHUNK_BYTES", 100_000)
    chunks = write_graphs(checkpoint, tmp_path / "b", "fp32")
    assert set(whole.values()) == {1} and chunks["decoder_model_merged.onnx"] > 2
    files = sorted(file.name for file in (tmp_path / "b").glob("decoder_model_merged.onnx_data*"))
    assert files[:2] == ["decoder_model_merged.onnx_data", "decoder_model_merged.onnx_data_1"]
    assert len(files) == chunks["decoder_model_merged.onnx"]
    first, second = (session(tmp_path / folder, graphs.EMBEDDINGS) for folder in "ab")
    ids = np.arange(20)[None]
    assert (first.run(None, {"input_ids": ids})[0] == second.run(None, {"input_ids": ids})[0]).all()
    session(tmp_path / "b", graphs.DECODER)


def test_progress_counts_the_bytes_of_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "m", tie_word_embeddings=True)
    seen: list[tuple[int, int]] = []
    write_graphs(checkpoint, tmp_path / "g", "q8", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


def test_a_checkpoint_that_does_not_fit_its_config_is_told_apart(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "m", tiny_config())
    tensors = load_file(checkpoint / "model.safetensors")
    tensors.pop("model.text_model.norm.weight")
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: model.text_model.norm.weight"):
        write_graphs(checkpoint, tmp_path / "g", "fp32")


def test_without_the_package_onnx_the_message_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "smolvlm.runtimes.graphs.graph")
    monkeypatch.delattr(graphs, "graph")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'smolvlm\[onnx\]'"):
        write_graphs(tmp_path, tmp_path / "g", "fp32")
