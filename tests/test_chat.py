"""Prompt text: tile tags, video text, messages, the template. Expected texts are the family's, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smolvlm.errors import PromptError
from smolvlm.processing.chat import (
    TileTokens,
    expand,
    fenced_pieces,
    image_block,
    is_batch,
    media_blocks,
    normalise_messages,
    number_words,
    protect,
    render,
    video_block,
)
from tests.tiny import CHAT_TEMPLATE

TOKENS = TileTokens()
FAKE = "<fake_token_around_image>"


def conversation(*blocks: object, role: str = "user") -> list[dict[str, object]]:
    return normalise_messages([{"role": role, "content": list(blocks)}])


def test_unsplit_image_is_one_global_tile_between_two_fake_tokens() -> None:
    assert image_block(0, 0, 3, TOKENS) == f"{FAKE}<global-img><image><image><image>{FAKE}"


def test_split_image_lists_tiles_by_row_then_an_empty_line_then_the_global_tile() -> None:
    assert image_block(2, 2, 1, TOKENS) == (
        f"{FAKE}<row_1_col_1><image>{FAKE}<row_1_col_2><image>\n"
        f"{FAKE}<row_2_col_1><image>{FAKE}<row_2_col_2><image>\n"
        f"\n{FAKE}<global-img><image>{FAKE}"
    )


@pytest.mark.parametrize(("rows", "cols", "tiles"), [(3, 4, 13), (4, 4, 17), (1, 4, 5), (0, 0, 1)])
def test_image_block_holds_one_run_of_image_tokens_per_tile(rows: int, cols: int, tiles: int) -> None:
    assert image_block(rows, cols, 64, TOKENS).count("<image>") == tiles * 64


def test_video_text_counts_frames_in_words_and_clocks_each_frame() -> None:
    tile = f"{FAKE}<global-img><image><image>{FAKE}"
    assert video_block([0.0, 4.97, 65.2], 70.9, 2, TOKENS) == (
        "You are provided the following series of three frames from a 0:01:10 [H:MM:SS] video.\n"
        f"\nFrame from 00:00:{tile}\nFrame from 00:04:{tile}\nFrame from 01:05:{tile}\n\n"
    )


def test_video_without_duration_takes_its_last_timestamp_and_minutes_pass_59() -> None:
    text = video_block([3599.9, 6001.0], None, 1, TOKENS)
    assert "two frames from a 1:40:01 [H:MM:SS] video" in text
    assert "Frame from 59:59:" in text and "Frame from 100:01:" in text


def test_video_can_state_the_padded_count_as_the_reference_does() -> None:
    assert "series of four frames" in video_block([0.0, 1.0], 2, 1, TOKENS, num_frames=4)


def test_video_without_frames_is_refused() -> None:
    with pytest.raises(PromptError, match="at least one frame"):
        video_block([], 1.0, 1, TOKENS)


def test_numbers_are_written_as_num2words_writes_them() -> None:
    num2words = pytest.importorskip("num2words").num2words
    for number in [*range(1300), 2001, 9999, 10_000, 99_999, 100_100, 123_456, 999_999]:
        assert number_words(number) == num2words(number)


def test_number_beyond_a_million_is_refused() -> None:
    with pytest.raises(PromptError, match="1000000 frames"):
        number_words(1_000_000)


IMAGE, TEXT, VIDEO = {"type": "image"}, {"type": "text", "text": "Describe."}, {"type": "video"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (conversation(IMAGE, TEXT), "<|im_start|>User:<image>Describe.<end_of_utterance>\nAssistant:"),
        (conversation("Hi ", IMAGE), "<|im_start|>User: Hi <image><end_of_utterance>\nAssistant:"),
        (conversation(VIDEO, TEXT), "<|im_start|>User: <video>Describe.<end_of_utterance>\nAssistant:"),
        (
            normalise_messages([{"role": "system", "content": "Be brief."}, {"role": "USER", "content": "Hi"}]),
            "<|im_start|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\nAssistant:",
        ),
    ],
    ids=["image first", "text first", "video first", "system, and role in capitals"],
)
def test_template_renders_the_published_prompts(messages: list[dict[str, object]], expected: str) -> None:
    assert render(messages, add_generation_prompt=True) == expected
    if "<video>" not in expected:
        assert render(messages, CHAT_TEMPLATE, add_generation_prompt=True) == expected


def test_without_generation_prompt_the_text_ends_after_the_last_turn() -> None:
    assert render(conversation("Hi")) == "<|im_start|>User: Hi<end_of_utterance>\n"


def test_last_message_can_be_continued() -> None:
    messages = normalise_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am "}])
    assert render(messages, continue_final_message=True).endswith("Assistant: I am ")
    with pytest.raises(PromptError, match="pass one of them"):
        render(messages, continue_final_message=True, add_generation_prompt=True)


@pytest.mark.parametrize(
    "content", ["Hi", ["Hi"], {"type": "text", "text": "Hi"}, [{"type": "input_text", "text": "Hi"}]]
)
def test_plain_content_becomes_a_text_block(content: object) -> None:
    assert normalise_messages([{"role": "user", "content": content}]) == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    ]


@pytest.mark.parametrize("content", [None, "", []])
def test_empty_content_still_renders(content: object) -> None:
    assert render(normalise_messages([{"role": "assistant", "content": content}])).startswith("<|im_start|>Assistant: ")


@pytest.mark.parametrize(
    ("block", "source"),
    [
        ({"type": "image", "image": "a.png"}, "a.png"),
        ({"type": "image", "path": "a.png"}, "a.png"),
        ({"type": "image", "url": "https://x.org/a.png"}, "https://x.org/a.png"),
        ({"type": "image", "base64": "AAAA"}, "data:image/*;base64,AAAA"),
        ({"type": "image_url", "image_url": "https://x.org/a.png"}, "https://x.org/a.png"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "data:image/png;base64,AAAA"),
        ({"type": "video", "video": "a.mp4"}, "a.mp4"),
        ({"type": "video", "path": "a.mp4"}, "a.mp4"),
        ({"type": "video_url", "video_url": {"url": "https://x.org/a.mp4"}}, "https://x.org/a.mp4"),
    ],
)
def test_media_blocks_of_every_spelling_come_out_with_one_source(block: dict[str, object], source: str) -> None:
    (found,) = media_blocks(conversation(block))
    assert found["source"] == source
    assert found["type"] in ("image", "video")


def test_media_options_stay_with_their_block_and_the_callers_message_is_untouched() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    block = {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}
    message = {"role": "user", "content": [block, {"type": "image", "image": pixels}]}
    first, second = media_blocks(normalise_messages([message]))
    assert first == {"type": "image", "source": "a.png", "detail": "low"}
    assert second["source"] is pixels
    assert block == {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}


def test_block_without_source_is_a_placeholder() -> None:
    assert media_blocks(conversation(IMAGE, TEXT)) == [{"type": "image"}]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ("hello", "at least one message"),
        (["hello"], "must be a dictionary"),
        ([{"content": "x"}], "needs a 'role'"),
        ([{"role": "user", "content": 3}], "a text or a list of blocks"),
        ([{"role": "user", "content": [3]}], "must be a dictionary with 'type'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "needs a string 'text'"),
        ([{"role": "user", "content": [{"type": "audio", "path": "a.wav"}]}], "hears no sound"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "'text', 'image' and 'video'"),
        ([{"role": "user", "content": [{"type": "image", "url": "a", "path": "b"}]}], "give one source"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "without 'url'"),
    ],
)
def test_messages_that_cannot_be_understood_say_why(messages: object, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        normalise_messages(messages)


def test_batch_is_told_from_one_conversation() -> None:
    one = [{"role": "user", "content": "Hi"}]
    assert not is_batch(one)
    assert is_batch([one, one])


def test_template_errors_name_the_template() -> None:
    with pytest.raises(PromptError, match="not valid Jinja"):
        render(conversation("Hi"), "{% for %}")
    with pytest.raises(PromptError, match="roles must alternate"):
        render(conversation("Hi"), "{{ raise_exception('roles must alternate') }}")


def test_template_runs_in_a_sandbox_and_sees_no_objects() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    messages = conversation({"type": "image", "image": pixels})
    assert "ndarray" not in render(messages, "{{ messages }}")
    with pytest.raises(PromptError):
        render(messages, "{{ ''.__class__.__mro__[1].__subclasses__() }}")


def test_templates_made_for_training_render_their_generation_blocks() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m['content'] | tojson }}{% endgeneration %}{% break %}{% endfor %}"
    )
    assert render(conversation("é"), template) == '[{"type": "text", "text": "é"}]'


def test_tags_in_a_users_text_are_fenced_and_do_not_count_as_placeholders() -> None:
    messages = protect(
        conversation(IMAGE, "What does <image> mean?<end_of_utterance>"), ["<image>", "<end_of_utterance>"]
    )
    prompt = expand(render(messages), [("image", "[picture]")], TOKENS)
    pieces = fenced_pieces(prompt)
    assert [text for text, fenced in pieces if fenced] == ["<image>", "<end_of_utterance>"]
    assert "".join(text for text, _ in pieces) == (
        "<|im_start|>User:[picture]What does <image> mean?<end_of_utterance><end_of_utterance>\n"
    )


def test_fences_in_a_users_text_cannot_forge_a_tag() -> None:
    (message,) = protect(conversation("\ufdd0<image>\ufdd1 \ufdd1<image>\ufdd0"), ["<image>"])
    text = message["content"][0]["text"]
    assert text == "\ufdd0<image>\ufdd1 \ufdd0<image>\ufdd1"


def test_images_and_videos_take_their_places_in_order() -> None:
    assert expand("a<video>b<image>c", [("video", "V"), ("image", "I")], TOKENS) == "aVbIc"


def test_media_that_do_not_fit_the_placeholders_are_named() -> None:
    with pytest.raises(PromptError, match="placeholders for image, image but the request holds image"):
        expand("<image><image>", [("image", "I")], TOKENS)
