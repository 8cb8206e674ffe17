"""Strings for pictures: no stranger's text becomes a path, addresses are fetched as allowed, files as the root says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

from smolvlm.errors import FetchError, ImageError, MediaError, VideoError
from smolvlm.media import source as door
from smolvlm.server.failures import RequestError
from smolvlm.server.settings import Limits, Settings
from smolvlm.server.sources import Access, Reference, fill
from smolvlm.server.worker import fill_all
from tests.test_fetch import answer, server
from tests.test_server_parts import ACCESS, BASE64, URI, chat, png, refused

# ---- strings that may not become paths ----

NAMES = [
    "/etc/passwd", "etc/passwd", "picture.png", "../../secret.png", "~/picture.png", "C:\\secret.png",
    "\\\\host\\share",
    "picture", ".", "", "/", "/proc/self/environ", "/dev/zero", "/dev/stdin", "CON", "file.png\0.jpg", "%2e%2e/x",
    "a" * 5000,
    "dir/picture", "\ud800", "picture.png\n", "-", "--help", "$HOME/x.png", "`id`", "x" * 15, "/" * 300, "./" * 100,
]  # fmt: skip


@pytest.fixture
def guarded_paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever the door wants to treat as a path."""
    asked: list[str] = []

    class Spy(type(Path())):  # type: ignore[misc]
        def __new__(cls, *parts: Any) -> Any:
            asked.append(str(parts))
            return super().__new__(cls, *parts)

    monkeypatch.setattr(door, "Path", Spy)
    yield asked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_name_of_a_file_is_never_looked_for(name: str, kind: str, guarded_paths: list[str]) -> None:
    try:
        filled = fill_all(chat({"type": kind, kind: name}), ACCESS)[0]["content"][0][kind]  # type: ignore[index]
    except (RequestError, MediaError):
        filled = None
    assert filled is None or (len(name) >= 48 and isinstance(filled.content, bytes)), "long ones are base64 to us"
    assert not guarded_paths


def test_content_is_never_looked_for_either(
    guarded_paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE64[:40].replace("/", "_")).write_bytes(b"secret")
    for text in (URI, BASE64, f"data:,{BASE64}", BASE64[:40], f"data:image/png;base64,{BASE64[:40]}"):
        try:
            message: Any = fill_all(chat({"type": "image", "image": text}), ACCESS)[0]
        except (RequestError, MediaError):
            continue
        filled = message["content"][0]["image"]
        assert isinstance(filled.content, bytes) and filled.content != b"secret"
    assert not guarded_paths


@pytest.mark.parametrize(
    "text",
    [
        "data:", "data:image/png", "data:image/png,abc", "data:image/png;base64", "data:;base64,",
        "data:" + "x" * 300 + ",",
        "data:image/svg+xml,<svg/>", "data:image/png;base32,AAAA", "data:image/png;base64;x,AAAA", "DATA:,x",
    ],
)  # fmt: skip
def test_data_uris_that_are_none_are_refused(text: str) -> None:
    error = refused({"type": "image_url", "image_url": {"url": text}})
    assert error.code == "invalid_source"


