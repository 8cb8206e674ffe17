"""Where a picture or a video comes from: a path, a URL, a data URI, base64 or bytes -> a file or its bytes.

Says what is wrong with a source before anything decodes it; image.py and video.py decode.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from ..errors import FetchError, MediaError
from .fetch import fetch

_SCHEME = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+://|file:|javascript:|mailto:)", re.IGNORECASE)
_BASE64 = re.compile(r"^[A-Za-z0-9+/_\s-]+=*\s*$")
_LIKELY_BASE64 = 64  # a shorter text is taken for the name of a file, unless it begins like an encoded picture
_ENCODED_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk0", "AAAA")
_SHOWN = 80


@dataclass(frozen=True)
class Source:
    """A located picture or video. name: how messages call it. content: a file that exists, or the bytes.

    The door takes one as it is, too: a caller who found the content by itself decides how messages call it.
    """

    name: str
    content: Path | bytes

    def head(self, count: int) -> bytes:
        """The first `count` bytes."""
        if isinstance(self.content, bytes):
            return self.content[:count]
        with self.content.open("rb") as file:
            return file.read(count)


def locate(
    source: Any, *, kind: str, error: type[MediaError], allow_url: bool, max_bytes: int, timeout_s: float = 30.0
) -> Source:
    """Find what `source` means. kind: "picture" or "video", for messages. error: what to raise for an unusable one.

    URLs raise FetchError unless allow_url is set. max_bytes: limit of a download and of encoded bytes.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return _bytes_source(f"The {kind} given as bytes", bytes(source), error)
    if isinstance(source, Path):
        return _file(source, kind, error)
    if not isinstance(source, str):
        if hasattr(source, "read"):
            return _bytes_source(f"The {kind} read from {type(source).__name__}", bytes(source.read()), error)
        raise error(
            f"A {kind} can't be read from {type(source).__name__}. Give a path, URL, data URI, base64, bytes, "
            + ("PIL image, array or tensor." if kind == "picture" else "or a list of frames.")
        )
    if source[:5].lower() == "data:":
        return _data_uri(source, kind, error, max_bytes)
    if source[:8].lower().startswith(("http://", "https://")):
        if not allow_url:
            raise FetchError(
                f"{shown(source)} is a URL, and URLs are not fetched unless you allow it. Pass allow_url=True, or "
                "--allow-url on the command line, or give a local file."
            )
        return _bytes_source(shown(source), fetch(source, max_bytes=max_bytes, timeout_s=timeout_s), error)
    if _SCHEME.match(source) and not Path(source).is_file():
        scheme = source.partition(":")[0]
        raise FetchError(
            f"{shown(source)} has the scheme {scheme!r}, which is never opened: give a plain path, or an http or https "
            "URL with allow_url=True."
        )
    return _path_or_base64(source, kind, error, max_bytes)


def shown(text: str) -> str:
    """A text as messages show it: quoted, and not endless. The end stays: in a path it is the name of the file."""
    if len(text) <= _SHOWN:
        return repr(text)
    start = _SHOWN // 3
    return repr(f"{text[:start]}...{text[start + 3 - _SHOWN :]}")


def _path_or_base64(source: str, kind: str, error: type[MediaError], max_bytes: int) -> Source:
    if not source.strip():
        raise error(f"The name of the {kind} is empty. Give a path.")
    path = Path(source).expanduser() if len(source) < 4096 and "\0" not in source else None
    if path is not None and _exists(path):
        return _file(path, kind, error)
    long_enough = len(source) >= _LIKELY_BASE64 or source.startswith(_ENCODED_STARTS)
    if long_enough and _BASE64.match(source):
        return _bytes_source(f"The base64 text {shown(source)}", _decode(source, kind, error, max_bytes), error)
    raise error(
        f"There is no file {shown(source)}"
        + (", and the text is no base64 either. " if len(source) >= _LIKELY_BASE64 else ". ")
        + "Check the path; relative ones start at the current directory."
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system is not a file
        return False


def _file(path: Path, kind: str, error: type[MediaError]) -> Source:
    name = shown(str(path))
    if not _exists(path):
        raise error(f"There is no file {name}. Check the path; relative ones start at the current directory.")
    if path.is_dir():
        raise error(f"{name} is a directory, not a {kind}. Name the files in it one by one.")
    if not path.is_file():
        raise error(f"{name} is a device or a pipe, not a file. Copy its content to a file first.")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as reason:
        raise error(f"{name} can't be read: {reason.strerror or reason}. Check its permissions.") from reason
    if size == 0:
        raise error(f"{name} is empty (0 bytes). Copy or download it again.")
    return Source(name, path)


def _data_uri(source: str, kind: str, error: type[MediaError], max_bytes: int) -> Source:
    head, comma, payload = source.partition(",")
    name = f"The data URI {shown(head + comma)}"
    if not comma:
        raise error(f"{name} has no comma, so there is no {kind} in it. It must look like data:image/png;base64,....")
    if head.lower().endswith(";base64"):
        return _bytes_source(name, _decode(payload, kind, error, max_bytes), error)
    if len(payload) > max_bytes * 3:
        raise _too_large(name, max_bytes, error)
    return _bytes_source(name, unquote_to_bytes(payload), error)


def _decode(text: str, kind: str, error: type[MediaError], max_bytes: int) -> bytes:
    if len(text) > max_bytes * 4 // 3 + 4:
        raise _too_large(f"The base64 text {shown(text[:_SHOWN])}", max_bytes, error)
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as reason:
        raise error(f"The {kind} is no valid base64 ({reason}): {shown(text[:_SHOWN])}. Encode it again.") from reason


def _too_large(name: str, max_bytes: int, error: type[MediaError]) -> MediaError:
    return error(f"{name} holds more than the limit of {max_bytes:,} bytes. Use a smaller file, or give a path.")


def _bytes_source(name: str, content: bytes, error: type[MediaError]) -> Source:
    if not content:
        raise error(f"{name} is empty (0 bytes).")
    return Source(name, content)
