"""Adapters in files: what is saved is loaded as it was; what doesn't fit, or is of another kind, is refused by name.

tests/reference/test_adapters.py holds the files to PEFT's.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import smolvlm
from smolvlm import LoraConfig, hub, load_adapter
from smolvlm.errors import CheckpointError, ModelNotFoundError
from tests.adapted import adapted_model, logits, new_model
from tests.hub_imitation import Hub, serve
from tests.test_adapters import ALL, KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_loaded_with_identical_logits(kind: str, tmp_path: Path) -> None:
    adapter = adapted_model(KINDS[kind])
    adapter.save(tmp_path / "a")
    again = load_adapter(new_model(), tmp_path / "a")
    assert torch.equal(logits(again.model), logits(adapter.model))
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
    assert all(one.requires_grad for one in load_adapter(new_model(), tmp_path / "a", trainable=True).parameters())
    again.save(tmp_path / "b")
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == (
        tmp_path / "b/adapter_model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "a/adapter_config.json").read_text()) == json.loads(
        (tmp_path / "b/adapter_config.json").read_text()
    )


def test_the_name_of_the_base_model_and_foreign_settings_are_kept(tmp_path: Path) -> None:
    adapted_model(LoraConfig("text", base_model_name_or_path="owner/model")).save(tmp_path)
    change(tmp_path, task_type="CAUSAL_LM", revision="abc")
    again = load_adapter(new_model(), tmp_path)
    assert again.config.base_model_name_or_path == "owner/model"
    again.save(tmp_path / "again")
    written = json.loads((tmp_path / "again/adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["task_type"], written["revision"]) == (
        "owner/model", "CAUSAL_LM", "abc",
    )  # fmt: skip


def test_an_adapter_in_half_precision_is_kept_and_saved_so(tmp_path: Path) -> None:
    adapter = adapted_model(ALL, dtype=torch.bfloat16)
    adapter.save(tmp_path)
    assert {one.dtype for one in load_file(tmp_path / "adapter_model.safetensors").values()} == {torch.bfloat16}
    again = load_adapter(new_model(), tmp_path, dtype=torch.bfloat16)
    assert torch.equal(logits(again.model), logits(adapter.model))


def change(directory: Path, **settings: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"bias": "all"}, "bias='all'"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_new": 3}, "something_new=3"),
        ({"r": "many"}, "rank must be a whole number"),
    ],
)
def test_a_kind_of_adapter_that_is_not_here_is_refused_by_name(
    settings: dict[str, object], expected: str, tmp_path: Path
) -> None:
    adapted_model(ALL).save(tmp_path)
    change(tmp_path, **settings)
    with pytest.raises(CheckpointError, match=expected):
        load_adapter(new_model(), tmp_path)


def test_an_adapter_of_another_model_is_refused_with_the_first_differences(tmp_path: Path) -> None:
    adapted_model(LoraConfig(["text", "vision"], base_model_name_or_path="owner/model")).save(tmp_path)
    other = new_model(image_size=32)
    other.model.text_model.layers[0].mlp.up_proj = torch.nn.Linear(64, 99, bias=False)
    with pytest.raises(CheckpointError, match=r"1 of another shape: .*up_proj.lora_B.weight \(file \(.*\), model \(99"):
        load_adapter(other, tmp_path)
    assert other.adapter is None
    del other.model.text_model.layers[1]
    with pytest.raises(CheckpointError, match="(?s)14 unexpected: .*made for owner/model: load that model"):
        load_adapter(other, tmp_path)


def test_missing_and_foreign_tensors_are_refused(tmp_path: Path) -> None:
    adapted_model(KINDS["DoRA"]).save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
        load_adapter(new_model(), tmp_path)
    save_file(tensors | {"base_model.model.model.text_model.norm.weight": torch.ones(64)}, file)
    with pytest.raises(CheckpointError, match="1 unexpected: base_model.model.model.text_model.norm.weight"):
        load_adapter(new_model(), tmp_path)
    save_file({key: value.to(torch.int32) for key, value in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="stored as I32"):
        load_adapter(new_model(), tmp_path)


def test_a_directory_without_an_adapter_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a directory"):
        load_adapter(new_model(), tmp_path / "nowhere")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="That is a pickle"):
        load_adapter(new_model(), tmp_path)
    with pytest.raises(CheckpointError, match="is no adapter.*model.safetensors"):
        load_adapter(new_model(), Path(smolvlm.__file__).parent / "assets/nano")


def test_an_adapter_is_fetched_from_the_hub(tmp_path: Path) -> None:
    adapter = adapted_model(ALL)
    adapter.save(tmp_path / "a")
    files = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    with serve(Hub({"owner/adapter": {**files, "optimizer.pt": b"pickle", "README.md": b"about"}})) as server:
        found = hub.resolve_adapter("owner/adapter", cache_dir=tmp_path / "cache", endpoint=server.endpoint)
        assert sorted(file.name for file in found.iterdir()) == sorted(files) == sorted(server.downloads())
    assert torch.equal(logits(load_adapter(new_model(), found).model), logits(adapter.model))
    assert hub.resolve_adapter("owner/adapter", cache_dir=tmp_path / "cache", local_files_only=True) == found
    with pytest.raises(ModelNotFoundError, match="^The adapter can't be found: .*no 'owner/other' in the cache"):
        hub.resolve_adapter("owner/other", cache_dir=tmp_path / "cache", local_files_only=True)
