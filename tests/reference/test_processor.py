"""Prompts, ids and pixels of whole calls equal to transformers' processors: with the tiny vocabulary, and the real one.

The oracle is Idefics3Processor with the PIL image processor: the same ids as SmolVLMProcessor, without torchvision.
The text of videos comes from SmolVLMProcessor's own method.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smolvlm.processing.chat import DEFAULT_TEMPLATE, TileTokens, image_block, normalise_messages, render, video_block
from smolvlm.processing.image import SmolVLMImageProcessor
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.processing.tokenizer import SmolVLMTokenizer
from tests.tiny import CHAT_TEMPLATE, tiny_checkpoint, write_tiny_tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    "Hello, world!", "\n", "\n\n", "\n\n\n", "User:", "Assistant:", "\nFrame from 00:05:", "", " ", "  two  spaces ",
    "<|im_start|>User: What is the capital of France?<end_of_utterance>\nAssistant:",
    "<row_1_col_1><row_6_col_6><row_7_col_1><global-img><image><fake_token_around_image>",
    "1234567890 3.14 2024-03-01", "é 漢字 🙂 ̈\u200b", "don't it's we're I'll", "\t\r\n\x00\x7f", "a" * 300,
]  # fmt: skip
# Published ids of the 49,280 vocabulary.
REAL_IDS = {
    "Hello, world!": [19556, 28, 905, 17],
    "\n\n": [1116],
    "\nFrame from 00:05:": [198, 9967, 429, 216, 32, 32, 42, 32, 37, 42],
    TEXTS[10]: [1, 11126, 42, 1812, 314, 260, 3575, 282, 4649, 47, 49279, 198, 9519, 9531, 42],
}
NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(NOISE).resize((width, height))


@pytest.fixture(scope="module", params=["tiny", "real"])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tokenizer.json."""
    if request.param == "tiny":
        directory = tmp_path_factory.mktemp("vocabulary")
        write_tiny_tokenizer(directory)
        return directory
    directory = request.getfixturevalue("shared") / "data" / "tokenizer"
    if not (directory / "tokenizer.json").is_file():
        pytest.skip("the real tokenizer.json isn't in the folder of reference data")
    return directory


@lru_cache
def tokenizers(vocabulary: Path) -> tuple[SmolVLMTokenizer, Any]:
    """(ours, the oracle); loading the real vocabulary takes a second."""
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(vocabulary / "tokenizer.json"),
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    return SmolVLMTokenizer.from_pretrained(vocabulary), theirs


def pair(vocabulary: Path, side: str = "right", seq_len: int = 4, edge: int = 128) -> tuple[SmolVLMProcessor, Any]:
    """(ours, the oracle) over one vocabulary, with 32 px tiles."""
    settings = {"size": {"longest_edge": edge}, "max_image_size": {"longest_edge": 32}}
    own, foreign = tokenizers(vocabulary)
    own.padding_side = foreign.padding_side = side
    ours = SmolVLMProcessor(SmolVLMImageProcessor(**settings), own, None, seq_len, CHAT_TEMPLATE)
    theirs = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessorPil(**settings), foreign, image_seq_len=seq_len, chat_template=CHAT_TEMPLATE
    )
    return ours, theirs


def assert_same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name in expected:
        value, other = (np.asarray(one) for one in (found[name], expected[name]))
        assert value.dtype == other.dtype, name
        np.testing.assert_array_equal(value, other, err_msg=name)


def test_ids_and_texts_equal_the_fast_tokenizers(vocabulary: Path) -> None:
    ours, theirs = tokenizers(vocabulary)
    assert len(ours) == len(theirs)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.tokenize(text) == theirs.tokenize(text)
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    if len(ours) == 49280:
        for text, ids in REAL_IDS.items():
            assert ours.encode(text) == ids


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cut_side", ["left", "right"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "max_length", "max_length": 400},
        {"truncation": True, "max_length": 7},
        {"truncation": True, "max_length": 7, "padding": "longest", "return_tensors": "np"},
        {"padding": True, "pad_to_multiple_of": 16, "return_tensors": "pt"},
    ],
)
def test_padding_and_truncation_equal_the_fast_tokenizers(
    vocabulary: Path, side: str, cut_side: str, options: dict[str, Any]
) -> None:
    ours, theirs = tokenizers(vocabulary)
    ours.padding_side = theirs.padding_side = side
    ours.truncation_side = theirs.truncation_side = cut_side
    found, expected = ours(TEXTS, **options), theirs(TEXTS, **options)
    for name in ("input_ids", "attention_mask"):
        assert [list(row) for row in found[name]] == [list(row) for row in expected[name]]


