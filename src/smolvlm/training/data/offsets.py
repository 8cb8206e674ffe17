"""Where the rows of a JSON file lie: byte offsets, found in one pass without parsing, kept beside large files.

A list is taken apart by its brackets, JSON lines by their line breaks; a damaged line so costs itself alone.
"""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...media.source import shown

# Above this size the offsets are kept in a file beside the data: finding them takes some seconds a gigabyte.
KEEP_BYTES = 64 * 2**20
_LINES = (".jsonl", ".ndjson")
_CHUNK = 64 * 2**20
_HEAD = 65536
_BOM = b"\xef\xbb\xbf"
# A string as a whole, so that brackets in it don't count; or a bracket. Possessive: no backtracking on damaged files.
_PART = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def find_rows(path: Path) -> np.ndarray:
    """(rows, 2) int64: first byte and end of each row. Raises DataError for a file that is none or is cut off."""
    status = path.stat()
    if not status.st_size:
        raise DataError(f"{shown(str(path))} is empty (0 bytes). Copy or download it again.")
    stamp = np.array([[status.st_size, status.st_mtime_ns]], np.int64)
    kept = path.with_name(f".{path.name}.rows.npy")
    if status.st_size < KEEP_BYTES:
        return _scan(path)
    found = _load(kept)
    if found is not None and (found[:1] == stamp).all():
        return found[1:]
    rows = _scan(path)
    try:
        with kept.open("wb") as file:
            np.save(file, np.concatenate([stamp, rows]))
    except OSError:
        pass  # a folder that can't be written to costs the pass each time, no more
    return rows


def _load(kept: Path) -> np.ndarray | None:
    try:
        found = np.load(kept, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and found.ndim == 2 and found.shape[1] == 2 and found.dtype == np.int64
    return found if fits and len(found) else None


def _scan(path: Path) -> np.ndarray:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        head = content[:_HEAD]
        first = len(_BOM) if head.startswith(_BOM) else 0
        head = head[first:].lstrip()
        start = head[:1]
        if start == b"[":
            return _rows_of_list(content, path)
        if start != b"{":
            raise DataError(f"{shown(str(path))} holds no JSON objects: it begins with {head[:20]!r}.")
        if path.suffix.lower() in _LINES or _is_object(head.split(b"\n", 1)[0]):
            return _rows_of_lines(content, first)
        return np.array([[first, len(content)]], np.int64)


def _is_object(line: bytes) -> bool:
    """Whether a first line is a whole row. One longer than the head is taken for one: nobody breaks lines so late."""
    if len(line) >= _HEAD - len(_BOM):
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _rows_of_lines(content: mmap.mmap, first: int) -> np.ndarray:
    ends = [
        np.flatnonzero(np.frombuffer(content[start : start + _CHUNK], np.uint8) == ord("\n")) + start
        for start in range(0, len(content), _CHUNK)
    ]
    ends_of_lines = np.concatenate([*ends, [len(content)]]).astype(np.int64)
    starts = np.concatenate([[first], ends_of_lines[:-1] + 1])
    rows = np.stack([starts, ends_of_lines], axis=1)
    short = np.flatnonzero(ends_of_lines - starts <= 1)
    return np.delete(
        rows, [line for line in short if content[starts[line] : ends_of_lines[line]] in (b"", b"\r")], axis=0
    )


def _rows_of_list(content: mmap.mmap, path: Path) -> np.ndarray:
    rows: list[tuple[int, int]] = []
    depth = start = 0
    for part in _PART.finditer(content):
        sign = part[0]
        if sign in (b"[", b"{"):
            if depth == 1:
                start = part.start()
            depth += 1
        elif sign in (b"]", b"}"):
            depth -= 1
            if depth == 1:
                rows.append((start, part.end()))
            elif not depth:
                break
    if depth:
        raise DataError(f"{shown(str(path))} is cut off: the list has no end. Copy or download it again.")
    return np.array(rows, np.int64).reshape(-1, 2)
