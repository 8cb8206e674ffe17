"""Loading and saving of models: exact, strict, and without copying what needn't be copied."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.loading_memory import GEOMETRY_500M, write_random_checkpoint
from smolvlm.config import SmolVLMConfig
from smolvlm.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError
from smolvlm.model import SmolVLMForConditionalGeneration, SmolVLMModel, SmolVLMVisionTransformer
from tests.tiny import tiny_checkpoint

MEASURE = Path(__file__).parents[1] / "benchmarks" / "loading_memory.py"
Q_PROJ = "model.text_model.layers.0.self_attn.q_proj.weight"


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """The weights as the safetensors library reads them."""
    return safetensors.torch.load_file(directory / "model.safetensors")


def edit_weights(directory: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors by name; None takes one away."""
    tensors = load_file(directory / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, directory / "model.safetensors")


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def logits(model: SmolVLMForConditionalGeneration) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_every_tensor_of_the_file_arrives_in_the_model_exactly(tmp_path: Path, model_type: str) -> None:
    directory = tiny_checkpoint(tmp_path, model_type=model_type)
    model = SmolVLMForConditionalGeneration.from_pretrained(directory)
    assert not model.training
    state, expected = model.state_dict(), stored(directory)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_saved_model_loads_with_identical_logits_and_the_same_configuration(tmp_path: Path, model_type: str) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint(tmp_path / "a", model_type=model_type))
    model.save_pretrained(tmp_path / "b")
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "b")
    assert torch.equal(logits(again), logits(model))
    saved = json.loads((tmp_path / "b" / "config.json").read_text())
    assert saved["model_type"] == model_type
    assert saved["architectures"][0].startswith("SmolVLM" if model_type == "smolvlm" else "Idefics3")
    assert again.generation_config == model.generation_config == _json(tmp_path / "a" / "generation_config.json")


def test_sharded_save_loads_with_identical_weights(checkpoint: Path, tmp_path: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 3
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "shards")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_model_can_be_saved_over_the_files_it_is_mapped_from(checkpoint: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(checkpoint)
    again = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert torch.equal(again.state_dict()[name], tensor)


def test_training_a_mapped_model_leaves_its_file_alone(checkpoint: Path) -> None:
    before = (checkpoint / "model.safetensors").read_bytes()
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (checkpoint / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_dtype_casts_every_parameter_and_both_spellings_mean_it(checkpoint: Path, dtype: torch.dtype | str) -> None:
    for options in ({"dtype": dtype}, {"torch_dtype": dtype}):
        model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, **options)
        expected = stored(checkpoint)
        for name, parameter in model.state_dict().items():
            assert torch.equal(parameter, expected[name].to(torch.bfloat16)), name


def test_auto_is_the_dtype_the_checkpoint_names_or_else_holds(checkpoint: Path, tmp_path: Path) -> None:
    half = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, dtype="float16")
    half.save_pretrained(tmp_path / "half")
    load = SmolVLMForConditionalGeneration.from_pretrained
    assert load(tmp_path / "half").dtype == torch.float32
    assert load(tmp_path / "half", dtype="auto").dtype == torch.float16
    edit_config(tmp_path / "half", dtype=None, torch_dtype=None)
    assert load(tmp_path / "half", dtype="auto").dtype == torch.float16
    edit_config(tmp_path / "half", torch_dtype="bfloat16")  # the name older files use
    assert load(tmp_path / "half", dtype="auto").dtype == torch.bfloat16


def test_bfloat16_survives_saving_and_loading_bit_by_bit(checkpoint: Path, tmp_path: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, dtype="bfloat16")
    model.save_pretrained(tmp_path / "half")
    for name, tensor in stored(tmp_path / "half").items():
        assert torch.equal(tensor, model.state_dict()[name])
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "half", dtype="auto")
    assert torch.equal(logits(again), logits(model))


