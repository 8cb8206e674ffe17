"""What a task is: where its rows come from, how one is asked, how an answer is scored. The tasks are in tasks/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .scorers import Judge, Mode, Score

if TYPE_CHECKING:
    from ..vlm.requests import AskRequest

Kind = Literal["text", "image", "video"]


@dataclass(frozen=True)
class Row:
    """One question of a data set, as read.

    key: unique in the task, the same in every run. question: as a report shows it. answers: references, as a report
    shows them. images: encoded files or paths, in order. video: a file, or a folder of frames. fields: the row's
    columns, for prompt and scorer. groups: breakdown -> the group this row is in, or several: {"subject": "Art",
    "skills": ("algebra", "geometry")}.
    """

    key: str
    question: str
    answers: tuple[str, ...]
    images: tuple[bytes | Path, ...] = ()
    video: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How the rows of any task are put to one checkpoint.

    wrapper: whose prompts, "smolvlm" or "smolvlm2" (they differ in ChartQA's apostrophes; only the second sees
    videos), or "chat" for the model's own template. frame_side: pixels of the longest edge of a frame. frames: most
    frames of a video. fps: frames a second; None spreads `frames` evenly. mode: of the scorers.
    """

    wrapper: Literal["smolvlm", "smolvlm2", "chat"] = "smolvlm2"
    frame_side: int = 512
    frames: int = 64
    fps: float | None = 1.0
    mode: Mode = "vlmevalkit"
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Asked:
    """A request for VLM.ask_batch, and what a record keeps of it. prompt: with `<image>` where pictures go.

    frames_s: seconds of the frames shown.
    """

    request: AskRequest
    prompt: str
    frames_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Task:
    """A benchmark.

    read: a directory of data sets -> its rows, in order; raises DataError naming the file, and for a bad row the
    line. ask: may open the row's video. score: prediction, row, mode, judge -> Score. groups: breakdowns, in the order
    of a report. overall: scores, rows, mode -> one number; None is the mean in every mode.
    """

    name: str
    title: str
    kind: Kind
    metric: str
    read: Callable[[Path], Iterator[Row]]
    ask: Callable[[Row, Protocol], Asked]
    score: Callable[[str, Row, Mode, Judge | None], Score]
    groups: tuple[str, ...] = ()
    overall: Callable[[Sequence[Score], Sequence[Row], Mode], float] | None = None
