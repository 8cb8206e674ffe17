"""Messages -> the prompt text of the family: typed blocks, and the tile tags that stand for pictures and frames.

Knows no pixels and no token ids; see processor.py, which joins this text with tiles, and tokenizer.py.
Source: transformers' processing_smolvlm.py; parity in tests/reference/test_processor.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from ..errors import PromptError
from .template import DEFAULT_TEMPLATE, Block, Message, blocks_of, render

__all__ = [
    "DEFAULT_TEMPLATE",
    "Block",
    "Message",
    "TileTokens",
    "blocks_of",
    "expand",
    "fence",
    "fenced_pieces",
    "image_block",
    "is_batch",
    "media_blocks",
    "normalise_messages",
    "number_words",
    "placeholders",
    "protect",
    "render",
    "video_block",
]


IMAGE_KEYS = ("image", "url", "path", "base64")
VIDEO_KEYS = ("video", "url", "path", "base64")
_SECONDS_PER_MINUTE = 60

# Two Unicode noncharacters fence text of the user that looks like a control token; see `protect`.
FENCE_OPEN, FENCE_CLOSE = "\ufdd0", "\ufdd1"
_FENCED = re.compile(f"{FENCE_OPEN}([^{FENCE_CLOSE}]*){FENCE_CLOSE}|[{FENCE_OPEN}{FENCE_CLOSE}]")


@dataclass(frozen=True)
class TileTokens:
    """The texts of the tags around image tokens. `video` is a placeholder only: it is in no vocabulary."""

    image: str = "<image>"
    fake: str = "<fake_token_around_image>"
    global_image: str = "<global-img>"
    video: str = "<video>"


# ---- tile tags ------------------------------------------------------------------------------------------------------


def image_block(rows: int, cols: int, image_seq_len: int, tokens: TileTokens) -> str:
    """The text that stands for one picture: its tiles row by row, then the global tile.

    rows, cols: the tile grid; both 0 for a picture that is one unsplit tile. image_seq_len: image tokens a tile.
    The double line break after the last row is part of the family's format.
    """
    run = tokens.image * image_seq_len
    grid = "".join(
        "".join(f"{tokens.fake}<row_{row}_col_{col}>{run}" for col in range(1, cols + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    gap = "\n" if grid else ""
    return f"{grid}{gap}{tokens.fake}{tokens.global_image}{run}{tokens.fake}"


def video_block(
    timestamps_s: Sequence[float],
    duration_s: float | None,
    image_seq_len: int,
    tokens: TileTokens,
    *,
    num_frames: int | None = None,
) -> str:
    """The text that stands for one video: an introduction, then every frame as an unsplit picture after its time.

    timestamps_s: seconds of the shown frames. duration_s: of the whole video; None takes the last timestamp.
    num_frames: the count that the introduction states, when it is not the number of timestamps
    (the reference counts the frames that pad a batch too).
    """
    if not timestamps_s:
        raise PromptError("A video without frames has no place in a prompt. Give at least one frame.")
    duration = timedelta(seconds=int(timestamps_s[-1] if duration_s is None else duration_s))
    count = number_words(len(timestamps_s) if num_frames is None else num_frames)
    tile = image_block(0, 0, image_seq_len, tokens)
    frames = "".join(f"\nFrame from {_clock(seconds)}:{tile}" for seconds in timestamps_s)
    intro = f"You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"
    return f"{intro}{frames}\n\n"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, _SECONDS_PER_MINUTE)
    return f"{int(minutes):02d}:{int(rest):02d}"


# fmt: off
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on


def number_words(number: int) -> str:
    """English words for 0 to 999,999, written as num2words writes them: "sixty-four", "one hundred and one"."""
    if not 0 <= number < 1_000_000:
        raise PromptError(f"A video of {number} frames can't be put in words: 0 to 999,999 can.")
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {number_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    joint = " and " if rest < 100 else ", "
    return f"{number_words(thousands)} thousand" + (f"{joint}{number_words(rest)}" if rest else "")


# ---- messages -------------------------------------------------------------------------------------------------------


def is_batch(conversation: object) -> bool:
    """True for a list of conversations, False for one conversation (a list of messages)."""
    if isinstance(conversation, list | tuple):
        return bool(conversation) and isinstance(conversation[0], list | tuple)
    return False


def normalise_messages(messages: object) -> list[Message]:
    """One conversation with every message as {"role": text, "content": [blocks]}; the caller's objects are not changed.

    A plain string becomes a text block (the template alone would render nothing for it). A picture or video block
    comes out as {"type": "image" | "video", "source": ...} plus its own options; without "source" it is a placeholder.
    Raises PromptError when a message or block can't be understood.
    """
    if isinstance(messages, Mapping):
        messages = [messages]
    if not isinstance(messages, list | tuple) or not messages:
        raise PromptError(
            "A conversation is a list of at least one message, each {'role': ..., 'content': ...}; "
            f"got {_show(messages)}."
        )
    return [_normalise_message(message, index) for index, message in enumerate(messages)]


def _normalise_message(message: object, index: int) -> Message:
    if not isinstance(message, Mapping):
        raise PromptError(f"Message {index} must be a dictionary with 'role' and 'content'; got {_show(message)}.")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise PromptError(f"Message {index} needs a 'role': 'user', 'assistant' or 'system'; got {_show(role)}.")
    content = message.get("content")
    if content is None:
        content = ""
    if isinstance(content, str | Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        raise PromptError(
            f"The content of message {index} must be a text or a list of blocks; got {_show(content)}. "
            "A picture goes in a block: {'type': 'image', 'image': picture}."
        )
    blocks = [_normalise_block(block, index) for block in content]
    others = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
    return {**others, "role": role, "content": blocks or [{"type": "text", "text": ""}]}


def _normalise_block(block: object, index: int) -> Block:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    if not isinstance(block, Mapping):
        raise PromptError(
            f"A block of message {index} must be a dictionary with 'type', or a text; got {_show(block)}. "
            "A picture goes in as {'type': 'image', 'image': picture}."
        )
    kind = block.get("type")
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(block.get("text"), str):
            raise PromptError(f"A text block of message {index} needs a string 'text'; got {_show(block.get('text'))}.")
        return {"type": "text", "text": block["text"]}
    if kind in ("image", "image_url", "input_image"):
        return _media_block(block, "image", ("image_url", *IMAGE_KEYS), index)
    if kind in ("video", "video_url", "input_video"):
        return _media_block(block, "video", ("video_url", *VIDEO_KEYS), index)
    reason = "this family hears no sound; " if kind in ("audio", "input_audio", "audio_url") else ""
    raise PromptError(
        f"A block of message {index} has type {kind!r}: {reason}the types are 'text', 'image' and 'video' "
        "('image_url' and 'video_url' too)."
    )


def _media_block(block: Mapping[str, object], kind: str, keys: Sequence[str], index: int) -> Block:
    given = [key for key in keys if block.get(key) is not None]
    if len(given) > 1:
        raise PromptError(f"A block of type {kind!r} of message {index} gives {' and '.join(given)}: give one source.")
    options = {key: value for key, value in block.items() if key != "type" and key not in keys and value is not None}
    if not given:
        return {**options, "type": kind}
    source = block[given[0]]
    if given[0].endswith("_url") and isinstance(source, Mapping):  # OpenAI's {"url": ..., "detail": ...}
        options = {**options, **{key: value for key, value in source.items() if key != "url"}}
        source = source.get("url")
    if given[0] == "base64" and isinstance(source, str) and not source.startswith("data:"):
        source = f"data:{kind}/*;base64,{source}"
    if source is None:
        raise PromptError(f"A block of type {kind!r} of message {index} has an {given[0]!r} without 'url'.")
    return {**options, "type": kind, "source": source}


def media_blocks(messages: Iterable[Message]) -> list[Block]:
    """The picture and video blocks of normalised messages, in the order of the prompt."""
    return [block for message in messages for block in blocks_of(message) if block["type"] != "text"]


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | type(None)) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


# ---- text that looks like control tokens ----------------------------------------------------------------------------


def protect(messages: Iterable[Message], control_tokens: Iterable[str]) -> list[Message]:
    """Fence control tokens inside the text of messages: text of a user can't pose as a picture or an end of turn.

    `fenced_pieces` takes the rendered prompt apart again; the tokenizer encodes fenced pieces as plain text.
    """
    words = list(control_tokens)
    return [
        {
            **message,
            "role": fence(str(message["role"]), words),
            "content": [
                {**block, "text": fence(str(block["text"]), words)} if block["type"] == "text" else block
                for block in blocks_of(message)
            ],
        }
        for message in messages
    ]


def fence(text: str, control_tokens: Iterable[str]) -> str:
    """`protect` for one text."""
    clean = text.replace(FENCE_OPEN, "").replace(FENCE_CLOSE, "")
    return _control_pattern(frozenset(control_tokens)).sub(lambda match: f"{FENCE_OPEN}{match[0]}{FENCE_CLOSE}", clean)


@lru_cache(maxsize=16)
def _control_pattern(control_tokens: frozenset[str]) -> re.Pattern[str]:
    words = sorted(control_tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or "(?!)")


def fenced_pieces(prompt: str) -> list[tuple[str, bool]]:
    """(text, fenced) pieces of a prompt in order; a lone fence (a template cut the text there) only parts the text."""
    pieces: list[tuple[str, bool]] = []
    end = 0
    for match in _FENCED.finditer(prompt):
        pieces.append((prompt[end : match.start()], False))
        pieces.append((match[1] or "", True))
        end = match.end()
    pieces.append((prompt[end:], False))
    return [piece for piece in pieces if piece[0]]


def placeholders(prompt: str, tokens: TileTokens) -> list[str]:
    """The kinds of media a prompt asks for, "image" or "video", in order; fenced text asks for nothing."""
    kinds = {tokens.image: "image", tokens.video: "video"}
    return [kinds[match[0]] for match in _placeholder(tokens).finditer(prompt)]


def expand(prompt: str, blocks: Sequence[tuple[str, str]], tokens: TileTokens) -> str:
    """Put (kind, text) blocks, in order, in the place of the `<image>` and `<video>` placeholders of a prompt.

    Raises PromptError when the prompt asks for another number or another kind of media.
    """
    wanted = placeholders(prompt, tokens)
    given = [kind for kind, _ in blocks]
    if wanted != given:
        raise PromptError(
            f"The prompt has placeholders for {_list(wanted)} but the request holds {_list(given)}, in this order. "
            f"Check the chat template, and that no text contains {tokens.image} or {tokens.video}."
        )
    texts = iter([text for _, text in blocks])
    return _placeholder(tokens).sub(lambda _: next(texts), prompt)


def _placeholder(tokens: TileTokens) -> re.Pattern[str]:
    return re.compile(f"(?<!{FENCE_OPEN})(?:{re.escape(tokens.image)}|{re.escape(tokens.video)})")


def _list(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) if kinds else "nothing"
