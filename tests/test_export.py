"""Exports: the folder as transformers.js reads it, the graphs driven as it drives them, and the report on parity."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from smolvlm import hub, load
from smolvlm.cli import main
from smolvlm.errors import ConfigError, InputError, MissingDependencyError
from smolvlm.export import DTYPES, export_onnx, parity, verify
from smolvlm.export.parity import BOUNDS, Stage
from smolvlm.export.portable import PortableGraphs
from smolvlm.generation.generate import generate
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Span
from smolvlm.runtimes.native import MODES
from smolvlm.runtimes.onnx import DTYPES as RUNTIME_DTYPES
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module", params=["smolvlm", "idefics3", "nano"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "nano":
        return hub.resolve("nano")
    return tiny_checkpoint(
        tmp_path_factory.mktemp("source") / request.param,
        model_type=request.param,
        tie_word_embeddings=request.param == "smolvlm",
    )


@pytest.fixture(scope="module")
def export(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(source, tmp_path_factory.mktemp("export") / "e", DTYPES, name="nano")


def content(file: Path) -> dict[str, object]:
    found = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


# ---- the folder ----


def test_every_file_that_transformers_js_reads_is_there(source: Path, export: Path) -> None:
    suffixes = ("", "_fp16", "_quantized", "_q4", "_q4f16")
    names = {
        f"{name}{suffix}.onnx"
        for name in ("embed_tokens", "vision_encoder", "decoder_model_merged")
        for suffix in suffixes
    }
    there = {file.name for file in (export / "onnx").iterdir()}
    assert names | {f"{name}_data" for name in names} <= there
    config = content(export / "config.json")
    settings = config["transformers.js_config"]
    assert settings == {"dtype": "fp32", "use_external_data_format": dict.fromkeys(names, 1)}
    original = content(source / "config.json")
    assert (config["model_type"], config["architectures"]) == (original["model_type"], original["architectures"])
    assert config["image_token_id"] == original["image_token_id"]
    text = config["text_config"]
    assert isinstance(text, dict)
    needed = ("num_key_value_heads", "num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim")
    assert all(isinstance(text[name], int) for name in needed)


def test_the_processor_reads_the_same_from_an_export(source: Path, export: Path) -> None:
    theirs, ours = (SmolVLMProcessor.from_pretrained(one) for one in (source, export))
    images = content(export / "preprocessor_config.json")
    assert images["processor_class"] in ("SmolVLMProcessor", "Idefics3Processor")
    for name in ("size", "max_image_size", "do_image_splitting", "image_mean", "image_std", "resample"):
        assert images[name] == theirs.image_processor.to_dict()[name] == ours.image_processor.to_dict()[name]
    assert content(export / "processor_config.json")["image_seq_len"] == theirs.image_seq_len
    assert content(export / "tokenizer_config.json")["chat_template"] == theirs.chat_template
    assert content(export / "generation_config.json")["eos_token_id"]
    messages = [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    assert (ours.prepare(messages).input_ids == theirs.prepare(messages).input_ids).all()


def test_an_end_token_is_written_where_the_checkpoint_names_none(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "m")
    (source / "generation_config.json").unlink()
    export = export_onnx(source, tmp_path / "e", ["q8"])
    end = SmolVLMProcessor.from_pretrained(source).tokenizer.end_of_utterance_token_id
    assert content(export / "generation_config.json")["eos_token_id"] == end
    assert "exported_from" not in content(export / "config.json")


def test_what_cannot_be_exported_is_refused(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dtype=q5 can't be exported; use fp32, fp16, q8, q4, q4f16"):
        export_onnx(export, tmp_path / "x", ["fp32", "q5"])
    with pytest.raises(InputError, match="not empty"):
        export_onnx(hub.resolve("nano"), export)
    with pytest.raises(InputError, match="an export itself"):
        export_onnx(export, tmp_path / "x")


# ---- the graphs ----


def test_greedy_answers_of_the_graphs_are_those_of_the_plain_loop(source: Path, export: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(source)
    graphs = PortableGraphs(export, "float32")
    for _, inputs in parity.drawn(SmolVLMProcessor.from_pretrained(source)):
        assert inputs.pixel_values is not None
        pixels, ids = inputs.pixel_values, inputs.input_ids
        batch = {"input_ids": torch.from_numpy(ids)[None], "pixel_values": torch.from_numpy(pixels)[None]}
        (expected,) = generate(model, batch, SamplingParams(max_new_tokens=12), eos_token_ids=())
        features = graphs.encode(pixels)
        slot = graphs.open(len(ids) + 12)
        logits = graphs.forward([Span(slot, ids, features.reshape(-1, features.shape[-1]))], [len(ids) - 1])
        tokens = [int(logits[0].argmax())]
        while len(tokens) < 12:
            tokens.append(int(graphs.forward([Span(slot, np.array(tokens[-1:]))], [0])[0].argmax()))
        assert tuple(tokens) == expected.token_ids


# ---- parity ----


@pytest.mark.parametrize("runtime", ["graphs", "onnx"])
def test_every_dtype_is_within_its_bounds(source: Path, export: Path, runtime: str) -> None:
    reports = verify(export, source, runtime=runtime)
    assert [report.dtype for report in reports] == list(RUNTIME_DTYPES)
    for report in reports:
        stages = [stage.name for stage in report.stages]
        assert stages == ["vision"] * (runtime == "graphs") + [
            "vision and connector", "prefill logits", "decode logits", "answers, all its own",
        ]  # fmt: skip
        assert report.passed and len(report.texts) == len(parity.DRAWN)
        print(f"{runtime} {report.dtype}: the same token at {report.agreed} of {report.positions} places")
    exact = reports[0]
    assert exact.agreed == exact.positions and all(text.differs_at is None for text in exact.texts)
    assert all(stage.max_error < 2e-5 * stage.largest for stage in exact.stages)
    assert [text.found for text in exact.texts] == [text.expected for text in exact.texts]


@pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")
@pytest.mark.parametrize("dtype", MODES)
def test_the_native_runtime_is_within_its_bounds(dtype: str) -> None:
    (report,) = verify(hub.resolve("nano"), hub.resolve("nano"), runtime="native", dtype=dtype)
    assert report.passed
    print(f"native {dtype}: the same token at {report.agreed} of {report.positions} places")


def test_every_dtype_of_every_runtime_has_a_bound() -> None:
    assert BOUNDS.keys() == {*RUNTIME_DTYPES, *MODES, "bfloat16"}


def test_a_stage_with_a_number_that_is_none_fails() -> None:
    stage = Stage("logits", 0.5)
    stage.add(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert stage.passed and stage.max_error == 0
    stage.add(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    stage.add(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert not stage.passed


def test_without_the_package_onnx_verify_names_the_cure(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "smolvlm.export.portable")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'smolvlm\[onnx\]'"):
        parity.open_reader(export, "graphs", "float32")


def test_wrong_arguments_of_verify_are_named(export: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="runtime='tpu' in float32.*graphs, onnx, native, torch"):
        verify(source, source, runtime="tpu")
    with pytest.raises(ConfigError, match="int2"):
        verify(source, source, runtime="native", dtype="int2")
    with pytest.raises(InputError, match="is an export"):
        verify(export, export)
    with pytest.raises(ConfigError, match="'int8-vision' is not known to the onnx runtime"):
        verify(export, source, dtype="int8-vision")
    with pytest.raises(InputError, match="no exported graphs"):
        verify(source, source, runtime="graphs", dtype="float32")


# ---- the command ----


def test_the_command_writes_verifies_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "e"
    assert main(["export", "onnx", "nano", "-o", str(target), "--dtype", "q8"]) == 0
    listed = capsys.readouterr().out
    assert "onnx/decoder_model_merged_quantized.onnx_data" in listed and "onnx/motor_decoder_quantized.onnx" in listed
    assert main(["export", "verify", str(target)]) == 0  # it was noted what it was made from
    shown = capsys.readouterr().out
    assert shown.startswith("graphs int8, compared with the PyTorch model in float32\n")
    assert "\npassed\n" in shown and "TOO FAR" not in shown
    assert main(["export", "verify", str(target), "--runtime", "onnx", "--dtype", "int8", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["stages"][0]["max_error"] <= report["stages"][0]["bound"]
    assert load(target).ask("Who are you?", max_new_tokens=4).token_ids


def test_another_model_fails_with_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tiny_checkpoint(tmp_path / "m")
    other = shutil.copytree(source, tmp_path / "o")
    tensors = load_file(source / "model.safetensors")
    tensors["model.text_model.layers.1.mlp.down_proj.weight"] *= 1.2
    save_file(tensors, other / "model.safetensors")
    export_onnx(source, tmp_path / "e")
    assert main(["export", "verify", str(tmp_path / "e"), "--model", str(source)]) == 0
    assert main(["export", "verify", str(tmp_path / "e"), "--model", str(other)]) == 1
    shown = capsys.readouterr()
    assert "FAILED" in shown.out and "more than the stated bounds" in shown.err
    lines = {line[:20].strip(): line for line in shown.out.splitlines() if line.endswith(("ok", "TOO FAR"))}
    assert lines["vision and connector"[:20]].endswith("ok") and lines["prefill logits"].endswith("TOO FAR")


def test_what_is_missing_on_the_command_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", "nano"]) == 2
    assert "needs -o DIR" in capsys.readouterr().err
    export_onnx(tiny_checkpoint(tmp_path / "m"), tmp_path / "e")
    assert main(["export", "verify", str(tmp_path / "e")]) == 2
    assert "name the checkpoint with --model" in capsys.readouterr().err
    assert main(["export", "verify", "nano", "--dtype", "int8", "--dtype", "int4"]) == 2
    assert "takes one --dtype" in capsys.readouterr().err
