"""Rows of token ids of different lengths: what is one text and what is a batch, cutting, filling up, plain lists.

Source: the habits of transformers' tokenizers. See tokenizer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError


def as_batch(text: Any, split: bool) -> tuple[list[Any], bool]:
    """(texts, whether several were given). split: every text is a list of words."""
    depth = 1 if split else 0
    level = text
    for _ in range(depth):
        if isinstance(level, str) or not isinstance(level, Sequence):
            raise InputError("is_split_into_words=True takes a list of words, or a list of such lists.")
        level = level[0] if level else ""
    if isinstance(level, str):
        return [text], False
    if not isinstance(text, Sequence) or not all(_is_text(one, split) for one in text):
        raise InputError(
            "`text` must be a string or a list of strings (lists of words with is_split_into_words=True); "
            f"got {type(text).__name__}."
        )
    return list(text), True


def _is_text(one: object, split: bool) -> bool:
    if not split:
        return isinstance(one, str)
    return isinstance(one, list | tuple) and all(isinstance(word, str) for word in one)


def keeper(limit: int | None, side: str) -> Callable[[list[Any]], list[Any]]:
    """A function that cuts a row to `limit` entries on one side; None cuts nothing."""
    if side not in ("left", "right"):
        raise InputError(f"truncation_side={side!r}: it must be 'left' or 'right'.")

    def keep(row: list[Any]) -> list[Any]:
        if limit is None or len(row) <= limit:
            return row
        return row[:limit] if side == "right" else row[len(row) - limit :]

    return keep


def pad_width(lengths: list[int], padding: bool | str, max_length: int | None, multiple: int | None) -> int:
    """The length to fill rows up to; 0 for none. Raises InputError for a padding that is not known."""
    if padding in (False, "do_not_pad", None):
        return 0
    if padding not in (True, "longest", "max_length"):
        raise InputError(f"padding={padding!r} is not known: use False, True, 'longest' or 'max_length'.")
    width = max(lengths, default=0)
    if padding == "max_length":
        if max_length is None:
            raise InputError("padding='max_length' needs max_length=..., the length to fill up to.")
        width = max(width, max_length)
    return -(-width // multiple) * multiple if multiple else width


def pad(row: list[Any], width: int, value: Any, side: str) -> list[Any]:
    """Fill a row up to `width` on one side; a row that is long enough stays as it is."""
    if side not in ("left", "right"):
        raise InputError(f"padding_side={side!r}: it must be 'left' or 'right'.")
    filling = [value] * (width - len(row))
    return filling + row if side == "left" else row + filling


def as_lists(ids: Any) -> Any:
    """Numbers, arrays, tensors and nestings of them -> an int or nested lists of ints."""
    if hasattr(ids, "tolist"):
        return ids.tolist()
    if isinstance(ids, list | tuple):
        return [as_lists(one) for one in ids]
    if isinstance(ids, int | np.integer):
        return int(ids)
    raise InputError(f"Token ids are whole numbers in lists, arrays or tensors; got {type(ids).__name__}.")
