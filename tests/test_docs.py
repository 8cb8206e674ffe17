"""README and docs say what is so: their commands and snippets run, what they list is complete, their links lead somewhere.

Each page is run from top to bottom in a folder of its own; see snippets.py. The table SUBSTITUTES puts files of this
machine in the place of what a page names but a test can't have: released checkpoints, a GPU, the network, a long training.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import smolvlm
from smolvlm import errors
from smolvlm.cli import COMMANDS
from smolvlm.cli.arguments import Parser
from smolvlm.media.fetch import fetch
from smolvlm.scenes import draw
from smolvlm.training import Recipe, Stage, read_recipe
from smolvlm.types import SamplingParams
from smolvlm.vlm.requests import AskOptions
from tests.nano import DEMO, REPOSITORY, put_in_place
from tests.snippets import MARKDOWN, Session, read_snippets

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
RUN = ("python", "sh")
SUBSTITUTES = (
    (r"HuggingFaceTB/[\w.-]+", "nano"),
    (r'"cuda"', '"cpu"'),
    (r"recipes/nano\.toml", "small.toml"),
    (r"(benchmarks/nano_scores\.py)", rf"{REPOSITORY}/\1 --cases 2 --only who"),
    (r"(?<![\w/])(src|examples)/", rf"{REPOSITORY}/\1/"),
)
SMALL_RECIPE = """
name = "small"
steps = 2
vocabulary = "nano"
tiles_per_step = 2
evaluate_scenes = 1
[model]
scale_factor = 4
[model.vision_config]
hidden_size = 16
intermediate_size = 16
num_hidden_layers = 1
num_attention_heads = 2
image_size = 128
patch_size = 16
[model.text_config]
hidden_size = 16
intermediate_size = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 4096
[[stages]]
until = 1.0
skills = { text = 1.0 }
"""


@pytest.fixture(scope="module", autouse=True)
def _model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(tmp_path_factory.mktemp("nano"), patch)
        yield


@pytest.fixture
def session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Session:
    """A reader in a folder with the files that pages name; addresses of example.com lead to the demo's picture."""
    for name in ("picture.png", "video.mp4"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    draw("scene", seed=2026, index=2, split="test").pictures[0].save(tmp_path / "second.png")
    with Image.open(DEMO / "picture.png") as picture:
        picture.resize((640, 480)).save(tmp_path / "photo.jpg")
    (tmp_path / "small.toml").write_text(SMALL_RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smolvlm.media.source.fetch", download)
    return Session(capsys, substitute, REPOSITORY)


def download(url: str, **limits: float) -> bytes:
    """The guarded fetch, whose refusals are real; only example.com is the demo's picture."""
    if url.startswith("https://example.com/"):
        return (DEMO / "picture.png").read_bytes()
    return fetch(url, **limits)  # type: ignore[arg-type]


def substitute(text: str) -> str:
    for pattern, by in SUBSTITUTES:
        text = re.sub(pattern, by, text)
    return text


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_snippet_of_the_page_runs(page: Path, session: Session) -> None:
    for snippet in read_snippets(page):
        if snippet.language in RUN and not snippet.not_run:
            session.run(snippet)
