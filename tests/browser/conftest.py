"""What the tests of the page share: a real server process, a real Chromium, pages that may complain about nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import process

DEMO = Path(__file__).resolve().parents[2] / "src" / "smolvlm" / "assets" / "demo"
START_S = 120
FLAGS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# Counts what must not happen (requests are watched from outside) and what must not pile up.
WITNESS = """
window.violations = [];
const note = (event) => violations.push(event.violatedDirective, event.blockedURI);
addEventListener("securitypolicyviolation", note);
window.addresses = new Set();
const make = URL.createObjectURL, revoke = URL.revokeObjectURL;
URL.createObjectURL = (blob) => { const made = make.call(URL, blob); addresses.add(made); return made; };
URL.revokeObjectURL = (made) => { addresses.delete(made); revoke.call(URL, made); };
"""

Opener = Callable[..., Any]


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A server process on a free port of loopback; its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    running = process("serve", "--port", port, *options, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not is_ready(address):
            assert running.poll() is None, running.stderr.read().decode() if running.stderr else ""
            assert time.monotonic() < deadline, "the server isn't ready"
            time.sleep(0.2)
        yield address
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install -e '.[dev]'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium isn't installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture()
def opened(chromium: Any, server: str) -> Iterator[Opener]:
    """opened(path="/", width=1280, height=800, base=..., waits=True, forgives=(), **context options) -> a page.

    waits: until the models are listed.
    Whatever the page complains about in the test fails it, but console messages that hold a text of `forgives`: a
    browser writes there that a request was refused.
    """
    pages: list[tuple[Any, list[str], list[str]]] = []

    def open_page(
        path: str = "/",
        width: int = 1280,
        height: int = 800,
        base: str = server,
        waits: bool = True,
        forgives: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, locale="en-GB", **options)
        context.grant_permissions(["camera", "clipboard-read", "clipboard-write"], origin=base)
        context.add_init_script(WITNESS)
        context.set_default_timeout(30_000)
        page = context.new_page()
        complaints: list[str] = []
        elsewhere: list[str] = []

        def listen(message: Any) -> None:
            if message.type in ("error", "warning") and not any(text in message.text for text in forgives):
                complaints.append(message.text)

        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((base, "blob:")) else elsewhere.append(asked.url))
        page.goto(base + path)
        if waits:
            page.locator("#model option").first.wait_for(state="attached")
            page.locator("main > section:not([hidden], [inert])").wait_for()
        pages.append((page, complaints, elsewhere))
        return page

    yield open_page
    for page, complaints, elsewhere in pages:
        violations = page.evaluate("window.violations")
        page.context.close()
        assert complaints == [] and violations == [] and elsewhere == []
