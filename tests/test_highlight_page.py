"""The page and the contact sheet of a result: nothing from outside, all escaped, the same choice as select.py."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import VideoError
from smolvlm.highlights import page as page_module
from smolvlm.highlights.page import write_page
from smolvlm.highlights.segments import Curve, Segment
from smolvlm.highlights.select import Selection, select
from smolvlm.highlights.sheet import write_sheet
from tests.films import film

NASTY = '</script><script>alert(1)</script><!-- & "it\'s" \u2028 ü'
SEGMENTS = [Segment(0.5, 2.0, 0.9, NASTY), Segment(4.0, 6.5, 0.7)]
CURVE = Curve(tuple(float(second) for second in range(8)), (0.9, 0.8, 0.1, 0.2, 0.7, 0.6, 0.7, 0.0))
FACTS: dict[str, Any] = {
    "duration_s": 8.0,
    "cuts_s": [4.0],
    "selection": asdict(Selection(threshold=0.6)),
    "criteria": [NASTY, "a goal"],
    "model": NASTY,
    "method": "windows",
    "frames_seen": {"timestamps_s": [0.0, 1.0]},
    "label_mass": 0.97,
}
KEPT = (0x2F, 0x6F, 0xDB)


class Tags(HTMLParser):
    """Every tag with its attributes, and the text inside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.words.append(data)


def write_example(folder: Path) -> str:
    video = folder / "a&b <1>.mp4"
    shutil.copy(film("silent.mp4").path, video)
    path = folder / "reel.html"
    record, reel = folder / "reel.highlights.json", folder / "reel.mp4"
    write_page(path, video, SEGMENTS, CURVE, FACTS, record=record, reel=reel)
    return path.read_text(encoding="utf-8")