def test_base_model_and_vision_tower_find_themselves_in_a_whole_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    whole = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    base = SmolVLMModel.from_pretrained(checkpoint)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name])
    tower = SmolVLMVisionTransformer.from_pretrained(checkpoint)
    for name, tensor in tower.state_dict().items():
        assert torch.equal(tensor, whole.model.vision_model.state_dict()[name])
    base.save_pretrained(tmp_path / "base")
    tower.save_pretrained(tmp_path / "tower")
    assert SmolVLMModel.from_pretrained(tmp_path / "base").state_dict().keys() == base.state_dict().keys()
    assert SmolVLMVisionTransformer.from_pretrained(tmp_path / "base").config == tower.config
    assert SmolVLMVisionTransformer.from_pretrained(tmp_path / "tower").config == tower.config


def test_checkpoint_without_a_head_says_which_class_loads_it(checkpoint: Path, tmp_path: Path) -> None:
    SmolVLMModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match="Load it with SmolVLMModel"):
        SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "base")


def test_tied_embeddings_are_one_tensor_saved_once(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    edit_weights(directory, **({"lm_head.weight": None} if "lm_head.weight" in stored(directory) else {}))
    model = SmolVLMForConditionalGeneration.from_pretrained(directory)
    assert model.lm_head.weight is model.model.text_model.embed_tokens.weight
    model.save_pretrained(tmp_path / "again")
    assert "lm_head.weight" not in stored(tmp_path / "again")
    again = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "again")
    assert torch.equal(logits(again), logits(model))


def test_head_stored_beside_tied_embeddings_is_ignored(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, tie_word_embeddings=True)
    embeddings = stored(directory)["model.text_model.embed_tokens.weight"]
    edit_weights(directory, **{"lm_head.weight": np.zeros(tuple(embeddings.shape), np.float32)})
    model = SmolVLMForConditionalGeneration.from_pretrained(directory)
    assert torch.equal(model.lm_head.weight, embeddings)


def test_difference_lists_missing_unexpected_and_misshaped_with_both_shapes(checkpoint: Path) -> None:
    edit_weights(checkpoint, **{Q_PROJ: np.zeros((2, 3), np.float32), "lm_head.weight": None})
    edit_weights(checkpoint, **{f"extra.{i}": np.zeros(1, np.float32) for i in range(7)})
    with pytest.raises(CheckpointError) as caught:
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    message = str(caught.value)
    assert "1 missing: lm_head.weight" in message
    assert "7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4, and 2 more" in message
    assert f"1 of another shape: {Q_PROJ} (file (2, 3), model (64, 64))" in message
    assert str(checkpoint) in message


def test_quantised_tensor_is_refused_by_name(checkpoint: Path) -> None:
    edit_weights(checkpoint, **{Q_PROJ: np.zeros((64, 64), np.int8)})
    with pytest.raises(CheckpointError, match=f"'{Q_PROJ}' is stored as I8"):
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint)


def test_rotary_buffers_of_old_exports_are_ignored(checkpoint: Path) -> None:
    name = "model.text_model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_weights(checkpoint, **{name: np.zeros(8, np.float32)})
    SmolVLMForConditionalGeneration.from_pretrained(checkpoint)


def test_cut_file_is_a_clear_error(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="download it again"):
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint)


def test_missing_or_foreign_config_is_a_clear_error(checkpoint: Path) -> None:
    edit_config(checkpoint, model_type="bert")
    with pytest.raises(ConfigError, match=r"config\.json: model_type 'bert'"):
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint)


def test_missing_directory_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError, match="There is no directory"):
        SmolVLMForConditionalGeneration.from_pretrained("./no/such/directory")


def test_config_given_by_hand_replaces_the_one_of_the_directory(checkpoint: Path) -> None:
    config = SmolVLMConfig.from_file(checkpoint / "config.json")
    config.text_config.rope_theta = 5.0
    changed = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, config=config)
    assert changed.config.text_config.rope_theta == 5.0
    assert not torch.equal(logits(changed), logits(SmolVLMForConditionalGeneration.from_pretrained(checkpoint)))


