"""Is it a picture or a video? Decided by the first bytes; the name counts only when they say nothing.

Opens nothing: image.py and video.py do, and say what is wrong with a file that is neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import MediaError
from .source import Source, locate
from .video import VideoLimits

Kind = Literal["image", "video"]

HEAD_BYTES = 32
_PICTURE_STARTS = (
    b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"0&\xb2u", b"ID3", b"fLaC",
)  # fmt: skip
# The second word of files made of boxes (ISO base media): a brand, or the first box of an old QuickTime file.
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_VIDEO_NAMES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


def identify(source: str | Path | bytes, *, allow_url: bool = False) -> tuple[Kind, str | Path | bytes]:
    """("image" or "video", what to open): the same source, or the bytes that were fetched from its address.

    Raises MediaError when there is no such file, FetchError for an address that is refused or fails.
    """
    located = locate(
        source, kind="picture or video", error=MediaError, allow_url=allow_url, max_bytes=VideoLimits().max_bytes
    )
    return _kind(located), located.content if isinstance(located.content, bytes) else source


def _kind(located: Source) -> Kind:
    head = located.head(HEAD_BYTES)
    if head.startswith(b"GIF8") or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return "video" if _moves(located) else "image"
    if head.startswith(_PICTURE_STARTS):
        return "image"
    if head[4:8] in _BOXES:
        return "image" if head[8:12] in _PICTURE_BRANDS else "video"
    if head.startswith((*_VIDEO_STARTS, b"RIFF")):
        return "video"
    named_video = isinstance(located.content, Path) and located.content.suffix.lower() in _VIDEO_NAMES
    return "video" if named_video else "image"


def _moves(located: Source) -> bool:
    """Whether a GIF or WebP has a second frame."""
    import io

    from PIL import Image

    try:
        content = io.BytesIO(located.content) if isinstance(located.content, bytes) else located.content
        with Image.open(content, formats=["GIF", "WEBP"]) as image:
            image.seek(1)
    except EOFError:
        return False
    except Exception:  # damage of every kind; image.py says what it is
        return False
    return True
