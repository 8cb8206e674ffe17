"""Every Python snippet of the document the project started from runs, through a small table of substitutions.

The document isn't part of the repository: snippets are read from the folder of reference data by their lines, and
skipped without it. Substituted are the import line, model ids, media, device, attention and long answers; the rest
runs as printed.

Not run, because it isn't Python or isn't ours:
- lines 158-165: a BibTeX entry (it is in CITATION.cff).
- lines 284-286: shell commands of VLMEvalKit, another project.
Between lines 297 and 298 the document leaves out the code it announces; the test puts the published pattern there.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm.processing.calls import OPTION_NAMES
from tests.tiny import tiny_checkpoint
from tests.videos import write_video

DOCUMENT_SHA256 = "1cd0432f5633812fd93a3cc8e96d7f10731bd70df951aca3b6b4e53520da4396"
PROMPT = re.compile(r"^(>>>|\.\.\.) ?")


@dataclass(frozen=True)
class Snippet:
    """first, last: lines of the document. after: the snippet whose names it goes on with. meta: build no weights."""

    first: int
    last: int
    after: str | None = None
    meta: bool = False


SNIPPETS = {
    "load a second-generation model": Snippet(56, 64),
    "describe a picture": Snippet(68, 89, after="load a second-generation model"),
    "describe a video": Snippet(93, 114, after="load a second-generation model"),
    "compare two pictures": Snippet(117, 140, after="load a second-generation model"),
    "load a first-generation model": Snippet(290, 296),
    "generate from prepared inputs": Snippet(299, 305, after="load a first-generation model"),
    "size of pictures": Snippet(344, 344),
    "one kind of media": Snippet(353, 399),
    "a batch of conversations": Snippet(403, 446),
    "model from a configuration": Snippet(488, 494, meta=True),
    "vision tower from a configuration": Snippet(549, 556, meta=True),
    "what happens in a video": Snippet(653, 679),
    "processor with text and pictures": Snippet(749, 765),
    "chat template with truncation": Snippet(1180, 1201),
    "decode ids": Snippet(1223, 1232),
}
IMAGE_URL = r'"https?://[^"]+\.(?:jpg|png)"'
SUBSTITUTIONS: list[tuple[str, str]] = [
    (r"^import requests$", ""),  # imported and not used
    (r"from transformers[\w.]* import", "from smolvlm import"),
    (r'"HuggingFaceTB/SmolVLM-Instruct"', "FIRST_GENERATION"),
    (r'"HuggingFace(?:TB|M4)/SmolVLM2-[\w.-]+"', "SECOND_GENERATION"),
    (IMAGE_URL, "IMAGE"),
    (r'"/?path/to/image\.jpg"', "IMAGE"),
    (r'"(?:path_to_video\.mp4|/?path/to/video(?:\.mp4)?)"', "VIDEO"),
    (r'"cuda"(?! if)(?=\)|$)', '"cpu"'),
    (r'"flash_attention_2"$', '"sdpa"'),
    (r"max_new_tokens=\d{3}", "max_new_tokens=30"),  # for the sake of time
]
# One slip of the document itself: it builds `conversations` and then passes a name that it never defined.
SLIPS = {"a batch of conversations": [(r"^conversation,$", "conversations,")]}


@pytest.fixture(scope="module")
def document(shared: Path) -> list[str]:
    files = sorted((shared / "seed").glob("*.txt"))
    if not files:
        pytest.skip("the folder of reference data holds no seed document")
    content = files[0].read_bytes()
    assert hashlib.sha256(content).hexdigest() == DOCUMENT_SHA256, "another edition: the line numbers must be looked up"
    return content.decode("utf-8").splitlines()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the substituted names stand for."""
    root = tmp_path_factory.mktemp("seed")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "image.jpg")
    return {
        "FIRST_GENERATION": str(tiny_checkpoint(root / "first", model_type="idefics3")),
        "SECOND_GENERATION": str(tiny_checkpoint(root / "second")),
        "IMAGE": str(root / "image.jpg"),
        "VIDEO": str(write_video(root / "video.mp4", frames=30, rate=10)),
    }


def source(document: list[str], name: str) -> str:
    snippet = SNIPPETS[name]
    lines = [PROMPT.sub("", line).strip() for line in document[snippet.first - 1 : snippet.last]]
    for pattern, replacement in [*SUBSTITUTIONS, *SLIPS.get(name, [])]:
        lines = [re.sub(pattern, replacement, line) for line in lines]
    return "\n".join(lines)


