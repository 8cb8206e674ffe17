"""The subtitles of the frames that a video benchmark shows, out of its .srt files.

Rules: VLMEvalKit e8e78f0, dataset/videomme.py, and pysubs2 1.8, which reads the files there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from ..errors import DataError
from .frames import choose
from .task import Protocol, Row

_STAMP = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})[.,](\d{1,3})")
_NUMBER_ALONE = re.compile(r"(?:[ \t]*\n)+\s*\d+\s*")
_NEXT_NUMBER = re.compile(r"\n+ *\d+ *$")
_STYLE = re.compile(r"< *(/?) *([ibus]) *>")
_TAG = re.compile(r"< */? *[a-zA-Z][^>]*>")
Subtitle = tuple[int, int, str]  # from, to (milliseconds), what is said


def subtitles_of(row: Row, protocol: Protocol) -> str:
    """A line for each chosen frame during which something is said, "" when the row's file isn't there.

    A line comes again for every frame of it, and of frames that are thinned out afterwards, too.
    """
    assert row.video is not None, "a row of a video benchmark has a video"
    path: Path = row.fields["subtitles"]
    if not path.is_file():
        return ""
    subtitles, choice = read_subtitles(path), choose(row.video, protocol)
    lines = []
    for number in choice.numbers:
        now = round(number * (1000 / choice.fps))
        said = next((text for start, end, text in subtitles if start < now < end), "")
        if said.strip():
            lines.append(said)
    return "\n".join(lines)


@lru_cache(maxsize=2)
def read_subtitles(path: Path) -> list[Subtitle]:
    """The subtitles of an .srt file in its order, each in one line. Raises DataError for a file that is no UTF-8."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}. Save it again.") from error
    found: list[tuple[int, int, list[str]]] = []
    for line in lines:
        stamps = _STAMP.findall(line)
        if len(stamps) == 2:
            found.append((_milliseconds(stamps[0]), _milliseconds(stamps[1]), []))
        elif found:
            found[-1][2].append(line)
    return [(start, end, _said("\n".join(text))) for start, end, text in found]


def _said(text: str) -> str:
    """What stands between two time lines, without the number of the next; styles as pysubs2 writes them: {\\i1}."""
    if _NUMBER_ALONE.fullmatch(text):
        return ""
    text = _NEXT_NUMBER.sub("", text.strip())
    text = _STYLE.sub(lambda found: f"{{\\{found[2]}{0 if found[1] else 1}}}", text)
    return _TAG.sub("", text).replace("\n", " ").replace("\\N", " ")


def _milliseconds(stamp: tuple[str, str, str, str]) -> int:
    hours, minutes, seconds, rest = stamp
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest.ljust(3, "0"))
