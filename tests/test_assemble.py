"""A VLM out of a text model and a vision tower: what each brings, what is new, what doesn't fit; and each alone.

That the parts compute what transformers' classes do is in tests/reference/test_assemble.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from smolvlm.errors import CheckpointError, ConfigError, InputError
from smolvlm.model import KVCache, SmolVLMForConditionalGeneration
from smolvlm.model.assemble import Vocabulary, assemble, extend_rows, resize_positions
from smolvlm.model.towers import load_text, load_vision, save_text, text_of
from smolvlm.processing.tokenizer import SmolVLMTokenizer
from smolvlm.processing.vocabulary import PICTURE_TOKENS, add_picture_tokens
from smolvlm.training.assemble import assemble_checkpoint
from smolvlm.vlm import load
from tests.commands import run
from tests.parts import known_tokens, text_checkpoint, text_tokenizer_json, vision_checkpoint, write_checkpoint
from tests.tiny import tiny_checkpoint

KNOWN = known_tokens()
VOCABULARY = Vocabulary(KNOWN + 128, KNOWN, image=KNOWN + 38, begin=1, end=KNOWN + 127, pad=2)
WORDS = torch.arange(20, 40)[None]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_checkpoint(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_checkpoint(tmp_path_factory.mktemp("vision"))


# ---- the model ----


@pytest.mark.parametrize("tied", [True, False])
def test_both_keep_their_weights_and_new_rows_are_the_mean_of_the_old(vision: Path, tmp_path: Path, tied: bool) -> None:
    text = text_checkpoint(tmp_path, tied=tied)
    model = assemble(text, vision, VOCABULARY)
    tensors = {name: one.numpy() for name, one in model.state_dict().items()}
    old = load_file(text / "model.safetensors")
    seen = {name: one for name, one in load_file(vision / "model.safetensors").items() if "vision_model" in name}
    seen.pop("vision_model.head.probe")
    for name, array in seen.items():
        np.testing.assert_array_equal(tensors.pop(f"model.{name}"), array)
    head = old["model.embed_tokens.weight"] if tied else old.pop("lm_head.weight")
    for name, rows in (
        ("model.text_model.embed_tokens.weight", old.pop("model.embed_tokens.weight")),
        ("lm_head.weight", head),
    ):
        table = tensors.pop(name)
        np.testing.assert_array_equal(table[:KNOWN], rows)
        np.testing.assert_allclose(table[KNOWN:], np.tile(rows.mean(0), (128, 1)), atol=1e-6)
    for name, array in old.items():
        np.testing.assert_array_equal(tensors.pop(name.replace("model.", "model.text_model.")), array)
    assert list(tensors) == ["model.connector.modality_projection.proj.weight"]
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied == model.config.tie_word_embeddings


def test_the_config_has_the_ids_of_the_vocabulary_and_the_sizes_of_the_parts(text: Path, vision: Path) -> None:
    config = assemble(text, vision, VOCABULARY).config
    own = config.text_config
    assert (config.image_token_id, config.pad_token_id, own.pad_token_id) == (KNOWN + 38, 2, 2)
    assert (own.vocab_size, own.bos_token_id, own.eos_token_id) == (KNOWN + 128, 1, KNOWN + 127)
    assert (own.rope_theta, own.num_key_value_heads, own.rms_norm_eps) == (100000.0, 2, 1e-5)
    assert (config.vision_config.hidden_size, config.vision_config.image_size) == (32, 32)


def test_spare_rows_of_the_text_model_are_used_before_it_gets_new_ones(vision: Path, tmp_path: Path) -> None:
    model = assemble(text_checkpoint(tmp_path / "few", spare_rows=30), vision, VOCABULARY)
    table = model.get_input_embeddings().weight
    assert len(table) == KNOWN + 128
    torch.testing.assert_close(table[KNOWN:], table[:KNOWN].mean(0).expand(128, -1))
    many = Vocabulary(KNOWN + 8, KNOWN, image=KNOWN, begin=1, end=KNOWN + 7, pad=2)
    assert len(assemble(tmp_path / "few", vision, many).get_input_embeddings().weight) == KNOWN + 30


def test_the_connector_is_random_by_its_seed(text: Path, vision: Path) -> None:
    def connector(seed: int) -> torch.Tensor:
        return assemble(text, vision, VOCABULARY, seed=seed).model.connector.modality_projection.proj.weight

    assert torch.equal(connector(1), connector(1)) and not torch.equal(connector(1), connector(2))
    assert connector(1).std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(("patches", "wanted"), [(8, 4), (9, 3), (6, 3), (10, 2), (7, 1)])
def test_the_pixel_shuffle_is_the_largest_that_fits_the_tile(
    text: Path, tmp_path: Path, patches: int, wanted: int
) -> None:
    tower = vision_checkpoint(tmp_path, image_size=4 * patches)
    model = assemble(text, tower, VOCABULARY)
    assert model.config.scale_factor == wanted and model.config.image_seq_len == (patches // wanted) ** 2
    with pytest.raises(ConfigError, match=f"{patches} patches a side, which can't be shuffled by 11"):
        assemble(text, tower, VOCABULARY, scale_factor=11)


def test_weights_are_in_the_text_model_s_dtype_unless_another_is_named(
    text: Path, vision: Path, tmp_path: Path
) -> None:
    save_text(load_text(text, torch.bfloat16), tmp_path)
    for dtype, expected in (("auto", torch.bfloat16), (torch.float16, torch.float16)):
        model = assemble(tmp_path, vision, VOCABULARY, dtype=dtype)  # type: ignore[arg-type]
        assert {one.dtype for one in model.parameters()} == {expected}


# ---- positions of another size ----


@pytest.mark.parametrize("side", [32, 24, 8])
def test_positions_of_another_size_are_interpolated(side: int) -> None:
    """Columns and rows that are numbered stay numbered, as the centres of wider or narrower patches."""
    rows, columns = np.divmod(np.arange(256), 16)
    table = torch.from_numpy(np.stack([rows, columns], axis=1).astype(np.float32))  # (16 x 16, 2)
    found = resize_positions(table, side).numpy().reshape(side, side, 2)
    centres = (np.arange(side) + 0.5) * 16 / side - 0.5
    inner = slice(side // 4, -(side // 4))  # at the border the outermost patch is repeated
    np.testing.assert_allclose(found[inner, 0, 0], centres[inner], atol=0.02)
    np.testing.assert_allclose(found[0, inner, 1], centres[inner], atol=0.02)
    assert torch.equal(resize_positions(table, 16), table)


def test_a_tile_of_another_size_has_the_tower_s_other_weights_as_they_were(text: Path, vision: Path) -> None:
    small, large = (assemble(text, vision, VOCABULARY, image_size=side) for side in (32, 48))
    assert large.config.image_seq_len == 9 and small.config.image_seq_len == 4
    pictures = torch.rand(1, 3, 48, 48)
    assert large.model.vision_model(pictures).last_hidden_state.shape == (1, 144, 32)
    for name, tensor in small.model.vision_model.state_dict().items():
        assert ("position_embedding" in name) != torch.equal(tensor, large.model.vision_model.state_dict()[name])


def test_new_rows_are_the_mean_in_float32_also_of_half_precision() -> None:
    table = torch.full((2000, 1), 1.0, dtype=torch.bfloat16)
    assert torch.equal(extend_rows(table, 2000, 2001)[2000:], torch.ones(1, 1, dtype=torch.bfloat16))


# ---- the parts alone ----


@pytest.mark.parametrize("tied", [True, False])
def test_the_text_model_alone_says_what_it_says_in_the_vlm(vision: Path, tmp_path: Path, tied: bool) -> None:
    alone = load_text(text_checkpoint(tmp_path / "text", tied=tied))
    model = assemble(tmp_path / "text", vision, VOCABULARY)
    with torch.no_grad():
        expected = alone(WORDS)
        torch.testing.assert_close(model(WORDS).logits[..., :KNOWN], expected, atol=1e-5, rtol=0)
        assert torch.equal(text_of(model)(WORDS), model(WORDS).logits)
    assert text_of(model).model is model.model.text_model
    save_text(alone, tmp_path / "again")
    assert torch.equal(load_text(tmp_path / "again")(WORDS), expected)
    names = load_file(tmp_path / "again" / "model.safetensors").keys()
    assert names == load_file(tmp_path / "text" / "model.safetensors").keys()


def test_the_text_model_alone_goes_on_from_a_cache(text: Path) -> None:
    alone, cache = load_text(text), KVCache()
    with torch.no_grad():
        parts = [alone(part, past_key_values=cache) for part in WORDS.split(7, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), alone(WORDS), atol=1e-5, rtol=0)


def test_a_vision_tower_is_found_with_and_without_its_prefix(vision: Path, tmp_path: Path) -> None:
    tensors = load_file(vision / "model.safetensors")
    bare = {
        name.removeprefix("vision_model."): one for name, one in tensors.items() if name.startswith("vision_model.")
    }
    config = json.loads((vision / "config.json").read_text())["vision_config"]
    write_checkpoint(tmp_path, config, {**bare, "embeddings.position_ids": np.arange(64)[None]})
    first, second = (load_vision(one).state_dict() for one in (vision, tmp_path))
    assert first.keys() == second.keys() and all(torch.equal(one, second[name]) for name, one in first.items())


# ---- what doesn't fit ----


def test_the_first_five_differences_of_a_text_model_are_listed(vision: Path, tmp_path: Path) -> None:
    tensors = load_file(text_checkpoint(tmp_path) / "model.safetensors")
    for layer in ("q_proj", "k_proj", "v_proj", "o_proj"):
        del tensors[f"model.layers.0.self_attn.{layer}.weight"], tensors[f"model.layers.1.self_attn.{layer}.weight"]
    tensors["model.layers.0.mlp.gate_proj.bias"] = np.ones(4, dtype=np.float32)
    tensors["model.norm.weight"] = np.ones(65, dtype=np.float32)
    write_checkpoint(tmp_path, json.loads((tmp_path / "config.json").read_text()), tensors)
    with pytest.raises(CheckpointError) as caught:
        assemble(tmp_path, vision, VOCABULARY)
    _, missing, unexpected, misshaped, _ = str(caught.value).splitlines()
    assert missing.startswith("  8 missing: model.layers.0.self_attn.q_proj.weight") and "and 3 more" in missing
    assert unexpected == "  1 unexpected: model.layers.0.mlp.gate_proj.bias"
    assert misshaped == "  1 of another shape: model.norm.weight (file (65,), model (64,))"


def test_a_vision_tower_with_a_tensor_too_few_is_refused(text: Path, vision: Path, tmp_path: Path) -> None:
    tensors = load_file(vision / "model.safetensors")
    del tensors["vision_model.post_layernorm.bias"]
    write_checkpoint(tmp_path, json.loads((vision / "config.json").read_text()), tensors)
    with pytest.raises(CheckpointError, match="1 missing: post_layernorm.bias"):
        assemble(text, tmp_path, VOCABULARY)


def test_models_of_another_kind_are_refused_by_name(text: Path, vision: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_type 'siglip'; a text model is a 'llama'"):
        load_text(vision)
    with pytest.raises(ConfigError, match="model_type 'llama'; 'siglip_vision_model' can be used"):
        load_vision(text)
    with pytest.raises(ConfigError, match="RoPE of type 'llama3'"):
        load_text(text_checkpoint(tmp_path, rope_scaling={"rope_type": "llama3", "factor": 8.0}))
    with pytest.raises(CheckpointError, match=f"a tokenizer with {KNOWN + 1} tokens, but a model with {KNOWN}"):
        assemble(text, vision, Vocabulary(KNOWN + 128, KNOWN + 1, image=600, begin=1, end=601, pad=2))


# ---- the vocabulary ----


def test_the_text_model_s_vocabulary_gets_the_ids_of_the_released_models(shared: Path) -> None:
    """Their 49280 tokens from the 49152 that SmolLM2 has."""
    released = json.loads((shared / "data" / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    old = {**released, "added_tokens": [one for one in released["added_tokens"] if one["id"] < 49152]}
    tokenizer = add_picture_tokens(SmolVLMTokenizer(Tokenizer.from_str(json.dumps(old))))
    assert tokenizer.get_vocab() == Tokenizer.from_str(json.dumps(released)).get_vocab()
    assert (tokenizer.image_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49190, 49279, 2)
    prompt = "<|im_start|>User:<fake_token_around_image><row_1_col_2><image><end_of_utterance>\nAssistant:"
    assert tokenizer.encode(prompt) == Tokenizer.from_str(json.dumps(released)).encode(prompt).ids


def test_tokens_that_are_there_keep_their_ids() -> None:
    once = add_picture_tokens(SmolVLMTokenizer(Tokenizer.from_str(text_tokenizer_json())))
    assert len(once) == KNOWN + len(PICTURE_TOKENS) and add_picture_tokens(once).get_vocab() == once.get_vocab()
    bare = json.loads(text_tokenizer_json())
    bare["added_tokens"], vocabulary = [], bare["model"]["vocab"]
    vocabulary["<|old_1|>"], vocabulary["<|old_2|>"] = vocabulary.pop("<|im_start|>"), vocabulary.pop("<|im_end|>")
    without = add_picture_tokens(SmolVLMTokenizer(Tokenizer.from_str(json.dumps(bare))))
    assert (without.bos_token_id, without.pad_token_id) == (KNOWN, KNOWN + 1)


# ---- the checkpoint, and the command ----


def test_the_command_writes_a_checkpoint_that_answers(
    text: Path, vision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "assemble",
        "--text",
        str(text),
        "--vision",
        str(vision),
        "-o",
        str(tmp_path / "new"),
        "--scale-factor",
        "2",
    ]
    outcome = run(capsys, words)
    assert outcome.code == 0 and "A tile of 32 pixels is 16 tokens" in outcome.out and outcome.err == ""
    assert f"<image> is {KNOWN + 38}" in outcome.out
    vlm = load(tmp_path / "new", runtime="torch")
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    assert vlm.tokens("What?", images=[picture]).total > 5 * 16  # tiles of 32 pixels, up to 4 x 4
    assert len(vlm.ask("What?", images=[picture], max_new_tokens=3).token_ids) > 0
    expected = assemble(text, vision, VOCABULARY, scale_factor=2)
    found = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "new")
    assert found.config.to_dict().items() >= {"image_token_id": KNOWN + 38, "tie_word_embeddings": True}.items()
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in expected.state_dict().items())
    assert found.generation_config == {"bos_token_id": 1, "eos_token_id": KNOWN + 127, "pad_token_id": 2}


def test_the_command_says_what_does_not_fit_in_one_line(
    text: Path, vision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str) -> str:
        outcome = run(capsys, ["assemble", "-o", str(tmp_path / "new"), *words])
        assert outcome.code in (1, 2) and not (tmp_path / "new").exists()
        return outcome.error

    assert "required: --vision" in error("--text", str(text))
    assert "There is no directory" in error("--text", str(tmp_path / "none"), "--vision", str(vision))
    assert "can't be shuffled by 3" in error("--text", str(text), "--vision", str(vision), "--scale-factor", "3")
    whole = tiny_checkpoint(tmp_path / "whole")
    assert "model_type 'smolvlm'" in error("--text", str(whole), "--vision", str(vision))


def test_neither_checkpoint_is_written_over(text: Path, vision: Path) -> None:
    with pytest.raises(InputError, match="is one of the two checkpoints"):
        assemble_checkpoint(text, vision, text / ".." / text.name)
