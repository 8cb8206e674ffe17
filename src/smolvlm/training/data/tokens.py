"""Token ids -> pieces that a person can read, each with what becomes of it in training. page.py draws them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...processing.parts import Parts
from .encode import Encoded

_ROW_COL = re.compile(r"<row_\d+_col_\d+>")


@dataclass(frozen=True)
class Shown:
    """text: some tokens that only together make characters. tag: a special token. tiles: the tokens of some tiles."""

    kind: Literal["text", "tag", "tiles"]
    text: str
    learned: bool
    ids: tuple[int, ...]


def show(parts: Parts, encoded: Encoded) -> Iterator[Shown]:
    """All tokens of a sample in order. Every id is in exactly one piece, and a piece is learned as a whole or not."""
    kinds = _kinds(parts)
    ids, learned = encoded.ids.tolist(), encoded.learned.tolist()
    start = 0
    while start < len(ids):
        end = start + 1
        kind = kinds.get(ids[start], "text")
        if kind == "tiles":
            end = _end_of_tiles(parts, ids, start)
            yield Shown("tiles", _say_tiles(parts, ids[start:end]), False, tuple(ids[start:end]))
        elif kind == "tag":
            yield Shown("tag", str(parts.tokenizer.convert_ids_to_tokens(ids[start])), learned[start], (ids[start],))
        else:
            while not _whole(parts, ids[start:end]) and end < len(ids) and learned[end] == learned[start]:
                end += 1
            text = _bytes(parts, ids[start:end]).decode("utf-8", errors="replace")
            yield Shown("text", text, learned[start], tuple(ids[start:end]))
        start = end


def _kinds(parts: Parts) -> dict[int, Literal["tag", "tiles"]]:
    """What special tokens are: those of tiles, and others."""
    own = parts.tokens
    found: dict[int, Literal["tag", "tiles"]] = {}
    for text in parts.tokenizer.all_special_tokens:
        of_tiles = text in (own.image, own.fake, own.global_image) or _ROW_COL.fullmatch(text)
        found[int(parts.tokenizer.convert_tokens_to_ids(text))] = "tiles" if of_tiles else "tag"
    return found


def _end_of_tiles(parts: Parts, ids: list[int], start: int) -> int:
    """Behind the block of one picture or frame: the tag after its global tile closes it."""
    of = parts.tokenizer.convert_tokens_to_ids
    return ids.index(of(parts.tokens.fake), ids.index(of(parts.tokens.global_image), start)) + 1


def _say_tiles(parts: Parts, ids: list[int]) -> str:
    tiles = ids.count(parts.tokenizer.image_token_id) // parts.image_seq_len
    return f"{tiles} tile{'s' * (tiles != 1)}, {len(ids):,} tokens"


def _bytes(parts: Parts, ids: list[int]) -> bytes:
    return b"".join(map(parts.tokenizer.token_bytes, ids))


def _whole(parts: Parts, ids: list[int]) -> bool:
    try:
        _bytes(parts, ids).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