def test_words_given_split_equal_the_fast_tokenizers(vocabulary: Path) -> None:
    ours, theirs = tokenizers(vocabulary)
    words = [["Hello", ",", "world"], ["<image>", "é"]]
    for given in (words, words[0]):
        found, expected = (one(given, is_split_into_words=True) for one in (ours, theirs))
        assert dict(found) == dict(expected)


SIZES = [(100, 75), (75, 100), (64, 64), (10, 10), (400, 100), (31, 33)]


@pytest.mark.parametrize("size", SIZES)
def test_one_image_gives_the_same_prompt_and_pixels(vocabulary: Path, size: tuple[int, int]) -> None:
    ours, theirs = pair(vocabulary)
    call = {"images": [picture(*size)], "text": "Look: <image> What is it?", "return_tensors": "np"}
    assert_same(ours(**call), theirs(**call))


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_batch_of_several_images_is_padded_the_same(vocabulary: Path, side: str, splitting: bool) -> None:
    ours, theirs = pair(vocabulary, side)
    call: dict[str, Any] = {
        "images": [[picture(100, 75)], [picture(64, 64), picture(20, 90)], [picture(5, 5)]],
        "text": ["<image>Describe.", "First <image>, then <image>?", "User: x<image>"],
        "padding": True,
        "return_tensors": "pt",
        "do_image_splitting": splitting,
    }
    found, expected = ours(**call), theirs(**call)
    assert isinstance(found.pixel_values, torch.Tensor)
    assert_same(found, expected)


def test_flat_list_of_images_is_dealt_out_as_idefics3_does(vocabulary: Path) -> None:
    ours, theirs = pair(vocabulary)
    call = {
        "images": [picture(40, 40), picture(90, 30), picture(30, 90)],
        "text": ["<image> and <image>", "<image>"],
        "padding": True,
        "return_tensors": "np",
    }
    assert_same(ours(**call), theirs(**call))


def test_results_are_lists_when_no_tensors_are_asked_for(vocabulary: Path) -> None:
    ours, theirs = pair(vocabulary)
    call = {"images": [[picture(50, 50)], [picture(50, 20)]], "text": ["<image>", "a <image> b"]}
    found, expected = ours(**call), theirs(**call)
    assert found["input_ids"] == expected["input_ids"] and found["attention_mask"] == expected["attention_mask"]
    assert isinstance(found["pixel_values"], list)
    for value, other in zip(found["pixel_values"], expected["pixel_values"], strict=True):
        np.testing.assert_array_equal(value, other)


def test_text_alone_and_images_alone_work_as_in_the_oracle(vocabulary: Path) -> None:
    ours, theirs = pair(vocabulary)
    assert dict(ours(text="no pictures")) == dict(theirs(text="no pictures"))
    found, expected = (one(images=[picture(50, 50)], return_tensors="np") for one in (ours, theirs))
    np.testing.assert_array_equal(found["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (None, "a <image>"),
        (1, "no placeholder"),
        (1, "<image> <image>"),
        (2, "<image>"),
        ([1, 2], ["<image>", "<image>"]),
        ([2, 1], ["<image>", "<image><image>"]),
        ([1, 1], ["<image><image>", "no"]),
        (None, None),
    ],
)
def test_wrong_counts_are_errors_here_and_there(vocabulary: Path, images: Any, text: Any) -> None:
    ours, theirs = pair(vocabulary)
    given = images
    if isinstance(images, int):
        given = [picture(20, 20)] * images
    elif isinstance(images, list):
        given = [[picture(20, 20)] * count for count in images]
    for processor in (ours, theirs):
        with pytest.raises(ValueError):
            processor(images=given, text=text)


