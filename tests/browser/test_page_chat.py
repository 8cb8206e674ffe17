"""The chat in a real browser against a real server process: what is shown is what the library answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import smolvlm
from tests.browser.asking import attach, say, set_settings, settle, text_of
from tests.browser.conftest import DEMO, Opener, serving

pytestmark = pytest.mark.browser
PICTURE, VIDEO = DEMO / "picture.png", DEMO / "video.mp4"
LONG_LIST = '{"type": "array", "items": {"type": "integer", "minimum": 100}, "minItems": 600, "maxItems": 700}'


@pytest.fixture(scope="module")
def vlm() -> smolvlm.VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of two tiles side by side."""
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    image = Image.new("RGB", (256, 128), (250, 247, 238))
    pen = ImageDraw.Draw(image)
    pen.ellipse((30, 30, 95, 95), fill=(218, 38, 42))
    pen.rectangle((160, 40, 220, 100), fill=(40, 88, 214))
    image.save(path)
    return path


def test_answer_on_the_page_is_the_librarys(opened: Opener, vlm: smolvlm.VLM) -> None:
    page = opened()
    answer = say(page, "Describe the picture.", PICTURE)
    expected = vlm.ask("Describe the picture.", images=[PICTURE], detail="auto")
    assert text_of(answer) == expected.text
    assert f"{len(expected.token_ids)} tokens" in answer.locator(".foot").inner_text()
    assert page.locator("#welcome").is_hidden() and page.locator("#tray .card").count() == 0