def run(document: list[str], places: dict[str, str], name: str) -> tuple[dict[str, Any], str]:
    """Names a snippet leaves behind, and what it printed."""
    snippet = SNIPPETS[name]
    names: dict[str, Any] = {**places, "SmolVLMImageProcessor": smolvlm.SmolVLMImageProcessor}
    if snippet.after is not None:
        names, _ = run(document, places, snippet.after)
    if name == "generate from prepared inputs":
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        prompt = names["processor"].apply_chat_template(messages, add_generation_prompt=True)
        image = Image.open(places["IMAGE"])
        names["inputs"] = names["processor"](text=prompt, images=[image], return_tensors="pt").to(names["DEVICE"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), torch.device("meta") if snippet.meta else contextlib.nullcontext():
        exec(compile(source(document, name), f"<{name}>", "exec"), names)
    return names, printed.getvalue()


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet_runs(document: list[str], places: dict[str, str], name: str) -> None:
    text = source(document, name)
    assert "transformers" not in text and "huggingface" not in text.lower() and "http" not in text
    names, printed = run(document, places, name)
    if "generated_ids" in names and "inputs" in names:
        prompt = names["inputs"]["input_ids"]
        assert torch.equal(names["generated_ids"][:, : prompt.shape[1]], prompt)
        assert names["generated_ids"].shape[1] > prompt.shape[1]
        assert all("Assistant:" in answer and "<image>" not in answer for answer in names["generated_texts"])
    if "print(" in text:
        assert printed.strip()


def test_batch_snippet_answers_all_three_conversations(document: list[str], places: dict[str, str]) -> None:
    names, _ = run(document, places, "a batch of conversations")
    assert len(names["generated_texts"]) == 3
    assert names["inputs"]["pixel_values"].dtype == torch.bfloat16


def test_media_snippets_show_the_model_their_media(document: list[str], places: dict[str, str]) -> None:
    tiles = {
        name: run(document, places, name)[0]["inputs"]["pixel_values"].shape[:2]
        for name in ("describe a picture", "describe a video", "compare two pictures", "what happens in a video")
    }
    assert tiles == {
        "describe a picture": (1, 13),
        "describe a video": (1, 3),
        "compare two pictures": (1, 26),
        "what happens in a video": (1, 3),
    }


def test_processor_snippet_expands_each_placeholder(document: list[str], places: dict[str, str]) -> None:
    names, _ = run(document, places, "processor with text and pictures")
    block = "<fake_token_around_image><global-img>" + "<image>" * 16 + "<fake_token_around_image>"
    first, second = (text.replace("<|im_end|>", "") for text in names["input_tokens"])
    assert (first, second) == (f"{block}In this image, we see", f"bla bla bla{block}")


def test_size_snippet_splits_into_512_pixel_tiles(document: list[str], places: dict[str, str]) -> None:
    processor = run(document, places, "size of pictures")[0]["image_processor"]
    assert processor.get_number_of_image_patches(768, 1024) == (5, 2, 2)


# ---- documented signatures ------------------------------------------------------------------------------------------


def forward_of(cls: str) -> Callable[[], Any]:
    return lambda: inspect.signature(getattr(smolvlm, cls).forward).parameters


def arguments_of(cls: str, method: str = "__init__") -> Callable[[], Any]:
    return lambda: inspect.signature(getattr(getattr(smolvlm, cls), method)).parameters


def fields_of(cls: str) -> Callable[[], Any]:
    return lambda: vars(getattr(smolvlm, cls)())


# First line of the documented signature -> what we have.
SIGNATURES: dict[int, Callable[[], Any]] = {
    449: fields_of("SmolVLMConfig"),
    497: fields_of("SmolVLMVisionConfig"),
    559: arguments_of("SmolVLMVisionTransformer"),
    573: arguments_of("SmolVLMModel"),
    593: forward_of("SmolVLMModel"),
    616: arguments_of("SmolVLMForConditionalGeneration"),
    627: forward_of("SmolVLMForConditionalGeneration"),
    682: arguments_of("SmolVLMImageProcessor"),
    701: arguments_of("SmolVLMImageProcessor", "preprocess"),
    724: arguments_of("SmolVLMProcessor"),
    739: arguments_of("SmolVLMProcessor", "__call__"),
    1133: arguments_of("SmolVLMProcessor", "apply_chat_template"),
    1204: arguments_of("SmolVLMProcessor", "batch_decode"),
}
# Defaults that are ours on purpose: None is decided by what is looked at, or is the processor's own setting.
OTHER_DEFAULTS = {"vision_config", "text_config", "tokenize", "padding", "return_row_col_info"}


@pytest.mark.parametrize("line", SIGNATURES)
def test_documented_arguments_and_defaults_are_ours(document: list[str], line: int) -> None:
    ours, count = SIGNATURES[line](), 0
    for text in document[line:]:
        if text.startswith(")"):
            break
        name, written = re.fullmatch(r"(\**\w+)\s*(?::.*?)?\s*(?:=\s*(.*?))?,?", text.strip()).groups()  # type: ignore[union-attr]
        if name.startswith("**"):
            continue
        count += 1
        if name not in ours:  # taken by **kwargs and handed on
            assert name in OPTION_NAMES or name in smolvlm.SmolVLMImageProcessor().to_dict(), name
            continue
        default = ours[name].default if isinstance(ours[name], inspect.Parameter) else ours[name]
        if written is not None and name not in OTHER_DEFAULTS and not written.startswith("<"):
            assert default == ast.literal_eval(written), name
    assert count


@pytest.mark.parametrize("line", [449, 573, 739])
def test_signature_table_points_at_signatures(document: list[str], line: int) -> None:
    assert document[line - 1].endswith("(")
