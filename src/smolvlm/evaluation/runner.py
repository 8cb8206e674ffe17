"""Ask a model the rows of tasks and keep a record of each: in batches, in the rows' order, on after any interruption.

What a row is asked and how it is scored is the task's; where records lie folder.py's; what they add up to summary.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ..errors import DataError, InputError
from ..types import Answer
from ..vlm import VLM
from .folder import RunFolder
from .judge import JudgeEndpoint, NoVerdict
from .ranks import Share
from .records import Record
from .task import Asked, Protocol, Row, Task

BATCH_SIZE = 16
BATCHES_AT_ONCE = 2  # while one is written, the pictures of the next are prepared: 10-25 % sooner on two cores
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asking:
    """How rows are asked: of which model, by which protocol, graded with whose help, how many at a time."""

    vlm: VLM
    protocol: Protocol
    judge: JudgeEndpoint | None = None
    batch_size: int = BATCH_SIZE


def survey(task: Task, directory: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` rows, or all, without their pictures: what there is, and that it can be read.

    Raises DataError when it can't, when two rows have one key, and when there are no rows.
    """
    rows = [replace(row, images=(), video=None) for row in islice(task.read(directory), limit)]
    if not rows:
        raise DataError(f"{task.name} has no rows in {directory}.")
    keys: set[str] = set()
    for row in rows:
        if row.key in keys:
            raise DataError(f"Two rows of {task.name} have the key {row.key!r}: give each row one of its own.")
        keys.add(row.key)
    return rows


def evaluate(
    asking: Asking,
    tasks: Sequence[Task],
    surveyed: Mapping[str, Sequence[Row]],
    directory: Path,
    folder: RunFolder,
    *,
    share: Share | None = None,
    progress: Progress | None = None,
) -> int:
    """Answer what has no record in the folder yet, of this process's share. Returns how many of all rows had none.

    surveyed: task -> what `survey` found in the directory. progress: takes samples done and samples in all.
    """
    share = share or Share()
    done = folder.records(surveyed)
    missing = {
        task.name: {row.key for row in share.of(surveyed[task.name]) if (task.name, row.key) not in done}
        for task in tasks
    }
    total = sum(len(share.of(surveyed[task.name])) for task in tasks)
    finished = total - sum(map(len, missing.values()))
    if progress is not None:
        progress(finished, total)
    with closing(folder.open_records(share)) as file:
        for task in tasks:
            wanted = missing[task.name]
            rows = (row for row in task.read(directory) if row.key in wanted) if wanted else ()
            for records in answer(asking, task, islice(rows, len(wanted))):
                file.add(records)
                finished += len(records)
                if progress is not None:
                    progress(finished, total)
    return sum(map(len, surveyed.values())) - len(done)


def answer(asking: Asking, task: Task, rows: Iterable[Row]) -> Iterator[list[Record]]:
    """The records of rows, batch by batch. A row that can't be asked gets a record that says why."""
    waiting: deque[Future[list[Record]]] = deque()
    pool = ThreadPoolExecutor(BATCHES_AT_ONCE)
    try:
        for batch in _batches(rows, asking.batch_size):
            waiting.append(pool.submit(_answer_batch, asking, task, batch))
            if len(waiting) > BATCHES_AT_ONCE:  # one more, so that no thread waits for rows to be read
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def _answer_batch(asking: Asking, task: Task, rows: Sequence[Row]) -> list[Record]:
    asked = [_ask(asking.protocol, task, row) for row in rows]
    answers = iter(_answers(asking.vlm, [one for one in asked if isinstance(one, Asked)]))
    return [
        _record(asking, task, row, one, next(answers) if isinstance(one, Asked) else one)
        for row, one in zip(rows, asked, strict=True)
    ]


def _ask(protocol: Protocol, task: Task, row: Row) -> Asked | InputError:
    try:
        return task.ask(row, protocol)
    except InputError as error:
        return error


def _answers(vlm: VLM, asked: Sequence[Asked]) -> list[Answer | InputError]:
    """What comes back for each. A request that can't be used takes its batch with it: then each is sent alone."""
    try:
        return list(vlm.ask_batch([one.request for one in asked], batch_size=max(1, len(asked))))
    except InputError as error:
        if len(asked) == 1:
            return [error]
        return [answer for one in asked for answer in _answers(vlm, [one])]


def _record(asking: Asking, task: Task, row: Row, asked: Asked | InputError, answer: Answer | InputError) -> Record:
    record = Record(task.name, row.key, row.question, row.answers, row.groups)
    if isinstance(asked, Asked):
        record = replace(record, prompt=asked.prompt, frames_s=asked.frames_s)
    if isinstance(answer, InputError):
        return replace(record, status="failed", reason=" ".join(str(answer).split()))
    seen = tuple(seconds for video in answer.frames for seconds in video.timestamps_s)
    record = replace(
        record,
        tiles=answer.image_tokens // asking.vlm.processor.image_seq_len,
        prompt_tokens=answer.prompt_tokens,
        image_tokens=answer.image_tokens,
        new_tokens=len(answer.token_ids),
        frames_s=seen or record.frames_s,
        output=answer.text,
        finish_reason=answer.finish_reason,
    )
    return _graded(record, task, row, asking)


def _graded(record: Record, task: Task, row: Row, asking: Asking) -> Record:
    """With the score of its output."""
    judge = asking.judge.of(task.name, row) if asking.judge else None
    try:
        score = task.score(record.output, row, asking.protocol.mode, judge)
    except NoVerdict as error:
        return replace(record, status="undecided", reason=str(error))
    except InputError as error:
        return replace(record, status="failed", reason=f"It can't be scored: {' '.join(str(error).split())}")
    return replace(record, parsed=score.parsed, score=score.value, status=score.status)
