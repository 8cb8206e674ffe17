"""What a run keeps of every sample, and the file it is kept in: one JSON object a line, whole lines only.

A line that a killed process left half written is dropped, and its sample asked again. What a sample is and how it is
scored are task.py's and scorers/'.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ..errors import DataError, InputError
from .scorers import Score

Status = Literal["ok", "undecided", "empty", "failed"]


@dataclass(frozen=True)
class Record:
    """One sample: what was asked, what came back, what it is worth. Nothing in it depends on the time or the machine.

    prompt: as sent, `<image>` where pictures go. output: as the model said it. parsed: what the scorer took for the
    answer. status: of the scorer, or "failed" when the sample couldn't be asked or scored. reason: why it is worth
    nothing, where that isn't the answer's fault.
    """

    task: str
    key: str
    question: str
    references: tuple[str, ...]
    groups: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    prompt: str = ""
    tiles: int = 0
    prompt_tokens: int = 0
    image_tokens: int = 0
    new_tokens: int = 0
    frames_s: tuple[float, ...] = ()
    output: str = ""
    finish_reason: str = ""
    parsed: str = ""
    score: float = 0.0
    status: Status = "ok"
    reason: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from every other record of a run."""
        return self.task, self.key

    @property
    def graded(self) -> Score:
        """As the scorer gave it; of a failed sample, nothing."""
        return Score(self.score, self.parsed, "empty" if self.status == "failed" else self.status)


class RecordFile:
    """A file of records, opened to add to it. What was added is on the disk when `add` returns.

    Raises InputError while another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        _lock(self._file, path)
        kept = _whole_lines(path.read_bytes())
        if self._file.tell() != len(kept):
            self._file.truncate(len(kept))

    def add(self, records: Iterable[Record]) -> None:
        self._file.write(b"".join(_line(record) for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_records(path: Path) -> list[Record]:
    """The records of a file, a half-written last line left out. Raises DataError for a damaged line before it."""
    found = []
    for number, line in enumerate(_whole_lines(path.read_bytes()).split(b"\n")[:-1], 1):
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"Line {number} of {path} is no record of an evaluation ({error}). Delete the line and run again: its "
                "sample is then asked again."
            ) from error
    return found


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Put a whole file in the place of another at one moment, so that a kill leaves the one or the other."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(b"".join(_line(record) for record in records))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _lock(file: BinaryIO, path: Path) -> None:
    """Until it is closed, or the process ends in any way. Where the system has no such locks, nothing."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"{path} is being written to by another process: wait for it, or end it.") from error


def _line(record: Record) -> bytes:
    # half of a surrogate pair, which UTF-8 can't hold, becomes the escape that JSON reads as the same half
    return json.dumps(asdict(record), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _record(values: dict[str, Any]) -> Record:
    names = {one.name for one in fields(Record)}
    if unknown := values.keys() - names:
        raise ValueError(f"it has {', '.join(sorted(unknown))}")
    for name in ("references", "frames_s"):
        values[name] = tuple(values[name])
    values["groups"] = {name: tuple(of) if isinstance(of, list) else of for name, of in values["groups"].items()}
    return Record(**values)


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