@pytest.mark.parametrize("device_map", [None, "auto", "cpu", torch.device("cpu"), {"": "cpu"}])
def test_device_map_names_one_device(checkpoint: Path, device_map: object) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, device_map=device_map)
    if device_map == "auto":
        assert model.device.type == ("cuda" if torch.cuda.is_available() else model.device.type)
    else:
        assert model.device.type == "cpu"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device_map": "balanced"}, "can't be used here"),
        ({"device_map": {"model": 0, "lm_head": "cpu"}}, "runs on one"),
        ({"device_map": "cuda:99"}, "can't be used here"),
        ({"dtype": "int8"}, "'auto' for the checkpoint's own"),
        ({"dtype": "half-ish"}, "'auto' for the checkpoint's own"),
        ({"dtype": torch.int64}, "'auto' for the checkpoint's own"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "are the same option"),
        ({"attn_implementation": "sdpa", "_attn_implementation": "eager"}, "are the same option"),
        ({"attn_implementation": "magic"}, "use one of eager, sdpa"),
        ({"load_in_8bit": True}, "has no option load_in_8bit"),
    ],
)
def test_option_that_cannot_be_used_says_what_can(checkpoint: Path, options: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        SmolVLMForConditionalGeneration.from_pretrained(checkpoint, **options)


def test_both_spellings_of_the_attention_option_are_heard(checkpoint: Path) -> None:
    for options in ({"attn_implementation": "eager"}, {"_attn_implementation": "eager"}):
        model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint, **options)
        assert model.model.text_model.layers[0].self_attn.implementation == "eager"


def test_saving_refuses_a_file_a_bad_size_and_an_unknown_option(checkpoint: Path, tmp_path: Path) -> None:
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(InputError, match="'5GB'"):
        model.save_pretrained(tmp_path / "out", max_shard_size="big")
    with pytest.raises(InputError, match="has no option push_to_hub"):
        model.save_pretrained(tmp_path / "out", push_to_hub=True)
    assert not (tmp_path / "out").exists()


def test_progress_counts_every_byte_up_to_the_total(checkpoint: Path) -> None:
    seen: list[tuple[int, int]] = []
    SmolVLMForConditionalGeneration.from_pretrained(checkpoint, progress=lambda done, total: seen.append((done, total)))
    total = sum(tensor.numel() * tensor.element_size() for tensor in stored(checkpoint).values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_loading_draws_no_random_numbers(checkpoint: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    assert torch.equal(torch.rand(3), expected)


def growth(directory: Path, dtype: str) -> float:
    """Anonymous memory a load adds in a fresh process, over the bytes of the weights."""
    command = [sys.executable, str(MEASURE), str(directory), "--dtype", dtype, "--peak"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak_growth"]


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is reported on Linux only")
@pytest.mark.parametrize(("dtype", "allowed"), [("bfloat16", 0.15), ("float32", 1.15)])
def test_loading_100_mb_copies_nothing_without_a_cast(tmp_path: Path, dtype: str, allowed: float) -> None:
    text = {**GEOMETRY_500M["text_config"], "num_hidden_layers": 1}  # type: ignore[dict-item]
    vision = {**GEOMETRY_500M["vision_config"], "num_hidden_layers": 1}  # type: ignore[dict-item]
    small = {**GEOMETRY_500M, "text_config": {**text, "vocab_size": 16_384}, "vision_config": vision}
    write_random_checkpoint(tmp_path, small)
    assert (tmp_path / "model.safetensors").stat().st_size > 100e6
    assert growth(tmp_path, dtype) <= allowed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is reported on Linux only")
def test_memory_growth_at_the_500m_geometry(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, GEOMETRY_500M)
    assert growth(tmp_path, "bfloat16") <= 0.15
    assert growth(tmp_path, "float16") <= 1.15
    assert growth(tmp_path, "float32") <= 1.15


def _json(file: Path) -> object:
    return json.loads(file.read_text())
