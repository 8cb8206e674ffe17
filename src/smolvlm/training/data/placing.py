"""Which picture or video of a row goes where in its conversation.

`<image>` and `<video>` may stand anywhere in a text; without any, media come before the first question. The number of
places and of media must agree: media are never dropped, and no place stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ...errors import PromptError
from ...processing.chat import Block, Message
from .sample import Row, as_list

VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
# The line break after a place sets it apart in the file; the family's prompts have none there.
_PLACE = re.compile(r"<(image|video)>\n?")


def media_of(row: Row) -> list[Block]:
    """The media of the usual columns: image(s), video(s), and the file_name of captioned folders. VISTA-400K names its
    videos in the column `image`."""
    images: list[Any] = []
    videos = [*as_list(row.get("video")), *as_list(row.get("videos"))]
    for one in (one for column in ("image", "images", "file_name") for one in as_list(row.get(column))):
        film = isinstance(one, str) and PurePosixPath(one).suffix.lower() in VIDEO_SUFFIXES
        (videos if film else images).append(one)
    return [*map(image, images), *map(video, videos)]


def image(source: Any) -> Block:
    """A block of one picture; a missing one (null) is refused when it is opened, not forgotten."""
    return {"type": "image", "source": source}


def video(source: Any, **options: Any) -> Block:
    """A block of one video: a file, a folder of frames, or a list of frames."""
    return {"type": "video", "source": source, **options}


def place_in_texts(messages: Sequence[Message], media: Sequence[Block], *, strict: bool = True) -> list[Message]:
    """Put media in the places that the texts of messages have for them.

    strict: places without any media are an error; otherwise they are words like others. An answer that merely speaks
    of `<image>` keeps its words when the questions have places for all media.
    """
    if not media and not strict:
        return list(messages)
    questions = [message for message in messages if message["role"] != "assistant"]
    found, everywhere = _places(questions, media), _places(messages, media)
    wanted = [str(block["type"]) for block in media]
    if not found and wanted:
        return put_first(messages, media)
    if sorted(found) == sorted(wanted):
        return _fill(messages, media, answers=False)
    if sorted(everywhere) == sorted(wanted):
        return _fill(messages, media, answers=True)
    raise PromptError(
        f"The texts have places for {_count(found)}, but the row holds {_count(wanted)}. Each <image> or <video> "
        "stands for one, in order."
    )


def place_in_blocks(messages: Sequence[Message], media: Sequence[Block]) -> list[Message]:
    """Give the picture and video blocks that have no source the media of the row, in order; without any, put them
    before the first question. Messages are normalised."""
    waiting = iter(media)
    filled = [_with_sources(message, waiting) for message in messages]
    left = list(waiting)
    if left and len(left) == len(media):
        return put_first(filled, left)
    if left:
        raise PromptError(f"The messages have places for {len(media) - len(left)} of {len(media)} media of the row.")
    return filled


def put_first(messages: Sequence[Message], media: Sequence[Block]) -> list[Message]:
    """Media before the text of the first message of the user."""
    for index, message in enumerate(messages):
        if message["role"] == "user":
            first = {**message, "content": [*media, *_blocks(message["content"])]}
            return [*messages[:index], first, *messages[index + 1 :]]
    raise PromptError("There is no question that the pictures or videos of the row could stand before.")


def _with_sources(message: Message, waiting: Iterator[Block]) -> Message:
    blocks = []
    for block in _blocks(message["content"]):
        if block["type"] != "text" and "source" not in block:
            medium = next(waiting, None)
            if medium is None or medium["type"] != block["type"]:
                raise PromptError(
                    f"The messages have a place for one more {block['type']}, but the row holds "
                    + ("none." if medium is None else f"a {medium['type']}.")
                )
            block = {**block, "source": medium["source"]}
        blocks.append(block)
    return {**message, "content": blocks}


def _places(messages: Sequence[Message], media: Sequence[Block]) -> list[str]:
    kind = _kind_of(media)
    return [kind(match[1]) for message in messages for match in _PLACE.finditer(str(message["content"]))]


def _kind_of(media: Sequence[Block]) -> Any:
    """What a place stands for: where a row has videos alone, <image> means a video, as LLaVA-Video-178K writes it."""
    videos_only = bool(media) and all(block["type"] == "video" for block in media)
    return lambda written: "video" if videos_only else written


def _fill(messages: Sequence[Message], media: Sequence[Block], *, answers: bool) -> list[Message]:
    kind = _kind_of(media)
    waiting = {one: iter([block for block in media if block["type"] == one]) for one in ("image", "video")}

    def blocks(text: str) -> Iterator[Mapping[str, Any]]:
        for index, part in enumerate(_PLACE.split(text)):  # texts and, between them, what stands in the place
            if index % 2:
                yield next(waiting[kind(part)])
            elif part:
                yield {"type": "text", "text": part}

    return [
        {**message, "content": list(blocks(str(message["content"])))}
        if answers or message["role"] != "assistant"
        else message
        for message in messages
    ]


def _blocks(content: Any) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _count(kinds: Sequence[str]) -> str:
    counts = [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) != 1)}" for kind in ("image", "video")]
    return " and ".join(count for count in counts if not count.startswith("0")) or "no media"
