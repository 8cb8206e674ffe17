"""reel.highlights.json: everything a result rests on, so that it can be cut again without looking at a frame.

The finder hands over a plain mapping of what it knows (criteria, prompts, frames seen, versions, seed); this file adds
the segments, the score curve and what the reel holds, and reads all of it back with a check of what it needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, VideoError
from .lists import relative_uri
from .reel import Reel
from .segments import Curve, Segment
from .writing import write_text

FORMAT = 1  # raised when an older reader would misunderstand


@dataclass(frozen=True)
class Record:
    """A record that was read. facts: everything in it but the segments and the curve."""

    segments: tuple[Segment, ...]
    curve: Curve
    facts: Mapping[str, Any]


def write_record(
    path: Path, segments: Sequence[Segment], curve: Curve, facts: Mapping[str, Any], reel: Reel | None = None
) -> None:
    """Write the record, whole or not at all. facts: what JSON can hold. Raises VideoError when it can't be written."""
    content = {
        **facts,
        "format": FORMAT,
        "segments": [_segment_facts(one) for one in segments],
        "curve": {"times_s": _rounded(curve.times_s), "scores": _rounded(curve.scores)},
        "reel": None if reel is None else reel_facts(reel, path.parent),
    }
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: Path) -> Record:
    """Read a record back. Raises DataError for a file that is none, or of a newer format."""
    name = repr(path.name)
    cure = "Give the .highlights.json that `smolvlm highlights` wrote."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{name} can't be read: {error.strerror or error}. {cure}") from error
    except ValueError as error:
        raise DataError(f"{name} is no JSON ({error}). {cure}") from error
    if not isinstance(content, dict) or "segments" not in content or "curve" not in content:
        raise DataError(f"{name} holds no segments with a score curve. {cure}")
    if content.get("format") != FORMAT:
        raise DataError(f"{name} has format {content.get('format')!r}, and this version reads {FORMAT}. {cure}")
    try:
        segments = tuple(
            Segment(_number(one["start_s"]), _number(one["end_s"]), _number(one["score"]), str(one.get("title", "")))
            for one in content.pop("segments")
        )
        times, scores = (tuple(map(_number, content["curve"][key])) for key in ("times_s", "scores"))
        if len(times) != len(scores) or list(times) != sorted(times):
            raise ValueError("its curve needs one score for each time, and times that ascend")
    except (KeyError, TypeError, AttributeError, ValueError, VideoError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{name} can't be used: {said}. {cure}") from error
    content.pop("curve")
    return Record(segments, Curve(times, scores), content)


def reel_facts(reel: Reel, folder: Path) -> dict[str, Any]:
    """What a record tells of the reel: whether it is a copy, and each asked border beside the actual one."""
    return {
        "file": relative_uri(reel.path, folder),
        "copied": reel.copied,
        "encoded_because": reel.encoded_because,
        "sound": reel.sound,
        "duration_s": round(reel.duration_s, 6),
        "cuts": [
            {
                "asked_start_s": one.segment.start_s,
                "asked_end_s": one.segment.end_s,
                "start_s": round(one.start_s, 6),
                "end_s": round(one.end_s, 6),
                "reel_start_s": round(one.reel_start_s, 6),
            }
            for one in reel.cuts
        ],
    }


def _segment_facts(segment: Segment) -> dict[str, Any]:
    facts: dict[str, Any] = {"start_s": segment.start_s, "end_s": segment.end_s, "score": round(segment.score, 6)}
    return {**facts, "title": segment.title} if segment.title else facts


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 6) for value in values]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} stands where a number belongs")
    return float(value)
