"""The page at /: the files of the folder page/, read once, each with its type and small on the way.

Not starlette's StaticFiles, which asks the machine for the types of files: some machines call a script plain text, and
browsers refuse that. What the page may load is said by its own policy in index.html, and by guard.py.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """content, and the same compressed. tag: changes with the content, so that browsers ask only whether it did."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str


def read_page() -> dict[str, PageFile]:
    """The files of the page by name."""
    found = {}
    for entry in files(__package__).joinpath("page").iterdir():
        kind = TYPES.get(entry.name[entry.name.rfind(".") :])
        if kind is not None:
            content = entry.read_bytes()
            tag = f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'
            found[entry.name] = PageFile(content, gzip.compress(content, mtime=0), kind, tag)
    assert INDEX in found, "the page is part of the package"
    return found


def page_router() -> APIRouter:
    """GET and HEAD for each file, and for / the index."""
    router = APIRouter()
    for name, file in read_page().items():
        for path in (f"/{name}", *(["/"] if name == INDEX else [])):
            router.add_api_route(path, _sender(file), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _sender(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": file.tag, "Vary": "Accept-Encoding"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                file.compressed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"}
            )
        return Response(file.content, media_type=file.media_type, headers=headers)

    return send
