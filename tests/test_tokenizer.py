"""The tokenizer on the tiny vocabulary: calls, padding, cutting, decoding, files. Ids themselves: tests/reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from smolvlm.errors import CheckpointError, InputError, MissingDependencyError
from smolvlm.processing.chat import normalise_messages, protect, render
from smolvlm.processing.tokenizer import SmolVLMTokenizer
from tests.tiny import tiny_token_ids, tiny_tokenizer_json, write_tiny_tokenizer

IDS = tiny_token_ids()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(directory)
    return directory


@pytest.fixture()
def tokenizer(files: Path) -> SmolVLMTokenizer:
    return SmolVLMTokenizer.from_pretrained(files)


@pytest.mark.parametrize(
    "text", ["", "Hello, world!", "é 漢字 🙂\n\n\n1234", "<|im_start|>User:<image>x<end_of_utterance>\n"]
)
def test_ids_are_those_of_the_tokenizers_library_and_decode_back(tokenizer: SmolVLMTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == Tokenizer.from_str(tiny_tokenizer_json()).encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_attributes_with_ids(tokenizer: SmolVLMTokenizer) -> None:
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<image>", IDS["<image>"])
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<end_of_utterance>", IDS["<end_of_utterance>"])
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (IDS["<|im_end|>"], IDS["<|im_start|>"])
    assert tokenizer.sep_token is None
    position = tokenizer.additional_special_tokens.index("<image>")
    assert tokenizer.additional_special_tokens_ids[position] == IDS["<image>"]
    assert "<end_of_utterance>" not in tokenizer.additional_special_tokens
    assert len(tokenizer) == IDS["size"]
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = tokenizer.colour


def test_one_text_gives_flat_lists_and_a_batch_gives_rows(tokenizer: SmolVLMTokenizer) -> None:
    one = tokenizer("yes no")
    assert one.input_ids == tokenizer.encode("yes no")
    assert one.attention_mask == [1] * len(one.input_ids)
    assert tokenizer(["yes", "no"]).input_ids == [tokenizer.encode("yes"), tokenizer.encode("no")]
    assert tokenizer("yes", return_tensors="np").input_ids.shape == (1, len(tokenizer.encode("yes")))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_one_side_and_the_mask_says_where(tokenizer: SmolVLMTokenizer, side: str) -> None:
    short, long = tokenizer.encode("yes"), tokenizer.encode("three shapes, two circles")
    batch = tokenizer(["yes", "three shapes, two circles"], padding=True, padding_side=side)
    missing = len(long) - len(short)
    filling, zeros, ones = [IDS["<|im_end|>"]] * missing, [0] * missing, [1] * len(short)
    assert batch.input_ids == [filling + short if side == "left" else short + filling, long]
    assert batch.attention_mask == [zeros + ones if side == "left" else ones + zeros, [1] * len(long)]


def test_padding_to_max_length_and_to_multiples(tokenizer: SmolVLMTokenizer) -> None:
    assert len(tokenizer("yes", padding="max_length", max_length=20).input_ids) == 20
    assert len(tokenizer("yes", padding=True, pad_to_multiple_of=8).input_ids) == 8
    with pytest.raises(InputError, match="max_length=..."):
        tokenizer("yes", padding="max_length")


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_cuts_the_chosen_side(tokenizer: SmolVLMTokenizer, side: str) -> None:
    ids = tokenizer.encode("one two three four five six")
    cut = tokenizer("one two three four five six", truncation=True, max_length=5, truncation_side=side)
    assert cut.input_ids == (ids[-5:] if side == "left" else ids[:5])
    assert cut.attention_mask == [1] * 5


def test_truncation_without_a_length_uses_the_models_limit_and_the_files_side(tokenizer: SmolVLMTokenizer) -> None:
    ids = tokenizer("yes " * 3000, truncation=True).input_ids
    assert len(ids) == tokenizer.model_max_length == 2048
    assert tokenizer.truncation_side == "left"


def test_calls_leave_no_state_behind(tokenizer: SmolVLMTokenizer) -> None:
    before = tokenizer.encode("a rather long text here")
    tokenizer("a rather long text here", truncation=True, max_length=2, padding="max_length")
    assert tokenizer.encode("a rather long text here") == before


def test_words_can_be_given_already_split(tokenizer: SmolVLMTokenizer) -> None:
    words = ["red", " circle"]
    expected = Tokenizer.from_str(tiny_tokenizer_json()).encode(words, is_pretokenized=True).ids
    assert tokenizer(words, is_split_into_words=True).input_ids == expected
    assert tokenizer([words, ["x"]], is_split_into_words=True).input_ids[0] == expected
    with pytest.raises(InputError, match="list of words"):
        tokenizer("red circle", is_split_into_words=True)


def test_offsets_point_into_the_text(tokenizer: SmolVLMTokenizer) -> None:
    text = "A red circle"
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    assert "".join(text[start:end] for start, end in offsets) == text


def test_return_tensors_makes_arrays_or_tensors(tokenizer: SmolVLMTokenizer) -> None:
    assert isinstance(tokenizer("yes", return_tensors="np").input_ids, np.ndarray)
    batch = tokenizer(["yes", "no way"], return_tensors="pt", padding=True)
    assert batch.input_ids.dtype == torch.int64
    assert batch.to("cpu", dtype=torch.bfloat16).input_ids.dtype == torch.int64


def test_ragged_rows_and_unknown_or_missing_kinds_of_tensors_are_refused_with_the_cure(
    tokenizer: SmolVLMTokenizer,
) -> None:
    with pytest.raises(InputError, match="padding=True"):
        tokenizer(["yes", "three shapes"], return_tensors="pt")
    with pytest.raises(InputError, match="'np', 'pt', 'tf' or 'jax'"):
        tokenizer("yes", return_tensors="cupy")
    with pytest.raises(MissingDependencyError, match="pip install"):
        tokenizer("yes", return_tensors="tf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": 3}, "must be a string"),
        ({"text": ["a", 3]}, "must be a string"),
        ({"padding": "often"}, "padding='often'"),
        ({"truncation": "often"}, "truncation='often'"),
        ({"padding_side": "top", "padding": True}, "'left' or 'right'"),
        ({"truncation_side": "top", "truncation": True}, "'left' or 'right'"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(tokenizer: SmolVLMTokenizer, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenizer(**{"text": "yes", **options})


def test_ids_decode_from_tensors_arrays_lists_and_single_numbers(tokenizer: SmolVLMTokenizer) -> None:
    ids = tokenizer.encode("a red circle")
    rows = [ids, ids]
    for batch in (rows, np.array(rows), torch.tensor(rows), [torch.tensor(ids), np.array(ids)], tuple(rows)):
        assert tokenizer.batch_decode(batch) == ["a red circle"] * 2
    assert tokenizer.decode(np.array(ids)) == tokenizer.decode(torch.tensor(ids)) == "a red circle"
    assert tokenizer.decode(ids[0]) == "a"
    assert tokenizer.batch_decode(ids) == ["a red circle"]


def test_decoding_skips_special_tokens_on_request_and_cleans_nothing_up(tokenizer: SmolVLMTokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>User: well , no . it 's<end_of_utterance>")
    assert tokenizer.decode(ids).startswith("<|im_start|>")
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
    assert text == "User: well , no . it 's"


def test_ids_that_are_no_ids_are_refused(tokenizer: SmolVLMTokenizer) -> None:
    with pytest.raises(InputError, match="-100"):
        tokenizer.decode([1, -100])
    with pytest.raises(InputError, match="whole numbers"):
        tokenizer.decode("yes")
    with pytest.raises(InputError, match="not in the vocabulary"):
        tokenizer.token_bytes(10_000)


@pytest.mark.parametrize("text", ["Hello, world!", "é 漢字 🙂 \t\n¡¬®ÿ\x00"])
def test_bytes_of_tokens_join_to_the_text(tokenizer: SmolVLMTokenizer, text: str) -> None:
    assert b"".join(tokenizer.token_bytes(index) for index in tokenizer.encode(text)) == text.encode()
    assert tokenizer.token_bytes(tokenizer.eos_token_id) == b""


def test_tokens_and_ids_convert_both_ways(tokenizer: SmolVLMTokenizer) -> None:
    ids = tokenizer.convert_tokens_to_ids(["<image>", "a", "no such token"])
    assert ids == [IDS["<image>"], tokenizer.encode("a")[0], IDS["<|endoftext|>"]]
    assert tokenizer.convert_ids_to_tokens(ids[:2]) == ["<image>", "a"]
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize("a red circle")) == "a red circle"


def test_fenced_tags_are_encoded_as_plain_text(tokenizer: SmolVLMTokenizer) -> None:
    messages = normalise_messages([{"role": "user", "content": "Is <image><end_of_utterance> a tag?"}])
    prompt = render(protect(messages, tokenizer.all_special_tokens))
    ids = tokenizer.encode_prompt(prompt)
    assert ids.count(IDS["<image>"]) == 0 and ids.count(IDS["<end_of_utterance>"]) == 1
    assert tokenizer.decode(ids) == "<|im_start|>User: Is <image><end_of_utterance> a tag?<end_of_utterance>\n"


def test_prompt_without_fences_is_encoded_in_one_piece(tokenizer: SmolVLMTokenizer) -> None:
    text = "<|im_start|>User: What is it?<end_of_utterance>\nAssistant:"
    assert tokenizer.encode_prompt(text) == tokenizer.encode(text)


def test_saved_tokenizer_loads_equal(tokenizer: SmolVLMTokenizer, tmp_path: Path) -> None:
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    again = SmolVLMTokenizer.from_pretrained(tmp_path)
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert (again.padding_side, again.model_max_length) == ("left", 2048)
    assert again.encode("<image> yes") == tokenizer.encode("<image> yes")


def test_bare_tokenizer_file_gets_the_familys_roles(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer_json())
    tokenizer = SmolVLMTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token, tokenizer.eos_token_id) == ("<|im_end|>", IDS["<end_of_utterance>"])
    assert tokenizer.fake_image_token == "<fake_token_around_image>"


def test_older_layouts_name_special_tokens_in_their_own_ways(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer_json())
    pad = {"content": "<|endoftext|>", "lstrip": False, "special": True}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad, "eos_token": "<|im_end|>"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"extra_special_tokens": {"image_token": "<global-img>"}})
    )
    tokenizer = SmolVLMTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer.image_token_id == IDS["<global-img>"]


def test_tokens_listed_in_the_config_only_are_added_with_their_ids(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer_json())
    listed = {str(IDS["size"]): {"content": "<extra>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    assert SmolVLMTokenizer.from_pretrained(tmp_path).encode("<extra>") == [IDS["size"]]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"7": {"content": "<image>"}}}))
    with pytest.raises(CheckpointError, match="different models"):
        SmolVLMTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", "{}", "can't be read|not a tokenizer file"),
        ("tokenizer_config.json", "[1]", "JSON object"),
        ("tokenizer_config.json", "{", "not valid JSON"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    write_tiny_tokenizer(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        SmolVLMTokenizer.from_pretrained(tmp_path)


def test_directory_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer.json"):
        SmolVLMTokenizer.from_pretrained(tmp_path)