def test_page_loads_nothing_but_the_video_beside_it(tmp_path: Path) -> None:
    text = write_example(tmp_path)
    tags = Tags(text)
    addresses = [attrs[name] for _, attrs in tags.tags for name in ("src", "href") if name in attrs]
    assert addresses == ["a%26b%20%3C1%3E.mp4"]
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(|\beval\(|innerHTML", text)
    assert not any(name.startswith("on") or name == "style" for _, attrs in tags.tags for name in attrs)
    policy = next(attrs["content"] for tag, attrs in tags.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(tags.scripts[-1].encode()).digest()).decode()
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")


def test_what_a_model_says_is_text_and_never_markup(tmp_path: Path) -> None:
    tags = Tags(write_example(tmp_path))
    assert len(tags.scripts) == 2
    content = json.loads(tags.scripts[0])
    said = " ".join(NASTY.split())
    assert content["segments"][0]["title"] == content["criteria"][0] == said
    assert any(said in words for words in tags.words)
    assert content["curve"] == {"times_s": list(CURVE.times_s), "scores": list(CURVE.scores)}
    assert content["selection"] == FACTS["selection"]


def test_page_has_a_poster_for_what_is_chosen_and_what_may_be(tmp_path: Path) -> None:
    content = json.loads(Tags(write_example(tmp_path)).scripts[0])
    seconds = [poster["second"] for poster in content["posters"]]
    assert seconds[:2] == [1.25, 5.25]
    assert max(np.diff([0.0, *sorted(seconds), 8.0])) < 0.5
    assert all(poster["picture"].startswith("data:image/jpeg;base64,") for poster in content["posters"])


def test_every_control_has_a_name_and_a_place_in_the_script(tmp_path: Path) -> None:
    tags = Tags(write_example(tmp_path)).tags
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    scripts = "".join(page_module._asset(name) for name in page_module.SCRIPTS)
    assert set(re.findall(r'\bget\("(\w+)"\)', scripts)) <= ids
    keys = [attrs["data-key"] for _, attrs in tags if "data-key" in attrs]
    assert keys == ["threshold", "top", "min_gap_s", "target_length_s"]
    assert set(keys) <= set(asdict(Selection()))
    assert [attrs["data-copies"] for _, attrs in tags if "data-copies" in attrs] == ["recut", "again"]


def test_page_chooses_the_same_segments_as_the_command(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's script outside a browser, isn't installed")
    rng = Random(3)
    cases: list[dict[str, Any]] = []
    for _ in range(120):
        count = rng.randint(1, 40)
        cuts = sorted(round(rng.uniform(1, 79), 1) for _ in range(rng.randint(0, 6)))
        # In half of the cases no score goes across a cut.
        times = sorted({*cuts[: rng.choice([0, 9])], *(round(rng.uniform(0, 80), 2) for _ in range(count))})
        cases.append(
            {
                "curve": {"times_s": times, "scores": [round(rng.random(), 3) for _ in times]},
                "duration_s": 80.0,
                "cuts_s": cuts,
                "how": {
                    "threshold": rng.choice([0.0, 0.4, 0.7]),
                    "top": rng.choice([None, 1, 4]),
                    "target_length_s": rng.choice([None, 3.0, 20.0]),
                    "min_gap_s": rng.choice([0.0, 2.0, 9.0]),
                    "join_s": rng.choice([0.0, 1.0, 3.0]),
                    "padding_s": rng.choice([0.0, 0.5, 2.0]),
                    "snap_s": rng.choice([0.0, 0.5, 2.0]),
                    "smooth_s": rng.choice([0.0, 0.5, 4.0]),
                    "longest_s": rng.choice([None, 5.0, 30.0]),
                },
            }
        )
    program = page_module._asset("page_select.js") + (
        "const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(cases.map((one) => select(one.curve, one.duration_s, one.cuts_s, one.how))));"
    )
    script = tmp_path / "choose.js"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run([node, str(script)], input=json.dumps(cases), capture_output=True, text=True, check=True)
    total = 0
    for case, chosen in zip(cases, json.loads(done.stdout), strict=True):
        curve = Curve(tuple(case["curve"]["times_s"]), tuple(case["curve"]["scores"]))
        ours = select(curve, case["duration_s"], case["cuts_s"], Selection(**case["how"]))
        assert len(chosen) == len(ours), case
        for there, here in zip(chosen, ours, strict=True):
            assert (there["start"], there["end"], there["score"]) == pytest.approx(
                (here.start_s, here.end_s, here.score), abs=1e-6
            ), case
        total += len(ours)
    assert total > 200


def dom_after(page: Path, *steps: str) -> Tags:
    """What a browser makes of a page; steps: JavaScript that uses its controls, as a person would."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser is not None, "this test needs Chromium"
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")) if steps else page.read_text("utf-8")
    used = page.with_name("used.html")
    used.write_text(
        text.replace("</body>", f"<script>{';'.join(steps)}</script></body>" if steps else "</body>"), "utf-8"
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*command, used.as_uri()], capture_output=True, text=True, check=True, timeout=300)
    return Tags(done.stdout)


@pytest.mark.browser
def test_page_draws_itself_in_a_browser(tmp_path: Path) -> None:
    write_example(tmp_path)
    drawn = dom_after(tmp_path / "reel.html")
    assert sum(tag == "li" for tag, _ in drawn.tags) == len(SEGMENTS)
    assert sum(attrs.get("class") in ("bar", "inside") for _, attrs in drawn.tags) == len(CURVE.times_s)
    assert any(word.startswith("smolvlm highlights --from ") for word in drawn.words)
    assert "2 segments, 0:04.0 of 0:08.0" in drawn.words


@pytest.mark.browser
def test_controls_of_the_page_choose_and_say_the_command(tmp_path: Path) -> None:
    write_example(tmp_path)
    drawn = dom_after(
        tmp_path / "reel.html",
        "const slider = document.querySelector('[data-key=threshold]')",
        "slider.value = 0.72",
        "slider.dispatchEvent(new Event('input'))",
        "document.getElementById('criteria').value = `it's a goal\\n\\nDoes anything move?`",
        "document.getElementById('criteria').dispatchEvent(new Event('input'))",
        "document.getElementById('after').click()",
    )
    chosen = select(CURVE, 8.0, FACTS["cuts_s"], Selection(threshold=0.72))
    assert 0 < len(chosen) != len(SEGMENTS)
    assert sum(tag == "li" for tag, _ in drawn.tags) == len(chosen)
    recut, again = (word for word in drawn.words if word.startswith("smolvlm highlights"))
    record, reel = tmp_path / "reel.highlights.json", tmp_path / "reel.mp4"
    assert shlex.split(recut)[2:] == ["--from", str(record), "--threshold", "0.72", "-o", str(reel)]
    assert shlex.split(again)[3:] == [
        "--criteria", "it's a goal", "--criteria", "Does anything move?", "--threshold", "0.72", "-o", str(reel),
    ]  # fmt: skip


@pytest.mark.browser
def test_commands_of_the_page_say_all_that_another_run_needs(tmp_path: Path) -> None:
    facts = {**FACTS, "options": ["--model", "some/model"], "selection": asdict(Selection(0.6, top=1, padding_s=0.0))}
    record, reel = tmp_path / "reel.highlights.json", tmp_path / "reel.mp4"
    video = film("silent.mp4").path
    write_page(tmp_path / "reel.html", video, SEGMENTS, CURVE, facts, record=record, reel=reel)
    drawn = dom_after(
        tmp_path / "reel.html",
        "const slider = document.querySelector('[data-key=top]')",
        "slider.value = slider.max",
        "slider.dispatchEvent(new Event('input'))",
        "document.getElementById('criteria').value = 'a goal'",
        "document.getElementById('criteria').dispatchEvent(new Event('input'))",
    )
    recut, again = (word for word in drawn.words if word.startswith("smolvlm highlights"))
    assert shlex.split(recut)[2:] == ["--from", str(record), "--top", "0", "-o", str(reel)]  # 0 lifts the limit
    assert shlex.split(again)[2:] == [
        str(video), "--criteria", "a goal", "--model", "some/model", "--threshold", "0.6", "--padding", "0",
        "-o", str(reel),
    ]  # fmt: skip


def test_contact_sheet_shows_curve_and_pictures_of_every_segment(tmp_path: Path) -> None:
    one = film("silent.mp4")
    path = tmp_path / "sheet.png"
    write_sheet(path, one.path, SEGMENTS, CURVE, duration_s=8.0, title=NASTY, threshold=0.6)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width, _ = sheet.shape
    assert width == 1280 and height > 500
    curve = sheet[108:258, 32:1248]
    kept = (np.abs(curve - KEPT).max(axis=2) < 8).any(axis=0)
    seconds = (np.arange(len(kept)) + 0.5) / len(kept) * 8.0
    inside = np.array([any(part.start_s <= second < part.end_s for part in SEGMENTS) for second in seconds])
    assert (kept == inside).mean() > 0.99
    levels = [(np.abs(curve[:, int((second + 0.4) / 8 * len(kept))] - KEPT).max(axis=1) < 8).sum() for second in (1, 4)]
    assert levels == [pytest.approx(0.8 * 150, abs=6), pytest.approx(0.7 * 150, abs=6)]
    below = sheet[330:]
    strips = ((below.max(axis=2) < 40).mean(axis=0) > 0.02) | ((below.min(axis=2) > 252).mean(axis=0) > 0.02)
    assert strips[32:640].mean() > 0.5 and strips[656:1248].mean() > 0.5  # pictures fill both cards


def test_sheet_and_page_of_a_video_that_is_gone_say_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone.mp4"
    with pytest.raises(VideoError, match="There is no file"):
        write_sheet(tmp_path / "sheet.png", gone, SEGMENTS, CURVE, duration_s=8.0, title="")
    with pytest.raises(VideoError, match="There is no file"):
        write_page(tmp_path / "p.html", gone, SEGMENTS, CURVE, FACTS, record=tmp_path / "r", reel=tmp_path / "v")
    assert not list(tmp_path.iterdir())


def test_a_result_without_segments_has_a_sheet_and_a_page(tmp_path: Path) -> None:
    one = film("second.mp4")
    empty = Curve((), ())
    facts = {**FACTS, "duration_s": 1.0, "cuts_s": [], "criteria": []}
    write_sheet(tmp_path / "sheet.png", one.path, [], empty, duration_s=1.0, title="")
    write_page(tmp_path / "p.html", one.path, [], empty, facts, record=tmp_path / "r", reel=tmp_path / "v.mp4")
    assert math.isclose(json.loads(Tags((tmp_path / "p.html").read_text()).scripts[0])["duration_s"], 1.0)