def test_answer_appears_piece_by_piece(opened: Opener) -> None:
    page = opened()
    page.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => {
        const text = document.querySelector("#log .answer:last-child .text");
        if (text) seen.add(text.textContent.length); })
        .observe(document.getElementById("log"), { subtree: true, childList: true, characterData: true }); }"""
    )
    set_settings(page, schema=LONG_LIST, max_tokens=300)
    say(page, "Numbers?")
    assert page.evaluate("seen.size") > 5


def test_stop_button_keeps_what_came_and_frees_the_server(opened: Opener) -> None:
    page = opened()
    set_settings(page, schema=LONG_LIST, max_tokens=3000)
    page.fill("#words", "Numbers?")
    page.press("#words", "Enter")
    settle(page, "#log .answer .text", r"\d{3}")
    page.click("#stop")
    answer = page.locator("#log .answer").last
    answer.locator(".foot").wait_for()
    assert "stopped" in answer.locator(".foot").inner_text() and re.search(r"\d{3}", text_of(answer))
    assert page.locator("#stop").is_hidden() and page.evaluate("document.activeElement.id") == "words"
    set_settings(page, schema="", max_tokens=30)
    say(page, "Who are you?")  # it isn't kept from answering


def test_tokens_and_tiles_are_shown_before_sending(opened: Opener, vlm: smolvlm.VLM, wide: Path) -> None:
    page = opened()
    attach(page, wide, PICTURE)
    page.fill("#words", "What is there?")
    counted = vlm.tokens("What is there?", images=[wide, PICTURE], detail="auto")
    shown = settle(page, "#meter-text", r"tokens, .* left")
    assert shown == f"{counted.total:,} tokens, {counted.left:,} left"
    cards = page.locator("#tray .card")
    assert f"{counted.media[0].tokens} tokens" in cards.nth(0).inner_text()
    assert cards.nth(0).locator(".tiled path").count() == counted.media[0].cols - 1 == 1
    cards.nth(0).locator("select").select_option("low")
    low = vlm.tokens("What is there?", images=[wide], detail="low").media[0].tokens
    settle(page, "#tray .card:first-child", f"1 tile, {low} tokens")
    assert cards.nth(0).locator(".tiled path").count() == 0
    page.click(f"button[aria-label='Remove {wide.name}']")
    assert cards.count() == 1


def test_several_pictures_go_in_one_question(opened: Opener, vlm: smolvlm.VLM, wide: Path) -> None:
    page = opened()
    answer = say(page, "What is the difference?", wide, PICTURE)
    assert text_of(answer) == vlm.ask("What is the difference?", images=[wide, PICTURE], detail="auto").text
    assert page.locator("#log .question .thumb").count() == 2


def test_pictures_are_pasted_and_dropped(opened: Opener) -> None:
    page = opened()
    give = """([kind, bytes, name]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
        const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true })
            : new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event); }"""
    content = list(PICTURE.read_bytes())
    page.evaluate(give, ["paste", content, "pasted.png"])
    page.locator("#tray .card").first.wait_for()
    page.evaluate(give, ["dragenter", content, "dropped.png"])
    assert page.locator("#drop").is_visible()
    page.evaluate(give, ["drop", content, "dropped.png"])
    page.locator("#tray .card").nth(1).wait_for()
    assert page.locator("#drop").is_hidden()
    assert page.locator("#tray img").count() == 2
    words = """(bytes) => { const copied = new DataTransfer(); copied.setData("text/plain", "a table");
        copied.items.add(new File([new Uint8Array(bytes)], "table.png", { type: "image/png" }));
        const event = new ClipboardEvent("paste", { clipboardData: copied, bubbles: true, cancelable: true });
        return document.getElementById("words").dispatchEvent(event); }"""
    assert page.evaluate(words, content)  # left to the field: a document's text, not the picture of it
    assert page.locator("#tray .card").count() == 2


def test_huge_picture_is_made_smaller_and_says_so(opened: Opener, tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    Image.new("RGB", (5000, 100), (40, 88, 214)).save(huge)
    page = opened()
    attach(page, huge)
    assert "from 5000 × 100 to 4096 × 82" in page.locator("#tray .card").inner_text()


def test_reload_keeps_the_conversation(opened: Opener, vlm: smolvlm.VLM) -> None:
    page = opened()
    first = text_of(say(page, "Describe the picture.", PICTURE))
    page.reload()
    page.locator("#log .answer .foot").wait_for()
    assert text_of(page.locator("#log .answer").last) == first
    page.locator("#log .thumb img").wait_for()
    second = text_of(say(page, "How many shapes are there?"))
    picture = {"type": "image", "image": PICTURE}
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [picture, {"type": "text", "text": "Describe the picture."}]},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "How many shapes are there?"},
    ]
    assert second == vlm.ask(messages=messages, detail="auto").text


def test_conversations_are_listed_and_deleted(opened: Opener) -> None:
    page = opened()
    say(page, "Who are you?")
    page.click("#fresh")
    assert page.locator("#welcome").is_visible() and page.locator("#log li").count() == 0
    page.reload()
    page.wait_for_timeout(500)
    assert page.locator("#welcome").is_visible()  # this tab has begun another one
    say(page, "What can you do?")
    page.click("#kept")
    page.locator("#history-list li").nth(1).wait_for()
    page.click("#history-list li >> text=Who are you?")
    settle(page, "#log", "Who are you?")
    page.click("#kept")
    page.click("#history-clear")
    settle(page, "#history-size", "0 conversations")
    page.reload()
    page.locator("#welcome").wait_for()


def test_copy_retry_and_change_of_the_last_question(opened: Opener) -> None:
    page = opened()
    answer = say(page, "Describe the picture.", PICTURE)
    text = text_of(answer)
    answer.locator("button[aria-label='Copy the answer']").click()
    settle(page, "#live", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == text
    answer.locator("button[aria-label='Ask again']").click()
    page.locator("#log .foot").wait_for(state="visible")
    assert text_of(page.locator("#log .answer").last) == text
    page.click("button[aria-label='Change the question']")
    assert page.input_value("#words") == "Describe the picture." and page.locator("#tray .card").count() == 1
    assert page.locator("#log li").count() == 0
    assert text_of(say(page, "How many shapes are there?")) != text


def test_structured_answer_follows_the_schema(opened: Opener) -> None:
    page = opened()
    page.click("#open-settings")
    page.fill("#settings [name=schema]", "{not json")
    page.click("#settings button[value=save]")
    assert "no valid JSON" in settle(page, "#schema-trouble", "JSON")
    page.keyboard.press("Escape")
    count = '{"type": "integer", "minimum": 0, "maximum": 9}'
    schema = f'{{"type": "object", "properties": {{"shapes": {count}}}, "required": ["shapes"], '
    schema += '"additionalProperties": false}'
    set_settings(page, schema=schema)
    assert page.locator("#schema-on").is_visible()
    answer = say(page, "How many shapes are there?", PICTURE)
    assert re.fullmatch(r'{\s*"shapes": \d+\s*}', answer.locator("pre").inner_text())


def test_sampling_and_system_text_reach_the_model(opened: Opener, vlm: smolvlm.VLM) -> None:
    page = opened()
    set_settings(page, system="Answer in one word.", temperature=1.5, seed=7, max_tokens=12, detail="high")
    answer = text_of(say(page, "Tell a story.", PICTURE))
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "Tell a story."}]},
    ]
    params: dict[str, Any] = {"temperature": 1.5, "seed": 7, "max_new_tokens": 12, "detail": "high"}
    assert answer == vlm.ask(messages=messages, **params).text


def test_refusals_are_shown_in_the_servers_words(opened: Opener) -> None:
    page = opened(forgives=("status of 400",))
    page.fill("#words", "star " * 5000)
    settle(page, "#meter-text", "too many|this model holds 4096")
    page.press("#words", "Enter")
    said = settle(page, "#log .trouble", "tokens")
    assert "this model holds 4096" in said
    assert "a new conversation has all the room" in said
    assert page.locator("#log .trouble button").inner_text() == "Try again"
    page.click("#fresh")
    say(page, "Who are you?")


def test_page_asks_for_the_key_and_tells_what_is_too_large(opened: Opener, tmp_path: Path) -> None:
    key, noise = "a-key-of-a-test", tmp_path / "noise.png"
    Image.effect_noise((500, 500), 90).save(noise)
    with serving("--api-key", key, "--body-bytes", "100000") as address:
        page = opened(base=address, waits=False, forgives=("status of 401", "status of 413", "CONNECTION_REFUSED"))
        settle(page, "#trouble", "didn't provide an API key")
        page.click("#trouble button")
        assert page.evaluate("document.activeElement.name") == "key"
        page.fill("#settings [name=key]", key)
        page.click("#settings button[value=save]")
        page.locator("#model option").first.wait_for(state="attached")
        assert page.locator("#trouble .trouble").count() == 0
        say(page, "Who are you?")
        assert key not in page.evaluate("JSON.stringify({ ...localStorage })")
        attach(page, noise)
        settle(page, "#meter-text", "larger than the limit of 100,000 bytes")
        page.press("#words", "Enter")
        assert "Send fewer or smaller files" in settle(page, "#log .trouble", "larger than the limit")


def test_busy_and_vanished_servers_are_told_apart(opened: Opener) -> None:
    page = opened(forgives=("status of 429", "ERR_FAILED"))
    busy = '{"error": {"message": "9 requests wait already.", "type": "rate_limit_error", "code": null}}'
    path = "**/v1/chat/completions"
    page.route(path, lambda route: route.fulfill(status=429, body=busy, headers={"Retry-After": "3"}))
    page.fill("#words", "Who are you?")
    page.press("#words", "Enter")
    assert "Try again in 3 s." in settle(page, "#log .trouble", "9 requests wait already.")
    page.unroute(path)
    page.route(path, lambda route: route.abort())
    page.click("#log .trouble button")
    assert "still running" in settle(page, "#log .trouble", "The server doesn't answer")
    page.unroute(path)
    page.click("#log .trouble button")
    page.locator("#log .answer .foot").wait_for()
    assert page.locator("#log .trouble").count() == 0


def test_video_in_the_chat_leads_to_its_timeline(opened: Opener, vlm: smolvlm.VLM) -> None:
    page = opened()
    answer = say(page, "What happens in the video?", VIDEO)
    expected = vlm.ask("What happens in the video?", videos=[VIDEO])
    assert text_of(answer) == expected.text
    answer.locator("text=See the 6 frames it saw").click()
    page.locator("#frames canvas").nth(5).wait_for()
    assert page.locator("#film").is_visible() and page.locator("#rail.sure .tick").count() == 6
