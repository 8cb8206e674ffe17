"""Media workers with the real processor: what they prepare is what the library prepares, within the limits."""

from __future__ import annotations

import asyncio
import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import ContextLengthError, ImageError, MediaError, VideoError
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.server.failures import RequestError
from smolvlm.server.kitchen import Kitchen
from smolvlm.server.parts import Order, read_chat, read_prompt
from tests.test_server_kitchen import cooking, settings

DEMO = Path(__file__).parents[1] / "src" / "smolvlm" / "assets" / "demo"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are tested where processes can be forked")


@pytest.fixture(scope="module")
def processor() -> SmolVLMProcessor:
    return SmolVLMProcessor.from_pretrained()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def demo(*names: str) -> list[dict[str, Any]]:
    kinds = {"picture.png": ("image_url", "image/png"), "video.mp4": ("video_url", "video/mp4")}
    blocks = []
    for name in names:
        key, kind = kinds[name]
        blocks.append({"type": key, key: {"url": data_uri((DEMO / name).read_bytes(), kind)}})
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is this?"}]}]


def library(*names: str) -> list[dict[str, Any]]:
    kinds = {"picture.png": "image", "video.mp4": "video"}
    blocks = [{"type": kinds[name], kinds[name]: str(DEMO / name)} for name in names]
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is this?"}]}]


def test_what_a_worker_prepares_is_what_the_library_prepares(processor: SmolVLMProcessor) -> None:
    async def work(kitchen: Kitchen) -> Any:
        names = ("picture.png", "video.mp4", "picture.png")
        read = read_chat(demo(*names), settings())
        return await kitchen.prepare(read), await kitchen.count(read), processor.prepare(library(*names), context=4096)

    inputs, report, expected = cooking(work, processor)
    np.testing.assert_array_equal(inputs.input_ids, expected.input_ids)
    np.testing.assert_array_equal(inputs.pixel_values, expected.pixel_values)
    assert inputs.tile_rows_cols == expected.tile_rows_cols
    assert [one.indices for one in inputs.frames] == [one.indices for one in expected.frames]
    assert [one.timestamps_s for one in inputs.frames] == [one.timestamps_s for one in expected.frames]
    assert (report.total, report.tiles) == (len(expected.input_ids), len(expected.pixel_values))
    assert [(one.kind, one.source) for one in report.media] == [
        ("image", "picture 1"), ("video", "video 1"), ("image", "picture 2"),
    ]  # fmt: skip


def test_words_alone_are_prepared_without_a_worker(processor: SmolVLMProcessor) -> None:
    async def work(kitchen: Kitchen) -> Any:
        await asyncio.to_thread(kitchen.close)
        with pytest.raises(RequestError, match="shutting down"):
            await kitchen.prepare(read_chat(demo("picture.png"), settings()))
        return await kitchen.prepare(read_chat([{"role": "user", "content": "Hello!"}], settings()))

    expected = processor.prepare([{"role": "user", "content": "Hello!"}])
    np.testing.assert_array_equal(cooking(work, processor).input_ids, expected.input_ids)


def test_control_tokens_in_a_prompt_of_a_client_are_text(processor: SmolVLMProcessor) -> None:
    text = "a <image> b<end_of_utterance>"

    async def work(kitchen: Kitchen) -> Any:
        return await kitchen.prepare(read_prompt(text, settings()))

    inputs = cooking(work, processor)
    special = {processor.image_token_id, *processor.tokenizer.all_special_ids}
    assert not special & set(inputs.input_ids.tolist())
    assert processor.decode(inputs.input_ids) == text


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def gif(frames: int, side: int = 16) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("L", (side, side), (index * 40) % 256) for index in range(frames)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return file.getvalue()


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]


def image(content: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(content)}}


def video(content: bytes) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": data_uri(content, "video/mp4")}}


@pytest.mark.parametrize(
    "parts,limits,kind,message",
    [
        ([image(png(2000, 2000))], {"picture_pixels": 3_999_999}, ImageError, "more than the limit of 3,999,999"),
        ([image(png(400, 400))] * 3, {"decoded_bytes": 1_000_000}, MediaError, "nothing was decoded"),
        ([video(gif(30))], {"video_frames": 20}, VideoError, "more than 20 frames"),
        ([video(gif(30))], {"video_s": 2.0}, VideoError, "3 s long"),
        ([video(gif(30, side=400))], {"frame_pixels": 100_000}, VideoError, "more than the limit of 100,000"),
        ([video((DEMO / "video.mp4").read_bytes())], {"frames": 3}, MediaError, "more than the limit of 3"),
        ([video((DEMO / "video.mp4").read_bytes())], {"video_s": 2.0}, VideoError, "limit is 2 s"),
        ([image(png(400, 400))], {"prompt_tokens": 20}, ContextLengthError, "holds 21"),
        ([{"type": "text", "text": "word " * 3000}], {"prompt_tokens": 100}, ContextLengthError, "Shorten the text"),
    ],
    ids=["pixels", "bytes", "gif frames", "gif seconds", "gif size", "frames", "seconds", "tokens", "words"],
)
def test_limits_of_media_are_kept(
    processor: SmolVLMProcessor, parts: list[Any], limits: dict[str, Any], kind: type[Exception], message: str
) -> None:
    async def work(kitchen: Kitchen) -> Any:
        read = read_chat(user(*parts), settings(**limits))
        for method in (kitchen.prepare, kitchen.count) if kind is not ContextLengthError else (kitchen.prepare,):
            with pytest.raises(kind, match=message):
                await method(read)

    cooking(work, processor, workers=1, **limits)


def test_an_order_is_strings_and_numbers() -> None:
    read = read_chat(demo("picture.png"), settings())
    assert isinstance(read, Order)
    for block in read.blocks:
        for value in block.values():
            assert isinstance(value, str | int | float) or type(value).__name__ == "Reference"
