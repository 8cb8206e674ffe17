"""Scores of a checkpoint, asked as a user asks: `smolvlm train --score` chooses the best by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..vlm import VLM

SEED = 5
Score = Callable[[Path], dict[str, float]]


def scene_scores(cases: int, start: str) -> Score:
    """A function of a checkpoint directory -> skill -> share of exactly right answers.

    cases: questions of each skill, of the validation split. start: the model that an adapter is on.
    """

    def score(checkpoint: Path) -> dict[str, float]:
        from ..scenes import SKILLS

        vlm, found = _load(checkpoint, start), {}
        for skill in SKILLS:
            asked = [_request(skill, index) for index in range(cases)]
            requests: list[Any] = [request for request, _ in asked]
            answers = vlm.ask_batch(requests)
            right = sum(str(answer).strip() == told for answer, (_, told) in zip(answers, asked, strict=True))
            found[skill] = round(right / cases, 4)
        return found

    return score


def task_scores(names: Sequence[str], cases: int, directory: Path, start: str) -> Score:
    """A function of a checkpoint directory -> task of `smolvlm eval` -> score, on its first `cases` samples.

    directory: of data sets. Raises InputError for a task that there isn't, DataError for data that can't be read.
    """
    from ..evaluation.runner import Asking, answer, survey
    from ..evaluation.summary import overall_score
    from ..evaluation.task import Protocol
    from ..evaluation.tasks import find_task

    tasks, protocol = [find_task(name) for name in names], Protocol()
    surveyed = {task.name: survey(task, directory, cases) for task in tasks}

    def score(checkpoint: Path) -> dict[str, float]:
        asking, found = Asking(_load(checkpoint, start), protocol), {}
        for task in tasks:
            records = [
                record for batch in answer(asking, task, islice(task.read(directory), cases)) for record in batch
            ]
            found[task.name] = round(overall_score(task, records, surveyed[task.name], protocol.mode), 4)
        return found

    return score


def _load(checkpoint: Path, start: str) -> VLM:
    from ..checkpoint.adapters import CONFIG_NAME
    from ..vlm import load

    adapted = (checkpoint / CONFIG_NAME).is_file()
    return load(start, adapter=checkpoint) if adapted else load(checkpoint)


def _request(skill: str, index: int) -> tuple[dict[str, Any], str]:
    """A question as ask() takes it, and its answer."""
    from ..scenes import draw

    scene = draw(skill, SEED, index, "validation")
    turn = scene.turns[index % len(scene.turns)]
    asked: dict[str, Any] = {"question": turn.question, "max_new_tokens": 160, "detail": scene.detail}
    if scene.clip:
        asked["videos"] = [list(scene.clip.frames)]
    elif scene.pictures:
        asked["images"] = list(scene.pictures)
    return asked, turn.answer
