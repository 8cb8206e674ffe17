"""examples/vllm_video.py: a video as a list of pictures is read as the video is, by us and by what vLLM reads with.

vLLM itself needs a GPU. It renders the checkpoint's template over the parts, and hands text and pictures to
transformers' processor, which is the oracle here; the way there is tested with our own server.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smolvlm
from smolvlm.media.image import load_image
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.types import Inputs
from tests.commands import REPOSITORY
from tests.serving import VIDEO, serving
from tests.tiny import CHAT_TEMPLATE, write_tiny_processor, write_tiny_tokenizer
from tests.videos import film

EXAMPLE = str(REPOSITORY / "examples" / "vllm_video.py")
QUESTION = "What happens, at 00:03?\n"
video_parts = runpy.run_path(EXAMPLE)["video_parts"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processor with the sizes of SmolVLM2 of 256M and 500M."""
    directory = tmp_path_factory.mktemp("processor")
    write_tiny_tokenizer(directory, context=8192)
    write_tiny_processor(directory, model_type="smolvlm", image_size=512, longest_edge=2048, image_seq_len=64)
    return directory


def read(processor: SmolVLMProcessor, content: list[dict[str, Any]]) -> Inputs:
    return processor.prepare([{"role": "user", "content": content}])


@pytest.mark.parametrize("name", ["nano", "512"])
@pytest.mark.parametrize("video", [VIDEO, "film.webm"], ids=["demo", "film"])
def test_pictures_of_a_video_are_read_as_the_video_is(video: Path | str, name: str, directory: Path) -> None:
    source = video if isinstance(video, Path) else film(video)
    processor = SmolVLMProcessor.from_pretrained("nano" if name == "nano" else directory)
    pictures = read(processor, video_parts(processor, source, QUESTION))
    whole = read(processor, [{"type": "video", "video": source}, {"type": "text", "text": QUESTION}])
    assert pictures.input_ids.tolist() == whole.input_ids.tolist()
    assert pictures.pixel_values is not None and whole.pixel_values is not None
    np.testing.assert_allclose(pictures.pixel_values, whole.pixel_values, rtol=0, atol=1e-6)


@pytest.mark.reference
def test_transformers_reads_the_pictures_as_we_read_the_video(directory: Path) -> None:
    """With what docs/scaling.md says to start vLLM with: no splitting, and the side of a tile as the longest edge."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    processor = SmolVLMProcessor.from_pretrained(directory)
    parts = video_parts(processor, VIDEO, QUESTION)
    theirs = transformers.Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 512}, max_image_size={"longest_edge": 512}),
        transformers.PreTrainedTokenizerFast.from_pretrained(directory), image_seq_len=64, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    blocks = [{"type": "image"} if part["type"] == "image_url" else part for part in parts]
    prompt = theirs.apply_chat_template([{"role": "user", "content": blocks}], add_generation_prompt=True)
    frames = [load_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
    oracle = theirs(text=prompt, images=frames, do_image_splitting=False, return_tensors="np")
    ours = read(processor, [{"type": "video", "video": VIDEO}, {"type": "text", "text": QUESTION}])
    assert ours.input_ids.tolist() == oracle["input_ids"][0].tolist()
    assert ours.pixel_values is not None
    np.testing.assert_allclose(ours.pixel_values, oracle["pixel_values"][0], rtol=0, atol=1e-6)


def test_the_example_gets_the_answer_to_the_video_from_a_server_of_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vlm = smolvlm.load()
    with serving(vlm) as server:
        monkeypatch.setattr(sys, "argv", [EXAMPLE, str(VIDEO), "What happens?", f"{server.url}/v1", "nano"])
        runpy.run_path(EXAMPLE, run_name="__main__")
    assert capsys.readouterr().out.strip() == vlm.ask("What happens?", videos=[VIDEO]).text
