"""The processor on tiny checkpoints: both roads, files in every layout, errors. Parity: tests/reference."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smolvlm.errors import (
    CheckpointError,
    ContextLengthError,
    FetchError,
    ImageError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    PromptError,
)
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.types import Features, FramesSeen
from tests.tiny import CHAT_TEMPLATE, tiny_checkpoint, tiny_token_ids
from tests.videos import write_video

IDS = tiny_token_ids()
TILE_TOKENS = 16  # of the tiny checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture()
def processor(checkpoint: Path) -> SmolVLMProcessor:
    return SmolVLMProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds at ten frames a second: at 1 fps, frames 0, 12, 24, 36 and 49."""
    return write_video(tmp_path_factory.mktemp("video") / "five.mp4", frames=50, rate=10)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(*blocks: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def image_block(source: Any = None, **options: Any) -> dict[str, Any]:
    return {"type": "image", "image": source, **options}


def image_tokens(ids: Any) -> int:
    return int((np.asarray(ids) == IDS["<image>"]).sum())


# ---- our road -------------------------------------------------------------------------------------------------------


def test_every_tile_has_its_image_tokens_and_every_video_its_frames(processor: SmolVLMProcessor, video: Path) -> None:
    messages = user(
        image_block(picture(100, 60)), "then", {"type": "video", "path": str(video)}, "and", image_block(picture(9, 9))
    )
    inputs = processor.prepare(messages)
    assert inputs.pixel_values is not None
    assert inputs.tile_rows_cols == ((3, 4), *[(0, 0)] * 5, (0, 0))
    assert inputs.pixel_values.shape == (13 + 5 + 1, 3, 32, 32)
    assert image_tokens(inputs.input_ids) == 19 * TILE_TOKENS
    (seen,) = inputs.frames
    assert (seen.indices, seen.timestamps_s, seen.duration_s) == ((0, 12, 24, 36, 49), (0.0, 1.2, 2.4, 3.6, 4.9), 5.0)
    text = processor.tokenizer.decode(inputs.input_ids, skip_special_tokens=True)
    assert "following series of five frames from a 0:00:05 [H:MM:SS] video" in text
    assert text.index("then") < text.index("Frame from 00:04:") < text.index("and")


def test_tiles_come_in_the_order_of_the_prompt(processor: SmolVLMProcessor, video: Path) -> None:
    first, last = picture(20, 20, seed=1), picture(20, 20, seed=2)
    clip = {"type": "video", "video": str(video)}
    mixed = processor.prepare(user(image_block(first), clip, image_block(last))).pixel_values
    alone = [processor.prepare(user(one)).pixel_values for one in (image_block(first), clip, image_block(last))]
    np.testing.assert_array_equal(mixed, np.concatenate([one for one in alone if one is not None]))


def test_every_way_to_name_a_picture_gives_the_same_inputs(processor: SmolVLMProcessor, tmp_path: Path) -> None:
    image = picture()
    image.save(tmp_path / "a.png")
    encoded = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    pixels = np.asarray(image)
    blocks = [
        image_block(image),
        image_block(pixels),
        image_block(torch.from_numpy(pixels.copy()).permute(2, 0, 1)),
        image_block(str(tmp_path / "a.png")),
        {"type": "image", "path": tmp_path / "a.png"},
        {"type": "image", "base64": encoded},
        {"type": "image", "url": f"data:image/png;base64,{encoded}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        image_block((tmp_path / "a.png").read_bytes()),
    ]
    expected = processor.prepare(user(blocks[0], "?"), detail="high")
    for block in blocks[1:]:
        for inputs in (processor.prepare(user(block, "?"), detail="high"),):
            np.testing.assert_array_equal(inputs.input_ids, expected.input_ids)
            np.testing.assert_array_equal(inputs.pixel_values, expected.pixel_values)
        batch = processor.apply_chat_template(user(block, "?"), add_generation_prompt=True)
        np.testing.assert_array_equal(batch.input_ids[0], expected.input_ids)
        np.testing.assert_array_equal(batch.pixel_values[0], expected.pixel_values)


def test_detail_decides_the_tiles_of_a_picture(processor: SmolVLMProcessor) -> None:
    grids = {
        detail: processor.prepare(user(image_block(picture(40, 30))), detail=detail).tile_rows_cols  # type: ignore[arg-type]
        for detail in ("low", "auto", "high")
    }
    assert grids == {"low": ((0, 0),), "auto": ((2, 2),), "high": ((3, 4),)}
    own = processor.prepare(user(image_block(picture(40, 30), detail="low")), detail="high")
    assert own.tile_rows_cols == ((0, 0),)


def test_processor_told_not_to_split_does_not(processor: SmolVLMProcessor) -> None:
    processor.image_processor.do_image_splitting = False
    for detail in ("low", "auto", "high"):
        inputs = processor.prepare(user(image_block(picture(100, 60))), detail=detail)  # type: ignore[arg-type]
        assert inputs.tile_rows_cols == ((0, 0),)


def test_max_image_tokens_limits_each_picture_and_video(processor: SmolVLMProcessor, video: Path) -> None:
    messages = user(image_block(picture(100, 60)), {"type": "video", "video": str(video)})
    inputs = processor.prepare(messages, detail="high", max_image_tokens=5 * TILE_TOKENS - 1)
    assert inputs.tile_rows_cols == ((0, 0), *[(0, 0)] * 4)
    assert processor.prepare(messages, detail="high", max_image_tokens=7 * TILE_TOKENS).tile_rows_cols[0] == (2, 3)
    with pytest.raises(InputError, match="less than one tile"):
        processor.prepare(messages, max_image_tokens=TILE_TOKENS - 1)


def test_fps_and_max_frames_choose_frames(processor: SmolVLMProcessor, video: Path) -> None:
    clip = {"type": "video", "video": str(video)}
    assert len(processor.prepare(user(clip), fps=1.4).frames[0].indices) == 7
    assert processor.prepare(user(clip), max_frames=4).frames[0].indices == (0, 16, 32, 49)
    assert processor.prepare(user({**clip, "max_frames": 3})).frames[0].indices == (0, 24, 49)


def test_list_of_frames_is_a_video_with_times_of_its_own(processor: SmolVLMProcessor) -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    seconds = processor.prepare(user({"type": "video", "video": frames})).frames[0]
    assert seconds.timestamps_s == (0.0, 1.0, 2.0)
    half = processor.prepare(user({"type": "video", "video": frames, "fps": 0.5})).frames[0]
    assert half.timestamps_s == (0.0, 2.0, 4.0)
    given = processor.prepare(user({"type": "video", "video": frames, "timestamps_s": [1, 5, 61]}))
    assert "Frame from 01:01:" in processor.tokenizer.decode(given.input_ids)


def test_video_cut_off_in_the_middle_is_told_as_it_was_seen(
    processor: SmolVLMProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=50, rate=10)
    from smolvlm.media.container import FileVideo

    whole = FileVideo.frames
    monkeypatch.setattr(FileVideo, "frames", lambda self, indices: list(whole(self, indices))[:3])
    inputs = processor.prepare(user({"type": "video", "video": str(path)}))
    assert inputs.frames[0].indices == (0, 12, 24)
    assert inputs.pixel_values is not None and len(inputs.pixel_values) == 3
    assert image_tokens(inputs.input_ids) == 3 * TILE_TOKENS
    assert "series of three frames" in processor.tokenizer.decode(inputs.input_ids)


def test_tags_in_a_users_words_stay_words(processor: SmolVLMProcessor) -> None:
    inputs = processor.prepare(user("What is <image>, and <video>?<end_of_utterance>", image_block(picture(9, 9))))
    assert image_tokens(inputs.input_ids) == TILE_TOKENS
    assert (inputs.input_ids == IDS["<end_of_utterance>"]).sum() == 1
    assert "What is <image>, and <video>?<end_of_utterance>" in processor.tokenizer.decode(inputs.input_ids)


def test_urls_are_refused_by_our_road_unless_allowed(
    processor: SmolVLMProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    content = io.BytesIO()
    picture(9, 9).save(content, "PNG")

    def fetch(url: str, **_: object) -> bytes:
        asked.append(url)
        return content.getvalue()

    monkeypatch.setattr("smolvlm.media.source.fetch", fetch)
    block = {"type": "image", "url": "https://example.org/a.png"}
    with pytest.raises(FetchError, match="allow_url=True"):
        processor.prepare(user(block))
    assert asked == []
    assert processor.prepare(user(block), allow_url=True).tile_rows_cols == ((0, 0),)
    assert len(asked) == 1, "fetched once, not for the size and again for the pixels"
    processor.apply_chat_template(user(block))
    assert len(asked) == 2, "the reference's road fetches, under guard"


def test_count_from_headers_equals_what_is_prepared(processor: SmolVLMProcessor, video: Path, tmp_path: Path) -> None:
    picture(100, 60).save(tmp_path / "a.png")
    messages = user(image_block(str(tmp_path / "a.png")), {"type": "video", "path": str(video)}, "What?")
    report, inputs = processor.count(messages, context=2000), processor.prepare(messages)
    assert report.total == len(inputs.input_ids) == report.text + report.image
    assert report.tiles == 13 + 5 and inputs.pixel_values is not None and len(inputs.pixel_values) == report.tiles
    assert (report.context, report.left) == (2000, 2000 - report.total)
    image, clip = report.media
    assert (image.kind, image.width, image.height, image.rows, image.cols, image.tiles) == ("image", 100, 60, 3, 4, 13)
    assert image.tokens == 12 * (TILE_TOKENS + 2) + 2 + 1 + (TILE_TOKENS + 3)
    assert (clip.kind, clip.tiles, clip.timestamps_s) == ("video", 5, (0.0, 1.2, 2.4, 3.6, 4.9))


def test_count_reads_only_the_header_of_a_picture(processor: SmolVLMProcessor, tmp_path: Path) -> None:
    picture(100, 60).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    assert processor.count(user(image_block(tmp_path / "cut.png"))).tiles == 13
    with pytest.raises(ImageError):
        processor.prepare(user(image_block(tmp_path / "cut.png")))


def test_more_pictures_than_the_context_holds_says_how_many_fit(
    processor: SmolVLMProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.processing.request.open_image", None)  # nothing is decoded before it is known to fit
    cost = processor.count(user(image_block(picture(100, 60)))).media[0].tokens
    messages = user(*[image_block(picture(100, 60))] * 9, "Compare.")
    with pytest.raises(ContextLengthError, match=r"the first 8 of 9 pictures and videos fit.*detail='low'"):
        processor.prepare(messages)  # the tokenizer's limit: 2048
    with pytest.raises(ContextLengthError, match="the first 2 of 9"):
        processor.prepare(messages, context=3 * cost)
    with pytest.raises(ContextLengthError, match="Shorten the text"):
        processor.prepare(user("yes " * 3000))


def test_collating_pads_prompts_on_the_left_and_tiles_with_zeros(processor: SmolVLMProcessor) -> None:
    requests = [
        processor.prepare(user(image_block(picture(100, 60)), "What?")),
        processor.prepare(user("Who are you?")),
        processor.prepare(user(image_block(picture(9, 9)))),
    ]
    batch = processor.collate(requests)
    for row, one in enumerate(requests):
        length = len(one.input_ids)
        np.testing.assert_array_equal(batch["input_ids"][row, -length:], one.input_ids)
        assert (batch["input_ids"][row, :-length] == IDS["<|im_end|>"]).all()
        assert batch["attention_mask"][row].sum() == batch["attention_mask"][row, -length:].sum() == length
        tiles = 0 if one.pixel_values is None else len(one.pixel_values)
        np.testing.assert_array_equal(batch["pixel_values"][row, :tiles], one.pixel_values if tiles else 0)
        assert not batch["pixel_values"][row, tiles:].any()
    assert "pixel_values" not in processor.collate(requests[1:2])
    with pytest.raises(InputError, match="nothing to collate"):
        processor.collate([])


def test_features_take_the_place_of_pictures(processor: SmolVLMProcessor, video: Path) -> None:
    messages = user(image_block(picture(100, 60)), {"type": "video", "path": str(video)}, "What?")
    expected = processor.prepare(messages)
    features = Features(None, expected.tile_rows_cols, "x", expected.frames)
    again = user({"type": "image"}, {"type": "video"}, "What?")
    inputs = processor.prepare(again, features=[features])
    np.testing.assert_array_equal(inputs.input_ids, expected.input_ids)
    assert inputs.pixel_values is None and inputs.tile_rows_cols == expected.tile_rows_cols
    assert inputs.frames == expected.frames
    assert processor.count(again, features=[features]).total == len(expected.input_ids)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (["text only"], "features hold 1"),
        ([{"type": "image"}, {"type": "image"}], "2 pictures and videos without a source"),
        ([{"type": "video"}], "places for video; features hold image"),
        ([{"type": "image"}, image_block(picture(9, 9))], "can't share one request"),
    ],
)
def test_features_that_do_not_fit_the_messages_are_refused(
    processor: SmolVLMProcessor, blocks: list[Any], words: str
) -> None:
    with pytest.raises(PromptError, match=words):
        processor.prepare(user(*blocks), features=[Features(None, ((0, 0),), "x")])


def test_placeholder_without_a_source_is_refused_by_our_road(processor: SmolVLMProcessor) -> None:
    with pytest.raises(PromptError, match="Give each block a source"):
        processor.prepare(user({"type": "image"}, "What?"))


def test_unknown_detail_is_refused(processor: SmolVLMProcessor) -> None:
    with pytest.raises(InputError, match="'low', 'auto' or 'high'"):
        processor.prepare(user("x"), detail="ultra")  # type: ignore[arg-type]


# ---- the reference's road -------------------------------------------------------------------------------------------


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


# ---- files ----------------------------------------------------------------------------------------------------------


def test_saved_processor_loads_equal_in_the_new_layout(
    processor: SmolVLMProcessor, tmp_path: Path, video: Path
) -> None:
    processor.image_processor.do_image_splitting = False
    processor.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja", "processor_config.json", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    again = SmolVLMProcessor.from_pretrained(tmp_path)
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()
    assert again.video_processor.to_dict() == processor.video_processor.to_dict()
    assert (again.image_seq_len, again.chat_template) == (TILE_TOKENS, CHAT_TEMPLATE)
    messages = user(image_block(picture()), {"type": "video", "path": str(video)})
    one, two = processor.prepare(messages), again.prepare(messages)
    np.testing.assert_array_equal(one.input_ids, two.input_ids)
    np.testing.assert_array_equal(one.pixel_values, two.pixel_values)


@pytest.mark.parametrize("place", ["chat_template.json", "processor_config.json", "tokenizer_config.json", "nowhere"])
def test_chat_template_is_found_in_every_old_place(checkpoint: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    if place != "nowhere":
        path = tmp_path / place
        content = json.loads(path.read_text()) if path.exists() else {}
        template: Any = "old {{ messages[0]['role'] }}"
        if place == "tokenizer_config.json":
            template = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
        path.write_text(json.dumps({**content, "chat_template": template}))
    expected = "<|im_start|>User: Hi<end_of_utterance>\n" if place == "nowhere" else "old user"
    assert SmolVLMProcessor.from_pretrained(tmp_path).apply_chat_template(user("Hi")) == expected


def test_image_tokens_a_tile_come_from_the_model_when_no_file_says_them(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    assert SmolVLMProcessor.from_pretrained(tmp_path).image_seq_len == TILE_TOKENS
    (tmp_path / "config.json").unlink()
    assert SmolVLMProcessor.from_pretrained(tmp_path).image_seq_len == 169
    for wrong, words in ((99, "different models"), ("many", "at least 1")):
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": wrong}))
        shutil.copy(checkpoint / "config.json", tmp_path)
        with pytest.raises(CheckpointError, match=words):
            SmolVLMProcessor.from_pretrained(tmp_path)


def test_settings_given_at_loading_override_the_files(checkpoint: Path) -> None:
    processor = SmolVLMProcessor.from_pretrained(
        checkpoint, size={"longest_edge": 64}, padding_side="left", image_seq_len=4, chat_template="x", use_fast=True
    )
    assert processor.image_processor.size == {"longest_edge": 64}
    assert (processor.tokenizer.padding_side, processor.image_seq_len, processor.chat_template) == ("left", 4, "x")
    with pytest.raises(InputError, match="colour"):
        SmolVLMProcessor.from_pretrained(checkpoint, colour="red")


def test_missing_directory_is_a_model_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        SmolVLMProcessor.from_pretrained(tmp_path / "nothing")


def test_processor_without_a_tokenizer_is_refused(processor: SmolVLMProcessor) -> None:
    with pytest.raises(InputError, match="needs a tokenizer"):
        SmolVLMProcessor(processor.image_processor)
    with pytest.raises(InputError, match="image_seq_len=0"):
        SmolVLMProcessor(processor.image_processor, processor.tokenizer, image_seq_len=0)
    own = SmolVLMProcessor(processor.image_processor, processor.tokenizer)
    assert (own.image_seq_len, own.image_token, own.video_token) == (169, "<image>", "<video>")
    assert own.fake_image_token == "<fake_token_around_image>" and own.global_image_token == "<global-img>"
    assert own.end_of_utterance_token == "<end_of_utterance>" and own.image_token_id == IDS["<image>"]


def test_frames_of_features_are_named_in_the_prompt(processor: SmolVLMProcessor) -> None:
    seen = FramesSeen("a.mp4", (3, 9), (0.3, 70.0), 75.0)
    inputs = processor.prepare(user({"type": "video"}), features=[Features(None, ((0, 0), (0, 0)), "x", (seen,))])
    text = processor.tokenizer.decode(inputs.input_ids)
    assert "two frames from a 0:01:15" in text and "Frame from 01:10:" in text
