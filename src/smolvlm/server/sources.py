"""Strings that clients send for pictures and videos: what each may mean, and where it leads.

`refer` decides by the first characters, in the server's own process, and opens nothing. `fill` opens, in a worker: only
there does anything leave memory, and only for what the settings allow. A client's string becomes a path in one place,
under the media root, and nowhere else: the door (media/source.py), which takes paths, is given bytes or such a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ..errors import FetchError, HostError, ImageError, MediaError, VideoError
from ..media.fetch import FetchPolicy, fetch
from ..media.source import Source, locate, shown
from .failures import RequestError
from .settings import Settings

Kind = Literal["image", "video"]
NOUNS: dict[Kind, str] = {"image": "picture", "video": "video"}
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,31}):")
_BASE64_START = re.compile(r"[A-Za-z0-9+/_\s-]{46,}={0,2}")  # the smallest picture that there is takes so many
_LOOKED_AT = 128  # characters that tell base64 from a name
_HEAD = 256  # most characters of a data URI before its comma
_URL_CHARACTERS = 8192
_PATH_CHARACTERS = 4096


@dataclass(frozen=True)
class Reference:
    """A picture or video that was named and not opened. text: a data URI, a URL, or a file: address. name: for
    messages, such as "picture 2"."""

    kind: Kind
    scheme: Literal["data", "url", "file"]
    text: str
    name: str


@dataclass(frozen=True)
class Access:
    """Where references may lead: what a worker is told of the settings."""

    media_root: Path | None
    policy: FetchPolicy | None
    encoded_bytes: int
    fetch_bytes: int
    fetched_bytes: int
    fetch_s: float

    @classmethod
    def of(cls, settings: Settings) -> Access:
        limits, policy = settings.limits, None
        if settings.allow_url:
            policy = FetchPolicy(
                max_redirects=limits.redirects,
                allowed_networks=settings.allowed_networks,
                allowed_hosts=settings.allowed_url_hosts,
                ports=settings.url_ports,
            )
        sizes = limits.encoded_bytes, limits.fetch_bytes, limits.fetched_bytes
        return cls(settings.media_root, policy, *sizes, limits.fetch_s)


def refer(text: str, kind: Kind, name: str, settings: Settings, param: str) -> Reference:
    """What a client's string means. Raises RequestError for what is not allowed, and for what is too long."""
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme == "data":
        return Reference(kind, "data", _checked_data(text.lstrip(), kind, settings, param), name)
    if scheme in ("http", "https"):
        return Reference(kind, "url", _checked_url(text, kind, settings, param), name)
    if scheme == "file":
        return Reference(kind, "file", _checked_file(text, settings, param), name)
    if scheme:
        raise RequestError(
            f"A {NOUNS[kind]} can't be had from {scheme!r} addresses: send it as a data URI.", param=param,
            code="scheme_refused",
        )  # fmt: skip
    if not _BASE64_START.fullmatch(text[:_LOOKED_AT].strip()):
        raise RequestError(
            f"The {NOUNS[kind]} is neither a data URI nor base64 nor an address: {shown(text[:_LOOKED_AT])}. Names of "
            "files mean nothing here; send the content as a data URI, such as data:image/png;base64,....",
            param=param, code="invalid_source",
        )  # fmt: skip
    _check_length(len(text), kind, settings, param)
    return Reference(kind, "data", f"data:;base64,{text}", name)


def _checked_data(text: str, kind: Kind, settings: Settings, param: str) -> str:
    comma = text.find(",", 0, _HEAD + 1)
    if comma < 0:
        raise RequestError(
            f"The data URI of the {NOUNS[kind]} has no comma among its first {_HEAD} characters. It must look like "
            "data:image/png;base64,....", param=param, code="invalid_source",
        )  # fmt: skip
    if not text[:comma].lower().endswith(";base64"):
        raise RequestError(
            f"The data URI of the {NOUNS[kind]} is not in base64: it must look like data:image/png;base64,....",
            param=param, code="invalid_source",
        )  # fmt: skip
    _check_length(len(text) - comma - 1, kind, settings, param)
    return text


def _check_length(characters: int, kind: Kind, settings: Settings, param: str) -> None:
    most = settings.limits.encoded_bytes
    if characters > most * 4 // 3 + 4:
        raise RequestError(
            f"The {NOUNS[kind]} is larger than the limit of {most:,} bytes. Send a smaller file.", status=413,
            param=param, code="media_too_large",
        )  # fmt: skip
    if not characters:
        raise RequestError(f"The {NOUNS[kind]} is empty.", param=param, code="invalid_source")


def _checked_url(text: str, kind: Kind, settings: Settings, param: str) -> str:
    if not settings.allow_url:
        raise RequestError(
            f"This server fetches nothing: send the {NOUNS[kind]} itself, as a data URI.", param=param,
            code="url_not_allowed",
        )  # fmt: skip
    if len(text) > _URL_CHARACTERS:
        raise RequestError(f"The address has more than {_URL_CHARACTERS} characters.", param=param, code="url_refused")
    return text


def _checked_file(text: str, settings: Settings, param: str) -> str:
    if settings.media_root is None:
        raise RequestError(
            "This server opens no local files: send the content as a data URI.", param=param, code="file_not_allowed"
        )
    if len(text) > _PATH_CHARACTERS:
        raise RequestError(
            f"The address has more than {_PATH_CHARACTERS} characters.", param=param, code="file_not_allowed"
        )
    return text


def fill(reference: Reference, access: Access) -> Source:
    """The bytes or the file that a reference leads to. Raises MediaError and its kinds."""
    kind, error = NOUNS[reference.kind], _error_of(reference.kind)
    if reference.scheme == "file":
        return Source(_file_name(reference.text), _find(reference, access))
    if reference.scheme == "url":
        return Source(reference.name, _fetch(reference, access))
    assert reference.text[:5].lower() == "data:", "the door takes this text for nothing else"
    located = locate(reference.text, kind=kind, error=error, allow_url=False, max_bytes=access.encoded_bytes)
    return Source(reference.name, located.content)


def _fetch(reference: Reference, access: Access) -> bytes:
    if access.policy is None:
        raise FetchError("This server fetches nothing.")
    try:
        content = fetch(reference.text, max_bytes=access.fetch_bytes, timeout_s=access.fetch_s, policy=access.policy)
    except HostError as error:  # its message tells about names and addresses of this network
        raise FetchError(
            f"The {reference.name} is not fetched: its address is not one of the open internet."
        ) from error
    if not content:
        raise FetchError(f"The address of the {reference.name} has an empty answer.")
    return content


def _find(reference: Reference, access: Access) -> Path:
    """A file under the media root. One that lies elsewhere is told from one that isn't there by nothing."""
    refused = _error_of(reference.kind)(f"There is no file {shown(_file_name(reference.text))} in the media directory.")
    if access.media_root is None:
        raise refused
    try:
        parts = urlsplit(reference.text.strip())
        path = (access.media_root / unquote(parts.path, errors="strict")).resolve(strict=True)
        inside = path.is_relative_to(access.media_root) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # no such file, NUL or bad UTF-8 in it, a circle of links
        raise refused from None
    if parts.netloc not in ("", "localhost") or not inside:
        raise refused
    return path


def _file_name(text: str) -> str:
    """How answers and errors call a file: its last part, as the client wrote it."""
    return unquote(text.strip().rpartition("/")[2].removeprefix("file:"), errors="replace")[-80:] or "file"


def _error_of(kind: Kind) -> type[MediaError]:
    return ImageError if kind == "image" else VideoError
