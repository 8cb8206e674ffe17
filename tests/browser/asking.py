"""How a person uses the page, in words of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def say(page: Any, words: str, *files: Path | str) -> Any:
    """Ask in the chat and wait until the answer is whole. Returns its element."""
    attach(page, *files)
    answers = page.locator("#log .answer .foot")
    before = answers.count()
    page.fill("#words", words)
    page.press("#words", "Enter")
    answers.nth(before).wait_for()
    return page.locator("#log .answer").last


def attach(page: Any, *files: Path | str) -> None:
    if files:
        cards = page.locator("#tray .card")
        before = cards.count()
        page.set_input_files("#files", [str(file) for file in files])
        cards.nth(before + len(files) - 1).wait_for()


def turn_to(page: Any, view: str) -> None:
    """Go to a view and wait until it can be used."""
    page.click(f"#tab-{view}")
    page.locator(f"#{view}:not([inert])").wait_for()


def text_of(answer: Any) -> str:
    return str(answer.locator(".text").inner_text())


def settle(page: Any, selector: str, pattern: str) -> str:
    """Wait until an element's text has a pattern; the text."""
    import re

    page.locator(selector).filter(has_text=re.compile(pattern)).wait_for()
    return str(page.locator(selector).inner_text())


def set_settings(page: Any, **values: object) -> None:
    page.click("#open-settings")
    for name, value in values.items():
        field = page.locator(f"#settings [name={name}]")
        if field.evaluate("(element) => element.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))
    page.click("#settings button[value=save]")
