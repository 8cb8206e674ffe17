"""The reference's road on tiny checkpoints: calls, chat templates, decoding, errors. Parity: tests/reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.errors import (
    InputError,
    MissingDependencyError,
    PromptError,
)
from smolvlm.processing.processor import SmolVLMProcessor
from tests.talks import IDS, TILE_TOKENS, image_block, image_tokens, picture, user
from tests.tiny import tiny_checkpoint
from tests.videos import write_video


def test_published_pattern_of_prompt_then_call_gives_the_same_inputs(processor: SmolVLMProcessor) -> None:
    one, two = picture(seed=1), picture(90, 20, seed=2)
    prompt = processor.apply_chat_template(user({"type": "image"}, {"type": "image"}, "?"), add_generation_prompt=True)
    assert prompt == "<|im_start|>User:<image><image>?<end_of_utterance>\nAssistant:"
    called = processor(text=prompt, images=[one, two], return_tensors="pt")
    whole = processor.apply_chat_template(user(image_block(one), image_block(two), "?"), add_generation_prompt=True)
    assert list(called) == ["input_ids", "attention_mask", "pixel_values", "pixel_attention_mask"] == list(whole)
    for name in called:
        torch.testing.assert_close(called[name], whole[name], rtol=0, atol=0)


def test_what_comes_out_when_tokenize_is_not_given(processor: SmolVLMProcessor) -> None:
    plain = [{"role": "user", "content": "who are you?"}]
    assert processor.apply_chat_template(plain) == "<|im_start|>User: who are you?<end_of_utterance>\n"
    assert processor.apply_chat_template([plain, plain])[1].startswith("<|im_start|>User: who")
    shown = user(image_block(picture()), "?")
    assert isinstance(processor.apply_chat_template(shown), dict)
    assert processor.apply_chat_template(shown, tokenize=False) == "<|im_start|>User:<image>?<end_of_utterance>\n"
    assert processor.apply_chat_template(plain, return_tensors="np").shape[0] == 1
    assert set(processor.apply_chat_template([plain], return_dict=True)) == {"input_ids", "attention_mask"}
    assert processor.apply_chat_template(plain, tokenize=True) == [
        processor.tokenizer.encode("<|im_start|>User: who are you?<end_of_utterance>\n")
    ]
    assert set(processor.apply_chat_template(plain, tokenize=True, return_dict=True)) == {"input_ids", "attention_mask"}
    assert isinstance(processor.apply_chat_template(shown, tokenize=True, return_dict=False), list)


def test_ragged_batch_is_padded_on_the_left_by_itself(processor: SmolVLMProcessor) -> None:
    talks = [
        user(image_block(picture(100, 60)), "Describe this image."),
        user(image_block(picture(9, 9)), image_block(picture(50, 50)), "What is written?"),
        [{"role": "user", "content": "who are you?"}],
    ]
    batch = processor.apply_chat_template(talks, add_generation_prompt=True, tokenize=True, return_tensors="pt")
    assert batch.attention_mask[:, -1].all() and not batch.attention_mask[2, 0]
    for row, talk in enumerate(talks):
        alone = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert batch.input_ids[row][batch.attention_mask[row] == 1].tolist() == alone["input_ids"][0]
    assert batch.pixel_values.shape[:2] == (3, 34), "13 tiles in one row, twice 17 in another"


def test_inputs_move_to_a_dtype_while_ids_stay_whole_numbers(processor: SmolVLMProcessor) -> None:
    inputs = processor.apply_chat_template(user(image_block(picture()))).to("cpu", dtype=torch.bfloat16)
    assert inputs.pixel_values.dtype == torch.bfloat16 and inputs["pixel_attention_mask"].dtype == torch.int64
    assert inputs.input_ids.dtype == torch.int64
    with pytest.raises(AttributeError, match="they hold input_ids"):
        _ = inputs.labels


def test_pictures_and_videos_are_mixed_freely_in_a_call(processor: SmolVLMProcessor, video: Path) -> None:
    images = [[picture(9, 9, 1)], [picture(100, 60, 2), picture(9, 9, 3)], []]
    batch = processor(
        text=["a <image> b <video>", "<image><image>", "none"],
        images=images,
        videos=[[str(video)], [], []],
        padding=True,
        return_tensors="np",
    )
    assert [image_tokens(row) // TILE_TOKENS for row in batch.input_ids] == [17 + 5, 13 + 17, 0]
    real = (batch.pixel_values != 0).any(axis=(2, 3, 4)).sum(axis=1)
    np.testing.assert_array_equal(real, [22, 30, 0])
    np.testing.assert_array_equal(batch.pixel_attention_mask.max(axis=(2, 3)).sum(axis=1), [22, 30, 0])
    own = processor(text="<image><image>", images=images[1], return_tensors="np")
    np.testing.assert_array_equal(batch.pixel_values[1], own.pixel_values[0])


def test_videos_are_dealt_out_by_their_placeholders(processor: SmolVLMProcessor, video: Path) -> None:
    frames = [picture(seed=seed) for seed in range(2)]
    texts = ["<video><video>", "and <video>"]
    batch = processor(text=texts, videos=[frames, str(video), frames], padding=True, return_tensors="np")
    assert [image_tokens(row) // TILE_TOKENS for row in batch.input_ids] == [2 + 5, 2]
    nested = processor(text=texts, videos=[[frames, str(video)], [frames]], padding=True, return_tensors="np")
    np.testing.assert_array_equal(batch.input_ids, nested.input_ids)
    np.testing.assert_array_equal(batch.pixel_values, nested.pixel_values)
    with pytest.raises(PromptError, match=r"Found \[2, 1\] <video> tokens and \[1, 2\] videos per sample"):
        processor(text=texts, videos=[[frames], [frames, str(video)]])


def test_video_options_reach_the_video(processor: SmolVLMProcessor, video: Path) -> None:
    for options in ({"num_frames": 2}, {"max_frames": 2}, {"videos_kwargs": {"num_frames": 2}}):
        batch = processor(text="<video>", videos=[str(video)], return_tensors="np", **options)
        assert batch.pixel_values.shape == (1, 2, 3, 32, 32)
        assert "series of two frames" in processor.tokenizer.decode(batch.input_ids[0])
    batch = processor.apply_chat_template(user({"type": "video", "path": str(video)}), fps=1.4, return_metadata=True)
    assert batch.pixel_values.shape[1] == 7
    assert batch.video_metadata[0].seen().indices[-1] == 49
    assert batch.to(dtype=torch.float16).video_metadata[0].fps == 10


def test_paths_of_frames_are_one_video_in_a_block(processor: SmolVLMProcessor, tmp_path: Path) -> None:
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f"{index}.png"))
        picture(seed=index).save(paths[-1])
    batch = processor.apply_chat_template(user({"type": "video", "video": paths}), add_generation_prompt=True)
    inputs = processor.prepare(user({"type": "video", "video": paths}))
    np.testing.assert_array_equal(batch.input_ids[0], inputs.input_ids)
    np.testing.assert_array_equal(batch.pixel_values[0], inputs.pixel_values)


def test_padded_frames_are_counted_only_when_the_references_quirk_is_asked_for(processor: SmolVLMProcessor) -> None:
    short, long = [picture(seed=0)] * 2, [picture(seed=1)] * 4
    call: dict[str, Any] = {"text": ["<video>", "<video>"], "videos": [short, long], "padding": True}
    texts = processor.tokenizer.batch_decode(processor(**call).input_ids)
    assert "series of two frames" in texts[0] and "series of four frames" in texts[1]
    quirky = processor.tokenizer.batch_decode(processor(**call, reference_quirks=True).input_ids)
    assert "series of four frames" in quirky[0]
    assert quirky[0].count("Frame from") == 2, "the reference states four and shows two"


def test_first_generation_checkpoints_show_fifty_frames_spread_evenly(tmp_path: Path) -> None:
    processor = SmolVLMProcessor.from_pretrained(tiny_checkpoint(tmp_path / "v1", model_type="idefics3"))
    clip = write_video(tmp_path / "long.mp4", frames=101, rate=10)
    seen = processor.prepare(user({"type": "video", "path": str(clip)})).frames[0]
    assert len(seen.indices) == 50 and (seen.indices[0], seen.indices[-1]) == (0, 100)
    assert set(np.diff(seen.indices)) == {2, 3}


def test_words_given_split_may_hold_placeholders(processor: SmolVLMProcessor) -> None:
    image = picture(9, 9)
    batch = processor(text=["Look", "<image>", "now"], images=[image], is_split_into_words=True)
    expected = [
        *processor.tokenizer.encode("Look"),
        *processor(text="<image>", images=[image]).input_ids[0],
        *processor.tokenizer.encode("now"),
    ]
    assert batch.input_ids == [expected]


def test_truncation_may_cut_text_but_never_a_picture(processor: SmolVLMProcessor) -> None:
    processor.image_processor.do_image_splitting = False
    image = picture(9, 9)
    text = "word " * 50 + "<image>"
    kept = processor(text=text, images=[image], truncation=True, max_length=40)
    assert len(kept.input_ids[0]) == 40 and image_tokens(kept.input_ids[0]) == TILE_TOKENS, "cut on the left"
    with pytest.raises(PromptError, match="a picture can't be cut"):
        processor(text=text, images=[image], truncation=True, max_length=10)
    with pytest.raises(PromptError, match="a picture can't be cut"):
        processor.apply_chat_template(user(image_block(image)), truncation=True, max_length=10)


def test_arguments_of_pictures_may_be_loose_or_grouped(processor: SmolVLMProcessor) -> None:
    image = picture(100, 60)
    for options in ({"do_image_splitting": False}, {"images_kwargs": {"do_image_splitting": False}}):
        assert processor(text="<image>", images=image, return_tensors="np", **options).pixel_values.shape[1] == 1
        batch = processor.apply_chat_template(user(image_block(image)), **options)
        assert batch.pixel_values.shape[1] == 1
        batch = processor.apply_chat_template(user(image_block(image)), processor_kwargs=options)
        assert batch.pixel_values.shape[1] == 1


def test_only_image_tokens_are_marked_as_such(processor: SmolVLMProcessor) -> None:
    batch = processor(text="a <image> b", images=picture(9, 9), return_mm_token_type_ids=True, return_tensors="np")
    np.testing.assert_array_equal(batch.mm_token_type_ids == 1, batch.input_ids == IDS["<image>"])


def test_variables_of_a_template_are_not_mistaken_for_arguments(processor: SmolVLMProcessor) -> None:
    template = "{{ bos_token }}{{ mood }}{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    assert processor.apply_chat_template(user("Hi"), template, mood="glad ") == "<|im_start|>glad Hi"
    with pytest.raises(InputError, match="no argument 'mood'"):
        processor.apply_chat_template(user("Hi"), mood="glad")


def test_empty_lists_of_media_are_no_media(processor: SmolVLMProcessor) -> None:
    assert set(processor(text="x", images=[], videos=[])) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({}, PromptError, "at least one input"),
        ({"text": "<image>"}, PromptError, "Found 1 <image> tokens in the text but no images were passed"),
        ({"text": "<video>"}, PromptError, "Found 1 <video> tokens in the text but no videos were passed"),
        ({"text": "x", "images": [picture(9, 9)]}, PromptError, "Found total 0 <image> tokens and 1 images"),
        (
            {"text": ["<image>", "<image><image>"], "images": [[picture(9, 9)] * 2, [picture(9, 9)]]},
            PromptError,
            r"Found \[1, 2\] <image> tokens and \[2, 1\] images per sample",
        ),
        ({"images": [picture(9, 9)], "videos": [[picture(9, 9)]]}, PromptError, "exactly one of `images` or `videos`"),
        ({"text": 3}, InputError, "must be a string"),
        ({"text": "x", "audio": [0.0]}, InputError, "hear no sound"),
        ({"text": "x", "colour": "red"}, InputError, "no argument 'colour'"),
        ({"text": "x", "images_kwargs": {"colour": "red"}}, InputError, "images_kwargs has no argument 'colour'"),
        ({"text": ["x", "long text"], "return_tensors": "pt"}, InputError, "padding=True"),
        ({"text": "x", "return_tensors": "cupy"}, InputError, "'np', 'pt', 'tf' or 'jax'"),
        ({"text": "x", "return_tensors": "jax"}, MissingDependencyError, "pip install jax"),
    ],
)
def test_calls_that_cannot_be_answered_say_why(
    processor: SmolVLMProcessor, call: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        processor(**call)


def test_blocks_with_and_without_a_source_do_not_mix(processor: SmolVLMProcessor) -> None:
    with pytest.raises(PromptError, match="1 of 2 pictures and videos have a source"):
        processor.apply_chat_template(user(image_block(picture()), {"type": "image"}))
    with pytest.raises(PromptError, match="needs something to look at"):
        processor.apply_chat_template(user({"type": "image"}), tokenize=True)


def test_batch_decode_leaves_special_tokens_out(processor: SmolVLMProcessor) -> None:
    ids = processor.tokenizer.encode("<|im_start|>User:<image> yes<end_of_utterance>")
    for batch in ([ids], np.array([ids]), torch.tensor([ids]), ids):
        assert processor.batch_decode(batch, skip_special_tokens=True, clean_up_tokenization_spaces=True) == [
            "User: yes"
        ]
    assert processor.batch_decode([ids]) == ["User: yes"] == [processor.decode(ids)]
    assert processor.decode(ids, skip_special_tokens=False) == "<|im_start|>User:<image> yes<end_of_utterance>"
    assert processor.post_process_image_text_to_text(torch.tensor([ids])) == ["User: yes"]