@pytest.mark.parametrize("payload", ["A", "AAA*", "====", "A===", "AA=A", "\u00e9" * 20, "A" * 17 + "!", "🙂" * 9])
def test_base64_that_is_none_is_refused_where_it_is_decoded(payload: str) -> None:
    with pytest.raises((ImageError, RequestError)):
        fill_all(chat({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{payload}"}}), ACCESS)


# ---- addresses ----


def fetching(url: str, **limits: int) -> tuple[Settings, Access]:
    port = int(url.rpartition(":")[2])
    settings = Settings(allow_url=True, url_ports=(port,), allowed_networks=("127.0.0.1/32",), limits=Limits(**limits))
    return settings, Access.of(settings)


def test_addresses_that_are_allowed_are_fetched_once_each() -> None:
    asked: list[str] = []

    def talk(connection: Any, request: str) -> None:
        asked.append(request.split()[1])
        answer(png())(connection, request)

    with server(talk) as url:
        settings, access = fetching(url)
        parts = [{"type": "image_url", "image_url": {"url": f"{url}/{name}.png"}} for name in ("a", "b", "a", "c")]
        message: Any = fill_all(chat(*parts, settings=settings), access)[0]
    assert sorted(asked) == ["/a.png", "/b.png", "/c.png"]
    assert [one["image"].content for one in message["content"]] == [png()] * 4
    assert [one["image"].name for one in message["content"]] == [f"picture {number}" for number in (1, 2, 3, 4)]


def test_downloads_of_a_request_are_limited_one_by_one_and_together() -> None:
    with server(answer(png())) as url:
        parts = [{"type": "image_url", "image_url": {"url": f"{url}/{number}.png"}} for number in range(5)]
        for limits in ({"fetch_bytes": len(png()) - 1}, {"fetched_bytes": 3 * len(png())}):
            settings, access = fetching(url, **limits)
            with pytest.raises(FetchError, match="limit of"):
                fill_all(chat(*parts, settings=settings), access)
        settings, access = fetching(url, fetch_bytes=len(png()), fetched_bytes=5 * len(png()))
        assert fill_all(chat(*parts, settings=settings), access)


# ---- files of the media root ----


@pytest.fixture
def root(tmp_path: Path) -> Path:
    media, outside = tmp_path / "media", tmp_path / "outside"
    (media / "cats").mkdir(parents=True)
    outside.mkdir()
    (media / "cats" / "a b.png").write_bytes(png())
    (media / "top.png").write_bytes(png("blue"))
    (outside / "secret.png").write_bytes(png("green"))
    (media / "link.png").symlink_to(outside / "secret.png")
    (media / "inner.png").symlink_to(media / "top.png")
    (media / "circle").symlink_to(media / "circle")
    (media / "out").symlink_to(outside)
    return media


def open_file(url: str, root: Path) -> Any:
    settings = Settings(media_root=root)
    order = chat({"type": "image_url", "image_url": {"url": url}}, settings=settings)
    return fill_all(order, Access.of(settings))[0]["content"][0]["image"]  # type: ignore[index]


def test_files_under_the_media_root_open(root: Path) -> None:
    for url in (
        "file:top.png", "file:cats/a%20b.png", f"file://{root}/top.png", f"file://localhost{root}/top.png",
        "file:inner.png",
        f"file:{root}/cats/../top.png", "FILE:top.png",
    ):  # fmt: skip
        found = open_file(url, root)
        assert found.content.is_relative_to(root.resolve()) and found.content.read_bytes()[:4] == b"\x89PNG"
        assert str(root) not in found.name


def test_everything_else_is_not_there(root: Path) -> None:
    messages = set()
    for url in (
        "file:../outside/secret.png", f"file://{root}/../outside/secret.png",
        f"file://{root.parent}/outside/secret.png",
        "file:link.png", "file:out/secret.png", "file:circle", "file:cats", "file:", "file:/", "file:///etc/passwd",
        "file:%2e%2e/outside/secret.png", "file:cats/..%2f..%2foutside/secret.png", "file:top.png%00.jpg", "file:%ff",
        "file://evil.example/top.png", f"file://evil.example{root}/top.png", "file:nothing.png", "file:~/top.png",
        "file:[",
        "file:/dev/zero", "file:/proc/self/environ", f"file:{root}-evil/x.png", "file://[::1]/top.png", "file:\ud800",
    ):  # fmt: skip
        with pytest.raises(ImageError, match=r"There is no file .* in the media directory") as error:
            open_file(url, root)
        assert str(root) not in str(error.value) or str(root) in url
        messages.add(type(error.value))
    assert messages == {ImageError}


def test_no_file_opens_without_a_media_root() -> None:
    for url in ("file:top.png", "file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd"):
        assert refused({"type": "image_url", "image_url": {"url": url}}).code == "file_not_allowed"
    with pytest.raises(VideoError):
        fill(Reference("video", "file", "file:///etc/passwd", "video 1"), ACCESS)
