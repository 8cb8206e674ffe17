"""Media of a row -> what may be opened: bytes, or files inside one folder. Data files are strangers' work.

A path that leads out of the folder (by .., by being absolute, by a link) is refused before anything looks at it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ...errors import MediaError
from ...media.source import shown
from ...processing.chat import Block, Message, blocks_of
from ...types import Detail
from .sample import Sample

PICTURE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ELSEWHERE = ("data:", "http://", "https://")


def resolve_sample(sample: Sample, root: Path | None) -> Sample:
    """The sample with the sources of its media replaced by files inside root, or bytes. Raises MediaError."""
    return replace(
        sample,
        messages=_resolve(sample.messages, root),
        chosen=_resolve(sample.chosen, root),
        rejected=_resolve(sample.rejected, root),
    )


def _resolve(messages: tuple[Message, ...], root: Path | None) -> tuple[Message, ...]:
    return tuple({**message, "content": [_resolve_block(b, root) for b in blocks_of(message)]} for message in messages)


def _resolve_block(block: Block, root: Path | None) -> Block:
    if block["type"] == "text":
        return block
    return {"type": block["type"], **_options(block), "source": resolve(block.get("source"), root, block["type"])}


def _options(block: Block) -> Block:
    """What a file may say of how a picture or video is looked at; anything else in a block is not for us."""
    numbers = {name: block[name] for name in ("fps", "max_frames") if _is_positive(block.get(name))}
    return numbers | ({"detail": block["detail"]} if block.get("detail") in get_args(Detail) else {})


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def resolve(source: Any, root: Path | None, kind: object = "image") -> Any:
    """What a row gives for one picture or video -> what the media door takes.

    source: bytes, {"bytes", "path"} as parquet files have it, a path, a data URI or URL (the door decides on those),
    a decoded picture; of a video also a folder or a list of frames.
    """
    if isinstance(source, Mapping):
        content = source.get("bytes")
        return content if isinstance(content, bytes) and content else resolve(source.get("path"), root, kind)
    if source is None:
        raise MediaError(f"The {kind} is missing: the row has nothing in its place.")
    if isinstance(source, list | tuple):
        return [resolve(frame, root) for frame in source]
    if not isinstance(source, str) or source[:8].lower().startswith(_ELSEWHERE):
        return source
    path = inside(source, root)
    return _frames(path, root) if kind == "video" and path.is_dir() else path


def inside(name: str, root: Path | None) -> Path:
    """The file of that name in root. Raises MediaError when it isn't inside."""
    if root is None:
        raise MediaError(f"{shown(name)} is the name of a file, and this data set has no folder of files.")
    top = os.path.realpath(root)
    try:
        path = os.path.realpath(os.path.join(top, name))  # through links, too
    except ValueError:  # a name that no file can have
        path = ""
    if path != top and not path.startswith(os.path.join(top, "")):
        raise MediaError(
            f"{shown(name)} leads out of {root}, and nothing outside it is opened. Give the folder that holds the "
            "media as media root."
        )
    return Path(path)


def _frames(folder: Path, root: Path | None) -> list[Path]:
    """The pictures of a folder in the order of their numbers."""
    frames = [inside(str(file), root) for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES]
    if not frames:
        raise MediaError(f"The folder {folder.name} holds no frames: pictures named by their numbers.")
    return sorted(frames, key=lambda file: natural(file.name))


def natural(name: str) -> list[Any]:
    """A key for sorting names by the numbers in them: frame 10 comes after frame 9."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]
