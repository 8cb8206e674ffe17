"""The camera of the page with Chromium's fake device, which shows a circle that fills up and a running clock."""

from __future__ import annotations

from typing import Any

import pytest

import smolvlm
from tests.browser.asking import settle, turn_to
from tests.browser.conftest import Opener

pytestmark = pytest.mark.browser
COUNT_REQUESTS = """() => { window.open_now = 0; window.most = 0; window.sent = []; window.got = [];
    const ask = window.fetch;
    window.fetch = async (path, options) => {
        if (!options?.body) return ask(path, options);
        sent.push([path, options.body]); open_now += 1; most = Math.max(most, open_now);
        try { const reply = await ask(path, options); got.push(await reply.clone().text()); return reply; }
        finally { open_now -= 1; } }; }"""
TRACKS = "() => document.getElementById('eye').srcObject?.getTracks().map((track) => track.readyState) ?? []"


def begin(page: Any) -> None:
    turn_to(page, "camera")
    page.click("#eye-start")
    page.locator("#sign").wait_for()


def test_question_is_answered_about_frame_after_frame(opened: Opener) -> None:
    page = opened()
    page.evaluate(COUNT_REQUESTS)
    begin(page)
    settle(page, "#g-rate", r"\d")
    assert settle(page, "#eye-answer", r"\w \w") != "The answer comes here."
    settle(page, "#g-first", r"\d m?s")
    settle(page, "#g-answer", r"\d m?s")
    settle(page, "#g-late", r"[1-9]")
    assert page.evaluate("most") == 1
    assert page.locator("#eye-device option").count() >= 1
    assert page.title().startswith("●") and page.locator("#sign").inner_text() == "Camera on"
    frame = page.evaluate(
        """async () => { const url = JSON.parse(sent[0][1]).messages[0].content[0].image_url.url;
        const bytes = Uint8Array.from(atob(url.split(",")[1]), (char) => char.charCodeAt(0));
        const picture = await createImageBitmap(new Blob([bytes]));
        return [url.split(";")[0], picture.width, picture.height]; }"""
    )
    assert frame[0] == "data:image/jpeg" and frame[1:] == [128, 128]  # the model's tile


def test_still_frames_are_skipped(opened: Opener) -> None:
    page = opened()
    page.evaluate(COUNT_REQUESTS)
    turn_to(page, "camera")
    page.locator("#eye-gate").fill("0.3")
    page.click("#eye-start")
    settle(page, "#g-still", r"\d\d")
    assert page.evaluate("sent.length") < 10
    difference = """async ([one, other]) => {
        const { difference } = await import("./camera.js");
        return difference(Float32Array.from(one), Float32Array.from(other)); }"""
    flat = [0.5] * 768
    assert page.evaluate(difference, [flat, flat]) == 0
    moved = flat.copy()
    moved[:77] = [0.9] * 77  # a tenth of the picture, which is what is compared
    assert page.evaluate(difference, [flat, moved]) == pytest.approx(0.4, abs=0.01)


def test_stop_gives_the_device_back(opened: Opener) -> None:
    page = opened()
    begin(page)
    assert page.evaluate(TRACKS) == ["live"]
    page.evaluate("() => { window.kept = document.getElementById('eye').srcObject.getTracks()[0]; }")
    page.click("#eye-stop")
    assert page.locator("#sign").is_hidden() and page.title() == "smolvlm"
    assert page.evaluate("kept.readyState") == "ended" and page.evaluate(TRACKS) == []
    assert page.evaluate("document.activeElement.id") == "eye-start"


def test_camera_stops_when_the_tab_is_hidden_or_left(opened: Opener) -> None:
    page = opened()
    begin(page)
    page.evaluate(
        """() => { Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")); delete document.hidden; }"""
    )
    assert "hidden" in settle(page, "#eye-note", "stopped")
    assert page.evaluate(TRACKS) == []
    page.click("#eye-start")
    page.locator("#sign").wait_for()
    turn_to(page, "chat")
    turn_to(page, "camera")
    page.locator("#eye-start").wait_for()
    assert page.evaluate(TRACKS) == []


def test_watch_shows_probability_curve_and_changes(opened: Opener) -> None:
    page = opened()
    page.evaluate(COUNT_REQUESTS)
    turn_to(page, "camera")
    page.check("[name=eye-mode][value=watch]", force=True)
    assert page.input_value("#eye-words") == "Is there a person in the picture?"
    page.fill("#eye-words", "Is there a red circle?")
    page.locator("#eye-gate").fill("0")
    page.click("#eye-start")
    settle(page, "#verdict", r"(Yes|No) probability of yes \d\.\d\d")
    page.locator("#changes li canvas").first.wait_for()
    page.wait_for_timeout(1500)
    assert len(page.get_attribute("#curve polyline", "points").split()) >= 2
    asked = page.evaluate("sent.map(([path]) => path)")
    assert set(asked) == {"v1/decisions"} and page.evaluate("most") == 1
    image, reply = page.evaluate("[JSON.parse(sent[0][1]).input[0].content[0].image_url, JSON.parse(got[0])]")
    expected = smolvlm.load().decide("Is there a red circle?", images=[image], detail="low")
    assert reply["answers"][0]["probability"] == pytest.approx(expected.probabilities["yes"], abs=1e-4)
    verdict = page.inner_text("#verdict b")
    assert page.locator("#changes li").first.inner_text().startswith(verdict)
    page.click("#changes-copy")
    assert verdict.lower() in page.evaluate("navigator.clipboard.readText()")
    page.click("#eye-stop")


def test_state_falls_only_below_the_margin(opened: Opener) -> None:
    page = opened()
    states = page.evaluate(
        """async () => { const { nextState } = await import("./watch.js"); let state = false;
        const probabilities = [0.59, 0.6, 0.5, 0.46, 0.44, 0.5, 0.59, 0.9];
        return probabilities.map((one) => (state = nextState(state, one, 0.6, 0.15))); }"""
    )
    assert states == [False, True, True, True, False, False, False, True]


def test_camera_that_is_refused_says_what_to_do(opened: Opener) -> None:
    page = opened()
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = async () => {
        throw new DOMException("Permission denied"); }; }"""
    )
    turn_to(page, "camera")
    page.click("#eye-start")
    assert "Allow it in the browser" in settle(page, "#eye-trouble", "Permission denied")
    assert page.locator("#eye-start").is_visible() and page.locator("#sign").is_hidden()
