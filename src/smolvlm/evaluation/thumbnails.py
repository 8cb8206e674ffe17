"""Small pictures for a report, of what a model was shown: the media of the request that a task makes of a row."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from PIL import Image

from ..errors import InputError
from ..media.image import open_image
from ..media.video import open_video
from .task import Protocol, Row, Task

LONG_SIDE = 240  # pixels
SMALL_SIDE = 128  # where there are many
MOST = 6  # pictures or frames of a row, evenly spread


@dataclass(frozen=True)
class Thumbnail:
    name: str
    width: int
    height: int
    jpeg: bytes


def thumbnails(task: Task, row: Row, protocol: Protocol) -> list[Thumbnail]:
    """At most MOST; none where the media can't be opened, which the record tells."""
    try:
        request = cast("Mapping[str, Any]", task.ask(row, protocol).request)
        found = list(_media(request))
    except InputError:
        return []
    step = max(1.0, len(found) / MOST)
    chosen = [found[int(number * step)] for number in range(min(len(found), MOST))]
    return [_small(name, picture, LONG_SIDE if len(found) == 1 else SMALL_SIDE) for name, picture in chosen]


def _media(request: Mapping[str, Any]) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of all pictures and of some frames of all videos."""
    blocks = [block for message in request.get("messages") or () for block in _blocks(message)]
    pictures = [*_listed(request.get("images")), *(block["image"] for block in blocks if block["type"] == "image")]
    videos = [*_listed(request.get("videos")), *(block["video"] for block in blocks if block["type"] == "video")]
    for number, picture in enumerate(pictures, 1):
        yield f"{number}" if len(pictures) > 1 else "", open_image(picture)
    for source in videos:
        video = open_video(source)
        count = video.info.num_frames
        for frame in video.frames(sorted({number * count // MOST for number in range(MOST)})):
            yield f"{frame.timestamp_s:.1f} s", frame.image


def _blocks(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [] if isinstance(message["content"], str) else cast("Sequence[Mapping[str, Any]]", message["content"])


def _listed(media: object) -> list[object]:
    return [] if media is None else list(media) if isinstance(media, list | tuple) else [media]


def _small(name: str, picture: Image.Image, side: int) -> Thumbnail:
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return Thumbnail(name, *small.size, file.getvalue())
