"""What can be scored without looking: the commonest answer of each kind of question, and guessing as answers occur."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .material import Scene


@dataclass(frozen=True)
class Baseline:
    """Scores of not looking, for one kind of question.

    majority_answer: the commonest answer in train. majority: share of the test's turns it is right on.
    chance: share right when each answer is guessed as often as it occurs. num_turns: turns of the test.
    """

    num_turns: int
    num_answers: int
    majority_answer: str
    majority: float
    chance: float


def measure(train: Iterable[Scene], test: Iterable[Scene]) -> dict[str, Baseline]:
    """Baselines by kind of turn, in the order of the kinds' names; kinds that the test lacks are left out.

    A question on something that is not there counts with its own sort, because who hears the question can't know it.
    """
    seen, asked = _count(train), _count(test)
    found = {}
    for kind, answers in sorted(asked.items()):
        total = answers.total()
        common = min((seen.get(kind) or answers).items(), key=lambda item: (-item[1], item[0]))[0]
        chance = sum((count / total) ** 2 for count in answers.values())
        found[kind] = Baseline(total, len(answers), common, answers[common] / total, chance)
    return found


def _count(scenes: Iterable[Scene]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for scene in scenes:
        for turn in scene.turns:
            counts[turn.kind.removesuffix("_absent")][turn.answer] += 1
    return counts
