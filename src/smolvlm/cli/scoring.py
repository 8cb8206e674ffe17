"""Scores of a checkpoint on drawn scenes, asked as a user asks: `smolvlm train --score` chooses the best by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 5


def scene_scores(cases: int, start: str) -> Callable[[Path], dict[str, float]]:
    """A function of a checkpoint directory -> skill -> share of exactly right answers.

    cases: questions of each skill, of the validation split. start: the model that an adapter is on.
    """

    def score(checkpoint: Path) -> dict[str, float]:
        from ..checkpoint.adapters import CONFIG_NAME
        from ..scenes import SKILLS
        from ..vlm import load

        adapted = (checkpoint / CONFIG_NAME).is_file()
        vlm = load(start, adapter=checkpoint) if adapted else load(checkpoint)
        found = {}
        for skill in SKILLS:
            asked = [_request(skill, index) for index in range(cases)]
            requests: list[Any] = [request for request, _ in asked]
            answers = vlm.ask_batch(requests)
            right = sum(str(answer).strip() == told for answer, (_, told) in zip(answers, asked, strict=True))
            found[skill] = round(right / cases, 4)
        return found

    return score


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
