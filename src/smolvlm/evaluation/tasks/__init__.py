"""All tasks by name. Each is a small file: where its rows come from, how one is asked, how an answer is scored."""

from __future__ import annotations

import difflib

from ...errors import InputError
from ..task import Task
from . import (
    ai2d,
    chartqa,
    cinepile,
    docvqa,
    mathvista,
    mlvu,
    mmmu,
    mmstar,
    mvbench,
    nano,
    ocrbench,
    scienceqa,
    tempcompass,
    textvqa,
    videomme,
    vqav2,
    worldsense,
)

__all__ = ["TASKS", "find_task"]

_FOUND = [
    ai2d.TASK,
    chartqa.TASK,
    cinepile.TASK,
    docvqa.TASK,
    docvqa.TEST,
    mathvista.TASK,
    *mlvu.TASKS.values(),
    mmmu.TASK,
    mmstar.TASK,
    mvbench.TASK,
    *nano.TASKS.values(),
    ocrbench.TASK,
    scienceqa.TASK,
    *tempcompass.TASKS.values(),
    textvqa.TASK,
    *videomme.TASKS.values(),
    vqav2.TASK,
    *worldsense.TASKS.values(),
]
TASKS: dict[str, Task] = {task.name: task for task in sorted(_FOUND, key=lambda task: task.name)}


def find_task(name: str) -> Task:
    """Raises InputError listing the names nearest to one that there isn't."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name.lower(), TASKS, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"The tasks are: {', '.join(TASKS)}."
    raise InputError(f"There is no task {name!r}. {hint}")
