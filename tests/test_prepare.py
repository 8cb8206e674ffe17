"""Our road from messages to inputs, on tiny checkpoints: prepare, count, collate, features."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.errors import (
    ContextLengthError,
    FetchError,
    ImageError,
    InputError,
    PromptError,
)
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.types import Features, FramesSeen
from tests.talks import IDS, TILE_TOKENS, image_block, image_tokens, picture, user
from tests.videos import write_video


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


def test_frames_of_features_are_named_in_the_prompt(processor: SmolVLMProcessor) -> None:
    seen = FramesSeen("a.mp4", (3, 9), (0.3, 70.0), 75.0)
    inputs = processor.prepare(user({"type": "video"}), features=[Features(None, ((0, 0), (0, 0)), "x", (seen,))])
    text = processor.tokenizer.decode(inputs.input_ids)
    assert "two frames from a 0:01:15" in text and "Frame from 01:10:" in text
