"""The video view: which frames the model sees, at which seconds, and what can be done with them."""

from __future__ import annotations

from pathlib import Path

import pytest

import smolvlm
from tests import videos
from tests.browser.asking import settle
from tests.browser.conftest import DEMO, Opener

pytestmark = pytest.mark.browser
VIDEO = DEMO / "video.mp4"


def test_timeline_shows_the_frames_and_seeks(opened: Opener) -> None:
    vlm = smolvlm.load()
    expected = vlm.ask("What happens in the video?", videos=[VIDEO])
    (seen,) = expected.frames
    page = opened("/#/video")
    page.set_input_files("#film-file", str(VIDEO))
    page.locator("#frames canvas").nth(len(seen.timestamps_s) - 1).wait_for()
    assert "would show" in page.inner_text("#seen-line")
    assert settle(page, "#film-meter", "tokens").startswith(f"{expected.prompt_tokens} tokens")
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    assert page.locator("#film-log .said").inner_text() == expected.text
    assert page.inner_text("#seen-line") == f"{len(seen.timestamps_s)} frames that the model saw"
    lefts = page.evaluate("[...document.querySelectorAll('#rail .tick')].map((tick) => parseFloat(tick.style.left))")
    assert lefts == pytest.approx([100 * second / seen.duration_s for second in seen.timestamps_s], abs=0.1)
    page.locator("#frames button").nth(3).click()
    assert page.evaluate("document.getElementById('film').currentTime") == pytest.approx(seen.timestamps_s[3], abs=0.01)
    assert page.locator("#frames button").nth(3).get_attribute("aria-current") == "true"
    page.focus("#rail")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.getElementById('film').currentTime") == pytest.approx(1.0, abs=0.01)
    assert page.get_attribute("#rail", "aria-valuetext") == "0:01.0 of 0:06.0"
    box = page.locator("#rail").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    assert page.evaluate("document.getElementById('film').currentTime") == pytest.approx(3.0, abs=0.05)


def test_frames_are_pictures_of_their_seconds(opened: Opener, tmp_path: Path) -> None:
    film = videos.write_video(tmp_path / "numbered.mp4", frames=50, rate=10, codec="libx264")
    page = opened("/#/video", forgives=("willReadFrequently",))  # it is this test that reads
    page.set_input_files("#film-file", str(film))
    page.locator("#frames canvas").nth(4).wait_for()
    bars = page.evaluate(
        """() => [...document.querySelectorAll("#frames canvas")].map((canvas) => {
        const pen = canvas.getContext("2d"); let number = 0;
        for (let bit = 0; bit < 8; bit += 1) {
            const [grey] = pen.getImageData((2 * bit + 1) * canvas.width / 16, canvas.height / 2, 1, 1).data;
            number += (grey > 127) << bit;
        }
        return number; })"""
    )
    vlm = smolvlm.load()
    (media,) = vlm.tokens("?", videos=[film]).media
    assert bars == [round(second * 10) for second in media.timestamps_s]


def test_rate_and_number_of_frames_can_be_chosen(opened: Opener) -> None:
    vlm = smolvlm.load()
    page = opened("/#/video")
    page.set_input_files("#film-file", str(VIDEO))
    page.fill("#film-most", "3")
    page.locator("#frames li").nth(2).wait_for()
    page.locator("#frames li").nth(3).wait_for(state="detached")
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    expected = vlm.ask("What happens in the video?", videos=[VIDEO], max_frames=3)
    assert page.locator("#film-log .said").inner_text() == expected.text


def test_frames_made_in_the_browser_can_be_sent_instead(opened: Opener) -> None:
    page = opened("/#/video")
    page.set_input_files("#film-file", str(VIDEO))
    page.select_option("#film-send", "frames")
    page.fill("#film-most", "4")
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    settle(page, "#seen-line", "4 frames that the model saw")
    page.locator("#frames button[aria-label='Frame at 0:01.5']").wait_for()


def test_file_too_large_for_a_server_goes_as_frames(opened: Opener, tmp_path: Path) -> None:
    large, padding = tmp_path / "large.mp4", 48_000_000
    head = (padding + 8).to_bytes(4, "big") + b"free"  # a box that players skip
    large.write_bytes(VIDEO.read_bytes() + head + bytes(padding))
    page = opened("/#/video")
    page.set_input_files("#film-file", str(large))
    page.locator("#frames canvas").nth(5).wait_for()
    assert page.input_value("#film-send") == "frames"
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    settle(page, "#seen-line", "6 frames that the model saw")


def test_file_that_the_browser_cannot_play_is_still_answered(opened: Opener) -> None:
    film = videos.film("camera.avi")  # MPEG-4 part 2 in AVI
    page = opened("/#/video", forgives=("ERR_",))
    page.set_input_files("#film-file", str(film))
    page.locator("#film-blind").wait_for()
    assert page.locator("#film").is_hidden()
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    vlm = smolvlm.load()
    expected = vlm.ask("What happens in the video?", videos=[film])
    assert page.locator("#film-log .said").inner_text() == expected.text
    assert page.locator("#rail.sure .tick").count() == len(expected.frames[0].timestamps_s)
    assert page.locator("#frames canvas").count() == 0


def test_memory_of_videos_is_let_go(opened: Opener) -> None:
    page = opened("/#/video")
    for _ in range(3):
        page.set_input_files("#film-file", str(VIDEO))
        page.locator("#frames canvas").nth(5).wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("addresses.size") == 1  # the player's own
