"""`smolvlm data`: what people and programs are told of training data, and the page to look at."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.training.data.inspect import Spread, histogram, spread_out
from tests.commands import run
from tests.videos import write_video

ATTACK = "<script>alert('&amp;')</script><img src=https://example.com/x onerror=alert(1)>\" ' </div>"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven rows: a small and a large picture, a video, a preference, and three that can't be used."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 60), "red").save(tmp_path / "small.png")
    Image.new("RGB", (300, 200), "blue").save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "large.png").read_bytes()[:60])
    write_video(tmp_path / "clip.mp4", frames=30, rate=10)
    rows: list[dict[str, Any]] = [
        {"image": "small.png", "caption": "A red picture."},
        {"image": "large.png", "question": ATTACK, "answer": f"{ATTACK}\n<image> é😀"},
        {"video": "clip.mp4", "caption": "Bars."},
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"image": "../secret.png", "caption": "No."},
        {"image": "broken.png", "caption": f"{ATTACK}"},
        {"question": "Empty?", "answer": ""},
    ]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "notes.jsonl"


def test_inspect_tells_sizes_formats_lengths_and_what_would_be_skipped(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(capsys, ["data", "inspect", "notes.jsonl"])
    assert (outcome.code, outcome.err) == (0, "")
    for line in (
        "  7 rows in 1 file",
        "2 pictures, 1 video",
        "caption (3), vqa (2), preference (1)",
        "tokens    samples",
        "3 samples would be skipped (42.9%)",
        "    notes.jsonl, row 4: '../secret.png' leads out of",
        "    notes.jsonl, row 5: ",
        "    notes.jsonl, row 6: An answer is empty",
    ):
        assert line in outcome.out
    assert outcome.out.count("█") > 40


def test_inspect_says_the_same_to_programs(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (report,) = json.loads(run(capsys, ["data", "inspect", "notes.jsonl", "--json"]).out)
    assert (report["rows"], report["looked_at"], report["pictures"], report["videos"]) == (7, 7, 2, 1)
    assert report["formats"] == {"caption": 3, "vqa": 2, "preference": 1}  # of the rows whose media may be opened
    assert [(one["row"], one["kind"]) for one in report["skipped"]] == [
        (4, "MediaError"), (5, "ImageError"), (6, "PromptError"),
    ]  # fmt: skip
    assert report["tiles"]["most"] == 5 and report["tiles"]["total"] == 1 + 5 + 3
    assert sum(one["samples"] for one in report["histogram"]) == 4
    assert report["tokens"]["least"] >= report["learned"]["least"] > 0


def test_inspect_counts_what_a_limit_does(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shrunk = run(capsys, ["data", "inspect", "notes.jsonl", "--max-tokens", "250", "--limit", "0"])
    assert "  1 sample would get fewer tiles, to fit" in shrunk.out
    few = run(capsys, ["data", "inspect", "notes.jsonl", "--limit", "2"])
    assert "7 rows in 1 file; 2 looked at, evenly spread" in few.out


def test_several_paths_give_several_reports(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (notes.parent / "words.txt").write_text("Some words.")
    reports = json.loads(run(capsys, ["data", "inspect", "words.txt", "notes.jsonl", "--json"]).out)
    assert [(one["path"], one["rows"]) for one in reports] == [("words.txt", 1), ("notes.jsonl", 7)]
    assert "every sample can be used" in run(capsys, ["data", "inspect", "words.txt"]).out


class Page(HTMLParser):
    """Tags, attributes and what stands in spans of a class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []  # classes of the innermost span, text
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((next((names for tag, names in reversed(self.open) if tag == "span"), ""), data))


@pytest.fixture
def page(notes: Path, capsys: pytest.CaptureFixture[str]) -> Page:
    outcome = run(capsys, ["data", "preview", "notes.jsonl", "-o", "page.html"])
    assert (outcome.code, outcome.out, outcome.err) == (0, "page.html\n", "")
    return Page((notes.parent / "page.html").read_text(encoding="utf-8"))


def test_the_page_marks_exactly_what_is_learned(page: Page) -> None:
    learned = "".join(text for names, text in page.texts if "learned" in names.split() and len(names.split()) > 1)
    learned = learned.replace("↵", "")
    answers = ["A red picture.", f"{ATTACK}\n<image> é😀", "Bars.", "Because.", "No."]
    assert learned == "".join(f" {answer}<end_of_utterance>" for answer in answers)
    read = "".join(text for names, text in page.texts if "read" in names.split())
    assert "Describe the picture." in read and ATTACK in read and "Why?" in read


def test_the_page_shows_pictures_in_their_shape_and_the_frames_of_videos(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    named = {str(one["alt"]): (int(one["width"] or 0), int(one["height"] or 0)) for one in pictures if one["alt"]}
    assert list(named) == ["picture 1", "frame at 00:00.0", "frame at 00:01.4", "frame at 00:02.9"]
    assert named["picture 1"] == (224, 149) and named["frame at 00:00.0"] == (144, 108)
    assert sum(not one["alt"] for one in pictures) == 4  # the tiles of the large one
    for one in pictures:
        content = base64.b64decode(str(one["src"]).removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(content)).size == (int(one["width"] or 0), int(one["height"] or 0))


def test_the_page_loads_and_runs_nothing_whatever_the_data_says(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "article", "h1", "h2", "h3", "p", "div",
        "span", "figure", "figcaption", "img", "details", "summary", "i",
    }  # fmt: skip
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "href" for name in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:image/jpeg;base64,") or "src" not in attributes
    policy = next(one["content"] for tag, one in page.tags if one.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")


def test_the_page_says_what_would_be_skipped(page: Page) -> None:
    words = "".join(text for _, text in page.texts)
    assert "7 of 7 samples" in words and "3 would be skipped" in words
    assert re.search(r"skipped: MediaError\s+'../secret.png' leads out of", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preview", "notes.jsonl"], "needs -o FILE"),
        (["preview", "notes.jsonl", "notes.jsonl", "-o", "a.html"], "takes one PATH"),
        (["inspect", "nothing.jsonl"], "no file or folder 'nothing.jsonl'"),
        (["inspect", "notes.jsonl", "--format", "lava"], "no format 'lava'"),
        (["inspect", "notes.jsonl", "--limit", "-1"], "--limit -1"),
        (["inspect", "notes.jsonl", "--media-root", "nowhere"], "is no folder"),
    ],
)
def test_mistakes_are_one_line(notes: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    outcome = run(capsys, ["data", *words])
    assert outcome.code == 2 and message in outcome.error


def test_numbers_of_a_spread_are_those_of_the_samples() -> None:
    assert Spread.of(range(1, 101)) == Spread(1, 50, 95, 100, 5050)  # type: ignore[arg-type]
    assert Spread.of([7]) == Spread(7, 7, 7, 7, 7) and Spread.of([]) == Spread(0, 0, 0, 0, 0)


def test_bins_of_the_histogram_double_and_leave_no_gap() -> None:
    assert histogram([3, 32, 33, 64, 65, 600]) == ((32, 2), (64, 2), (128, 1), (256, 0), (512, 0), (1024, 1))
    assert histogram([]) == ()


def test_samples_to_look_at_are_spread_evenly() -> None:
    assert spread_out(10, 4) == [0, 2, 5, 7] and spread_out(3, 9) == [0, 1, 2] and spread_out(3, None) == [0, 1, 2]
