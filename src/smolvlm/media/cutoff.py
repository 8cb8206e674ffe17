"""Does a video file end before its container says it does? Read from the sizes in the outermost boxes alone.

A file that broke off while it was copied often decodes without a complaint up to the break; whoever asks about such a
video must be told that its end is missing. Formats: ISO 14496-12 (MP4, MOV), EBML (RFC 8794: MKV, WebM), RIFF (AVI).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from .source import Source

_EBML_SEGMENT = 0x18538067
_MOST_BOXES = 100_000  # a fragmented file has two for each fragment


def is_cut_off(source: Source, demuxer: str) -> bool:
    """Whether the file is shorter than its container says. False when that can't be told (MPEG-TS, live recordings)."""
    content = source.content
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if demuxer == "mov":
            return _boxes_end_late(file, size)
        if demuxer == "matroska":
            return _segment_ends_late(file, size)
        if demuxer == "avi":
            return _riff_ends_late(file, size)
    return False


def _boxes_end_late(file: BinaryIO, size: int) -> bool:
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return len(head) > 0
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file, however long that is
            return False
        if length < 8 or place + length > size:
            return True
        place += length
        if place == size:
            return False
    return False


def _segment_ends_late(file: BinaryIO, size: int) -> bool:
    _read_vint(file, keep_marker=True)  # the EBML header
    length = _read_vint(file)
    file.seek(length or 0, io.SEEK_CUR)
    if _read_vint(file, keep_marker=True) != _EBML_SEGMENT:
        return False
    length = _read_vint(file)
    return length is not None and file.tell() + length > size


def _riff_ends_late(file: BinaryIO, size: int) -> bool:
    head = file.read(8)
    return len(head) < 8 or struct.unpack("<I", head[4:])[0] + 8 > size


def _read_vint(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """An EBML number: leading zero bits tell its bytes. None for "unknown", which live recordings write."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    count = 9 - first[0].bit_length()
    raw = first + file.read(count - 1)
    value = int.from_bytes(raw, "big")
    if keep_marker:
        return value
    value -= 1 << (7 * count)
    return None if value == (1 << (7 * count)) - 1 else value
