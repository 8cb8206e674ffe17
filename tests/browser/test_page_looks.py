"""What every view must keep: it fits a phone, reads well in light and dark, and works by keyboard and screen reader."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.asking import say, settle, turn_to
from tests.browser.conftest import DEMO, Opener

pytestmark = pytest.mark.browser
PICTURE, VIDEO = DEMO / "picture.png", DEMO / "video.mp4"
# Texts with less than 4.5 to 1 against what is painted behind them (WCAG AA); colours are read back from a canvas.
CONTRASTS = """() => {
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
    const over = (top, under) => top.slice(0, 3).map((value, i) => value * top[3] + under[i] * (1 - top[3]));
    const light = (colour) => { const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92
        : ((v / 255 + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = (element) => { const layers = []; for (let one = element; one; one = one.parentElement) {
        const layer = rgba(getComputedStyle(one).backgroundColor); layers.push(layer); if (layer[3] === 1) break; }
        return layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]); };
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
        if (element.closest(".sr, :disabled, option")) continue;
        const ground = behind(element); const ink = over(rgba(getComputedStyle(element).color), ground);
        const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) poor.push(`${walker.currentNode.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return poor; }"""


def fill_every_view(page: Any) -> None:
    turn_to(page, "video")
    page.set_input_files("#film-file", str(VIDEO))
    page.locator("#frames canvas").nth(5).wait_for()
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    turn_to(page, "chat")
    say(page, "Describe the picture.", PICTURE)
    page.set_input_files("#files", [str(PICTURE), str(VIDEO)])
    page.locator("#tray .card").nth(1).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened: Opener, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    assert page.evaluate(CONTRASTS) == []
    fill_every_view(page)
    assert page.evaluate(CONTRASTS) == []
    for view in ("video", "camera"):
        turn_to(page, view)
        page.wait_for_timeout(300)
        assert page.evaluate(CONTRASTS) == [], view
    page.check("[name=eye-mode][value=watch]", force=True)
    page.click("#eye-start")
    page.locator("#changes canvas").first.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate(CONTRASTS) == []
    page.click("#open-settings")
    page.wait_for_timeout(300)
    assert page.evaluate(CONTRASTS) == []


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen(opened: Opener, width: int) -> None:
    page = opened(width=width, height=740)
    fill_every_view(page)
    for view in ("chat", "video", "camera"):
        turn_to(page, view)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        cut = page.evaluate(
            """(width) => [...document.querySelectorAll("button, select, input, textarea")]
            .filter((one) => one.checkVisibility() && !one.closest("#tray") && !["file", "radio"].includes(one.type))
            .filter((one) => { const { left, right } = one.getBoundingClientRect(); return left < 0 || right > width; })
            .map((one) => one.id)""",
            width,
        )
        assert cut == [], view
    page.click("#open-settings")
    assert page.locator("#settings").bounding_box()["width"] <= width


def test_theme_follows_the_system_and_the_switch(opened: Opener) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    pale, deep = light.evaluate(ground), dark.evaluate(ground)
    assert pale != deep
    light.click("#theme")
    assert light.evaluate(ground) == deep
    light.reload()
    assert light.evaluate(ground) == deep
    light.click("#theme")
    assert light.evaluate(ground) == pale and light.evaluate("localStorage.getItem('smolvlm.theme')") is None


def test_everything_is_reached_by_keyboard(opened: Opener) -> None:
    page = opened()
    focused = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
    order = []
    for _ in range(20):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or order[-1] == "words", f"the focus on {order[-1]} can't be seen"
        if order[-1] == "choose":
            break
    expected = "tab-chat model fresh kept theme open-settings try-choose try-drawn words choose"
    assert order[1:] == expected.split()  # the first leads to the content
    page.focus("#try-drawn")
    page.keyboard.press("Enter")
    page.locator("#tray .card").wait_for()
    page.focus("#words")
    page.keyboard.press("Enter")
    page.locator("#log .foot").wait_for()
    page.keyboard.press("ArrowUp")  # an empty field: back to the last question
    assert page.input_value("#words") == "Describe the picture."
    page.focus("#tab-chat")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "tab-camera" and page.locator("#camera").is_visible()
    page.keyboard.press("ArrowLeft")
    page.focus("#open-settings")
    page.keyboard.press("Enter")
    assert page.locator("#settings").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#settings").is_hidden() and page.evaluate(focused) == "open-settings"


def test_every_control_has_a_role_and_a_name(opened: Opener) -> None:
    page = opened()
    fill_every_view(page)
    reader = page.context.new_cdp_session(page)
    for view in ("chat", "video", "camera"):
        turn_to(page, view)
        page.wait_for_timeout(300)
        nodes = reader.send("Accessibility.getFullAXTree")["nodes"]
        shown = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]
        controls = {"button", "textbox", "combobox", "slider", "spinbutton", "radio", "tab", "link", "tabpanel", "list"}
        unnamed = [role for role, name in shown if role in controls - {"list"} and not name.strip()]
        assert unnamed == [], view
        assert sum(role == "tab" for role, _ in shown) == 3 and sum(role == "main" for role, _ in shown) == 1
        assert ("heading", "smolvlm") in shown
    reader.detach()


def test_screen_readers_hear_sentences_not_pieces(opened: Opener) -> None:
    page = opened()
    page.evaluate(
        """() => { window.heard = []; const live = document.getElementById("live");
        new MutationObserver(() => heard.push(live.textContent)).observe(live, { childList: true, subtree: true }); }"""
    )
    answer = say(page, "Describe the picture.", PICTURE)
    text = answer.locator(".text").inner_text()
    page.wait_for_timeout(300)
    heard = page.evaluate("heard")
    assert any(text in one for one in heard)
    assert len(heard) <= 4, heard
    assert page.locator("#log[aria-live], #log [aria-live]").count() == 0


def test_what_a_model_writes_is_never_markup(opened: Opener) -> None:
    page = opened()
    shown = page.evaluate(
        """async (text) => { const { render } = await import("./markdown.js");
        const place = document.createElement("div"); place.append(render(text)); document.body.append(place);
        const found = [place.textContent, [...place.querySelectorAll("*")].map((one) => one.localName)];
        place.remove(); return found; }""",
        '<img src=x onerror="alert(1)"> **bold** *soft* `a<b`\n\n- one\n- two\n\n'
        "```js\n<script>alert(2)</script>\n```\n[link](javascript:alert(3))\n\n# Head\n\n> said",
    )
    assert '<img src=x onerror="alert(1)"> bold soft a<b' in shown[0] and "<script>alert(2)</script>" in shown[0]
    assert "[link](javascript:alert(3))" in shown[0]
    assert set(shown[1]) == {"p", "strong", "em", "code", "ul", "li", "pre", "blockquote"}


def test_rendering_takes_no_time_on_hostile_text(opened: Opener) -> None:
    page = opened()
    spent = page.evaluate(
        """async () => { const { render } = await import("./markdown.js"); const began = performance.now();
        for (const part of ["`", "*", "**", "_", "*a", "`a", "> ", "- ", "**a", "# "]) render(part.repeat(4000));
        return performance.now() - began; }"""
    )
    assert spent < 4000


def test_no_address_of_a_picture_outlives_its_loading(opened: Opener) -> None:
    page = opened()
    for _ in range(2):
        say(page, "Describe the picture.", PICTURE)
    page.click("#log .thumb >> nth=0")
    page.locator("#closer img").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert page.evaluate("addresses.size") == 0
    assert settle(page, "#meter-text", "left")
