"""The examples run, and what they make is what is bundled."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from smolvlm.scenes import draw, render_clip
from tests.notebooks import execute, read_cells, source

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "src" / "smolvlm" / "assets" / "demo"
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))
RUN_ELSEWHERE = {"ray_serve": "test_ray_serve.py", "vllm_video": "test_vllm_video.py"}  # with what they need


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_example_is_at_most_30_lines_and_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python examples/NAME.py`, away from the repository. draw_demo.py gets a directory, the others nothing."""
    text = example.read_text()
    assert len(text.splitlines()) <= 30
    assert f"python examples/{example.name}" in (ast.get_docstring(ast.parse(text)) or "")
    if example.stem in RUN_ELSEWHERE:
        other = REPOSITORY / "tests" / RUN_ELSEWHERE[example.stem]
        assert example.stem in other.read_text()
        pytest.skip(f"{other.name} runs it")
    writes = example.stem == "draw_demo"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), *([str(tmp_path / "drawn")] if writes else [])])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip() or writes


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_a_notebook_was_executed_from_top_to_bottom(notebook: Path) -> None:
    cells = [cell for cell in read_cells(notebook) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2
    for cell in cells:
        ast.parse(source(cell))
    before, after = (line for line in printed(cells[-1]["outputs"]).splitlines() if " of " in line)
    assert int(before.split()[1]) < int(after.split()[1]), "it learned"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_a_notebook_runs(notebook: Path) -> None:
    before, after = (line for line in printed(execute(notebook)[-1]).splitlines() if " of " in line)
    assert int(before.split()[1]) < int(after.split()[1])


def printed(outputs: list[dict[str, object]]) -> str:
    return "".join("".join(one["text"]) for one in outputs if one["output_type"] == "stream")  # type: ignore[arg-type]


def test_drawn_demo_is_the_two_files(tmp_path: Path) -> None:
    runpy.run_path(str(REPOSITORY / "examples" / "draw_demo.py"))["main"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png", "video.mp4"]


def test_bundled_picture_is_the_scene_the_example_draws() -> None:
    scene = draw("scene", seed=2026, index=1, split="test").pictures[0]
    with Image.open(DEMO / "picture.png") as picture:
        differs = (np.asarray(picture) != np.asarray(scene)).any(axis=-1)  # (rows, columns)
    assert differs.mean() < 0.001  # another Pillow may draw a pixel of an edge otherwise


def test_bundled_video_shows_the_clip_the_example_draws() -> None:
    clip = render_clip(seed=2026, index=25, split="test", fps=8)
    with av.open(str(DEMO / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(clip.frames)
    for decoded, drawn in zip(frames, clip.frames, strict=True):
        # The codec halves the resolution of colour, so edges differ; flat parts may differ by a few levels.
        assert np.abs(decoded.astype(int) - np.asarray(drawn).astype(int)).mean() < 3
