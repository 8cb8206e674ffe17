"""README and docs say what is so: their commands and snippets run, what they list is complete, their links lead on.

Each page is run from top to bottom in a folder of its own; see snippets.py. The table SUBSTITUTES puts files of this
machine in the place of what a page names but a test can't have: released checkpoints, a GPU, a long training.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import smolvlm
from smolvlm import SmolVLMConfig, errors, hf
from smolvlm.cli import COMMANDS
from smolvlm.cli.arguments import Parser
from smolvlm.media.fetch import fetch
from smolvlm.scenes import SKILLS, draw
from smolvlm.training.loop import Metrics, train
from smolvlm.training.recipe import Recipe, Stage, read_recipe
from smolvlm.types import SamplingParams
from smolvlm.vlm.requests import AskOptions
from tests.serving import serving
from tests.snippets import MARKDOWN, Session, read_snippets
from tests.test_model import RELEASED

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "src" / "smolvlm" / "assets" / "demo"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
RUN = ("python", "sh")
SUBSTITUTES = (
    (r"HuggingFaceTB/[\w.-]+", "nano"),
    (r'"cuda"', '"cpu"'),
    (r"smolvlm bench", "smolvlm bench --model nano"),
    (r"recipes/nano(-\d)?\.toml", "small.toml"),
    (r"(--output runs/mine --method lora)", r"\1 --steps 2"),
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


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Session:
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


@pytest.fixture
def address() -> Iterator[str]:
    """Host and port of a server with the bundled model."""
    with serving(smolvlm.load()) as server:
        yield server.url.removeprefix("http://")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_snippet_of_the_page_runs(
    page: Path, session: Session, request: pytest.FixtureRequest
) -> None:
    if page.stem in ("server", "scaling"):
        session.replace("127.0.0.1:8000", request.getfixturevalue("address"))
    for snippet in read_snippets(page):
        if snippet.language in RUN and not snippet.not_run:
            session.run(snippet)


def test_what_is_not_run_says_why_and_every_block_has_a_known_kind() -> None:
    left_out = {}
    for page in PAGES:
        for snippet in read_snippets(page):
            assert snippet.language in (*RUN, "toml", "bibtex", ""), f"{snippet} is {snippet.language!r}"
            if snippet.language in RUN and snippet.not_run:
                left_out[str(snippet)] = snippet.not_run
    assert left_out == {}, "say here which block can't be run, and why"


def test_the_recipe_of_the_training_page_trains(tmp_path: Path) -> None:
    (block,) = [snippet for snippet in read_snippets(page_of("training")) if snippet.language == "toml"]
    (tmp_path / "shapes.toml").write_text(block.text)
    recipe = dataclasses.replace(read_recipe(tmp_path / "shapes.toml"), steps=1, tiles_per_step=1, evaluate_scenes=1)
    checkpoint = train(recipe, tmp_path / "run", workers=0)
    assert (checkpoint / "model.safetensors").is_file()


# ---- what the pages list is all there is ----


def page_of(name: str) -> Path:
    return REPOSITORY / "docs" / f"{name}.md"


def rows(page: Path) -> list[list[str]]:
    """The cells of all table rows of a page, with their Markdown."""
    found: list[list[str]] = []
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.type == "tr_open":
            found.append([])
        if token.type == "inline" and found and token.level > 3:
            found[-1].append(token.content)
    return found


def coded(page: Path, column: int = 0) -> set[str]:
    """Everything in backticks in a column of the tables of a page."""
    return {name for row in rows(page) if len(row) > column for name in re.findall(r"`([^`]+)`", row[column])}


def second_column(page: Path) -> dict[str, str]:
    """name -> what stands beside it, from tables of three columns; `a`, `b` beside 1, 2 are two names."""
    found: dict[str, str] = {}
    for row in rows(page):
        names = re.findall(r"`(\w+)`", row[0])
        if len(row) == 3 and len(names) == len(row[1].split(", ")):
            found |= dict(zip(names, row[1].split(", "), strict=True))
    return found


def parsers() -> Iterator[tuple[str, Parser]]:
    for command in COMMANDS:
        parser = Parser(prog=command, description=None)
        importlib.import_module(f"smolvlm.cli.{command.replace('-', '_')}").add_arguments(parser)
        yield command, parser


def test_the_command_line_page_has_every_option_and_no_other() -> None:
    documented = {name for cell in coded(page_of("cli")) for name in re.findall(r"(?<!\S)--?[a-z][a-z-]*", cell)}
    existing = {name for _, parser in parsers() for action in parser._actions for name in action.option_strings}
    assert documented == existing - {"-h", "--help"}
    assert {f"smolvlm {command}" for command in COMMANDS} <= coded(page_of("cli"))


def test_defaults_on_the_command_line_page_are_the_parsers() -> None:
    text = page_of("cli").read_text()
    defaults = {action.dest: action.default for _, parser in parsers() for action in parser._actions}
    assert f"most tokens of the answer, {defaults['max_new_tokens']} by default" in text
    assert f"{defaults['temperature']:g} (default) is always the likeliest" in text
    assert f"{defaults['top_p']:g} (default) is off" in text
    assert f"processes that read or draw, {defaults['workers']} by default" in text
    assert f"`{defaults['detail']}` (default)" in text


def test_the_python_page_has_every_argument_and_public_name() -> None:
    page = page_of("python")
    text, shown = page.read_text(), second_column(page)
    for field in dataclasses.fields(SamplingParams):
        default = field.default
        expected = (
            str(default).lower() if isinstance(default, bool) else "none" if default in ((), None) else f"{default:g}"
        )
        assert shown[field.name] == expected, field.name
    for name in (*AskOptions.__annotations__, *inspect.signature(smolvlm.load).parameters):
        assert re.search(rf"\b{name}\b", text), f"{name} is missing"
    assert {field.name for field in dataclasses.fields(smolvlm.Answer)} <= coded(page)
    everywhere = "".join(one.read_text() for one in PAGES)
    assert [name for name in smolvlm.__all__ if not re.search(rf"\b{name}\b", everywhere)] == []


def test_the_python_page_has_every_option_of_generate() -> None:
    paragraph = page_of("python").read_text().partition("`generate` takes")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`(\w+)=?`", paragraph))
    assert documented == {*hf._SETTINGS, "streamer", "tokenizer", "generation_config"}


def test_the_error_page_has_the_tree_and_a_message_of_every_kind() -> None:
    page = page_of("errors")
    tree = textwrap.dedent((errors.__doc__ or "").partition("\n\n")[2])
    assert tree.strip() in page.read_text()
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert kinds - {"SmolVLMError"} <= set(re.findall(r"^## (\w+)", page.read_text(), re.MULTILINE))
    shown = {re.match(r"\w+", snippet.shown)[0] for snippet in read_snippets(page) if snippet.shown}  # type: ignore[index]
    assert kinds - {"SmolVLMError", "MediaError"} <= shown


def test_the_training_page_has_every_key_and_skill() -> None:
    page = page_of("training")
    shown = second_column(page)
    text = page.read_text()
    for field in dataclasses.fields(Recipe):
        if field.name == "name":
            assert shown[field.name] == "required"
        elif shown.get(field.name):
            assert ast.literal_eval(shown[field.name].strip("`")) == field.default, field.name
        assert f"`{field.name}`" in text or f"`[{field.name}]`" in text, field.name
    assert all(f"`{field.name}`" in text for field in dataclasses.fields(Stage))
    assert {field.name for field in dataclasses.fields(Metrics)} <= coded(page)
    assert set(SKILLS) <= coded(page)


def test_right_answers_of_the_quickstart_are_those_of_the_drawn_scenes() -> None:
    text = " ".join(page_of("quickstart").read_text().split())
    picture, clip = (draw(skill, 2026, index, "test") for skill, index in (("scene", 1), ("video", 25)))
    answers = {turn.kind: turn.answer for turn in (*picture.turns, *clip.turns)}
    for kind in ("describe", "count_shape", "happens"):
        assert f'"{answers[kind]}"' in text or f'"{answers[kind]}".' in text


@pytest.mark.parametrize("name", RELEASED)
def test_the_models_page_has_the_sizes_of_every_released_geometry(name: str) -> None:
    vision, scale, _, _, (total, *_), _ = RELEASED[name]
    geometry = SmolVLMConfig(vision_config=vision, scale_factor=scale)
    found = [row for row in rows(page_of("models")) if row[1:2] == [f"{total:,}"]]
    assert found, f"no checkpoint of {total:,} parameters"
    for row in found:
        tile, tokens, edge = (int(cell.split()[0]) for cell in row[2:5])
        assert (tile, tokens) == (geometry.vision_config.image_size, geometry.image_seq_len)
        assert edge == 4 * tile


def test_the_models_page_has_the_sizes_of_nano() -> None:
    text = " ".join(page_of("models").read_text().split())
    vlm = smolvlm.load(runtime="torch")
    processor, parameters = vlm.processor, sum(weights.numel() for weights in vlm.model.parameters())
    for said in (
        f"about {parameters / 1e6:.0f} million parameters, {2 * parameters / 1e6:.0f} MB",
        f"Tile {vlm.config.vision_config.image_size} px",
        f"{processor.image_seq_len} tokens a tile",
        f"longest edge {processor.image_processor.size['longest_edge']} px",
        f"a vocabulary of {vlm.config.text_config.vocab_size:,}",
        f"a context of {vlm.context:,} tokens",
        f"at {processor.video_processor.fps} frame a second and at most {processor.video_processor.num_frames} frames",
    ):
        assert said in text


# ---- the pages as Markdown ----


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if not re.match(r"https?:", target):
            linked = (page.parent / path).resolve() if path else page
            assert linked.is_file(), f"{page.name} links to {target}"
            assert not heading or heading in _anchors(linked), f"{page.name} links to {target}"


def test_the_readme_leads_to_every_page() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tables_are_tables_with_rows_of_one_length(page: Path) -> None:
    """A row with a bar too many or too few is cut or filled by Markdown without a word."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == sum(token.type == "table_open" for token in MARKDOWN.parse(text))
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, f"{page.name}: {table}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