@pytest.mark.parametrize(
    ("grid", "seq_len", "image_tokens", "total"),
    [
        ((3, 4), 64, 832, 862), ((4, 4), 64, 1088, 1127), ((1, 4), 64, 320, 332), ((0, 0), 64, 64, 67),
        ((3, 4), 81, 1053, 1083), ((4, 4), 81, 1377, 1416), ((1, 4), 81, 405, 417), ((0, 0), 81, 81, 84),
    ],
)  # fmt: skip
def test_token_counts_of_released_geometries(
    shared: Path, grid: tuple[int, int], seq_len: int, image_tokens: int, total: int
) -> None:
    tokenizer = tokenizers(shared / "data" / "tokenizer")[0]
    ids = tokenizer.encode(image_block(*grid, seq_len, TileTokens()))
    assert (ids.count(tokenizer.image_token_id), len(ids)) == (image_tokens, total)


@pytest.mark.parametrize(
    ("grid", "total"),
    [((3, 4), 1183), ((4, 4), 1548), ((1, 4), 453), ((0, 0), 88)],
    ids=["3x4", "4x4", "1x4", "unsplit"],
)
def test_tags_are_plain_text_in_the_first_2b_vocabulary(
    shared: Path, tmp_path: Path, grid: tuple[int, int], total: int
) -> None:
    """It knows `<image>`, `<fake_token_around_image>` and `<end_of_utterance>` only; here it is derived."""
    content = json.loads((shared / "data" / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    known = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 49152]
    content["added_tokens"] += [
        {"id": 49152 + index, "content": text, "special": True, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for index, text in enumerate(known)
    ]  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = SmolVLMTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.image_token_id, tokenizer.eos_token_id, len(tokenizer)) == (49153, 49154, 49155)
    ids = tokenizer.encode(image_block(*grid, 81, TileTokens()))
    assert len(ids) == total and tokenizer.decode(ids) == image_block(*grid, 81, TileTokens())


@pytest.mark.parametrize(("frames", "total"), [(1, 107), (3, 261), (9, 723)])
def test_token_counts_of_videos(shared: Path, frames: int, total: int) -> None:
    tokenizer = tokenizers(shared / "data" / "tokenizer")[0]
    assert len(tokenizer.encode(video_block([float(i) for i in range(frames)], 9.0, 64, TileTokens()))) == total


@pytest.mark.parametrize(
    ("indices", "fps", "duration"),
    [
        ([0, 33, 67, 100, 134, 168, 201, 235, 269], 30.0, 9.0),
        ([0, 69, 139, 209, 279, 348, 418, 488, 558], 59.94, 9.33),
        ([0], 30.0, 0.33),
        ([0, 74], 30.0, None),
        ([107_000, 109_000], 29.97, 3700.5),
        (list(range(0, 640, 10)), 10.0, 64.0),
    ],
)
def test_video_text_is_the_oracles(indices: list[int], fps: float, duration: float | None) -> None:
    pytest.importorskip("num2words")
    from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor as Oracle
    from transformers.video_utils import VideoMetadata

    tokens = TileTokens()
    stand_in = SimpleNamespace(
        image_seq_len=2, image_token=tokens.image, fake_image_token=tokens.fake, global_image_token=tokens.global_image
    )
    metadata = VideoMetadata(total_num_frames=indices[-1] + 1, fps=fps, duration=duration, frames_indices=indices)
    inputs = {"pixel_values": np.zeros((1, len(indices))), "video_metadata": [metadata]}
    expected = Oracle.replace_video_token(stand_in, inputs, 0)
    assert video_block([index / fps for index in indices], duration, 2, tokens) == expected


CONVERSATIONS = {
    "image first": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe."}]}],
    "text first": [{"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "image"}]}],
    "system": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi\n"}]},
        {"role": "assistant", "content": [{"type": "text", "text": " Hello "}]},
        {"role": "USER", "content": [{"type": "image"}, {"type": "image"}]},
    ],
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
@pytest.mark.parametrize("generation", [True, False])
def test_template_renders_as_the_oracles(vocabulary: Path, messages: list[dict[str, Any]], generation: bool) -> None:
    ours, theirs = pair(vocabulary)
    expected = theirs.apply_chat_template(messages, add_generation_prompt=generation)
    assert ours.apply_chat_template(messages, add_generation_prompt=generation) == expected
    assert render(normalise_messages(messages), DEFAULT_TEMPLATE, add_generation_prompt=generation) == expected
    batch = ours.apply_chat_template([messages, messages], add_generation_prompt=generation)
    assert batch == theirs.apply_chat_template([messages, messages], add_generation_prompt=generation)


def test_whole_chat_with_an_image_equals_the_oracles(vocabulary: Path, tmp_path: Path) -> None:
    ours, theirs = pair(vocabulary)
    picture(90, 60).save(tmp_path / "a.png")
    for source in ({"path": str(tmp_path / "a.png")}, {"image": picture(90, 60)}):
        messages = [{"role": "user", "content": [{"type": "image", **source}, {"type": "text", "text": "What?"}]}]
        expected = theirs.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert_same(ours.apply_chat_template(messages, add_generation_prompt=True), expected)
        found = ours.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert_same(found, expected)


def test_chat_with_continued_message_equals_the_oracles(vocabulary: Path) -> None:
    ours, theirs = pair(vocabulary)
    messages = [*CONVERSATIONS["text first"], {"role": "assistant", "content": [{"type": "text", "text": "It is a"}]}]
    expected = theirs.apply_chat_template(messages, continue_final_message=True)
    assert ours.apply_chat_template(messages, continue_final_message=True) == expected


def test_our_own_road_meets_the_oracle_at_high_detail(vocabulary: Path) -> None:
    ours, theirs = pair(vocabulary)
    pictures = [picture(90, 60), picture(20, 100)]
    content = [{"type": "image", "image": one} for one in pictures] + [{"type": "text", "text": "Compare."}]
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="np",
    )  # fmt: skip
    inputs = ours.prepare([{"role": "user", "content": content}], detail="high")
    np.testing.assert_array_equal(inputs.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(inputs.pixel_values, expected["pixel_values"][0])


def test_saved_processor_is_read_by_transformers(tmp_path: Path) -> None:
    ours = SmolVLMProcessor.from_pretrained(tiny_checkpoint(tmp_path / "a"))
    ours.save_pretrained(tmp_path / "b")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    image_processor = transformers.SmolVLMImageProcessorPil.from_pretrained(tmp_path / "b")
    theirs = transformers.Idefics3Processor(image_processor, tokenizer, image_seq_len=16)
    assert theirs.image_token_id == ours.image_token_id
    call = {"images": [picture(90, 60)], "text": "<image>x", "return_tensors": "np"}
    assert_same(ours(**call), theirs(**call))


def test_processor_saved_by_transformers_is_read_here(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "a", model_type="idefics3")
    theirs = transformers.Idefics3Processor.from_pretrained(checkpoint)
    theirs.save_pretrained(tmp_path / "b")
    ours = SmolVLMProcessor.from_pretrained(tmp_path / "b")
    assert ours.image_seq_len == 16 and ours.chat_template == CHAT_TEMPLATE
    call = {"images": [picture(90, 60)], "text": "<image>x", "return_tensors": "np"}
    assert_same(ours(**call), theirs(**call))


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_published_snippet_writes_the_oracles_tokens(tmp_path: Path, model_type: str) -> None:
    from smolvlm.hf import AutoModelForImageTextToText, AutoProcessor

    checkpoint = tiny_checkpoint(tmp_path, model_type=model_type)
    content = [{"type": "image", "image": picture(90, 60)}, {"type": "text", "text": "What?"}]
    inputs = AutoProcessor.from_pretrained(checkpoint).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    found = AutoModelForImageTextToText.from_pretrained(checkpoint).generate(**inputs, max_new_tokens=24)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint)
    expected = theirs.generate(**inputs, max_new_tokens=24, do_sample=False)
    assert found.tolist() == expected.tolist()
