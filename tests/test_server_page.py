"""The page without a browser: what is sent, with which types, that it needs nothing from elsewhere, and its size."""

from __future__ import annotations

import gzip
import re
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server's extra isn't installed: pip install 'smolvlm[server]'")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from smolvlm.server.pages import TYPES, page_router, read_page

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "src" / "smolvlm" / "server" / "page"
LATER = {"camera.js", "watch.js", "video.js", "timeline.js"}  # loaded when their view is first shown
NAMES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    plain = client.get(f"/{name}", headers={"Accept-Encoding": "identity"})
    assert plain.status_code == 200 and plain.content == (FOLDER / name).read_bytes()
    assert plain.headers["content-type"] == TYPES[Path(name).suffix]
    packed = client.get(f"/{name}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and packed.content == plain.content
    again = client.get(f"/{name}", headers={"If-None-Match": plain.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_the_root_is_the_index(client: TestClient) -> None:
    assert client.get("/").content == (FOLDER / "index.html").read_bytes()
    assert client.head("/").status_code == 200
    assert client.get("/../pages.py").status_code == client.get("/nothing.js").status_code == 404


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = text_of(name).replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert not re.search(r"https?://|[\"'(]//\w|@import|\bwss?:", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_becomes_markup_or_code(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert not re.search(forbidden, text_of(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_find_their_neighbours_and_elements(name: str) -> None:
    text = text_of(name)
    imported = re.findall(r"from \"\./([\w.]+)\"|import\(\"\./([\w.]+)\"\)", text)
    assert {one or other for one, other in imported} <= set(NAMES)
    ids = {attrs["id"] for _, attrs in Tags(text_of("index.html")).tags if "id" in attrs}
    assert set(re.findall(r'(?<![\w.])get\("([\w-]+)"\)', text)) <= ids
    assert text.count("\n") <= 400 and max(map(len, text.splitlines())) <= 140


def test_index_keeps_to_a_strict_policy() -> None:
    tags = Tags(text_of("index.html")).tags
    policy = next(attrs["content"] for _, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    assert not any(name.startswith("on") or name == "style" for _, attrs in tags for name in attrs)
    assert all(attrs.get("src") for tag, attrs in tags if tag == "script")
    assert not any(tag == "style" for tag, _ in tags)
    addresses = [attrs[key] for _, attrs in tags for key in ("src", "href") if attrs.get(key)]
    assert {one for one in addresses if one and not one.startswith("#")} <= set(NAMES)


def test_labels_and_ids_fit_together() -> None:
    tags = Tags(text_of("index.html")).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for key in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
        assert {attrs[key] for _, attrs in tags if key in attrs} <= set(ids)


def test_page_is_light() -> None:
    first = {name: page for name, page in read_page().items() if name not in LATER}
    assert sum(len(file.content) for file in first.values()) < 95_000
    assert sum(len(file.compressed) for file in first.values()) < 36_000
    assert all(gzip.decompress(file.compressed) == file.content for file in first.values())


def test_every_file_is_in_the_package() -> None:
    assert set(read_page()) == set(NAMES)
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/smolvlm"]}  # everything below it, but what git ignores
    if (REPOSITORY / ".git").exists():
        paths = [str(FOLDER / name) for name in NAMES]
        ignored = subprocess.run(["git", "check-ignore", "--no-index", *paths], cwd=REPOSITORY, capture_output=True)
        assert ignored.returncode == 1, ignored.stdout.decode()
