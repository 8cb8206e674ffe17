"""How often is smolvlm-nano exactly right on unseen drawn material, and what would not looking score?

    python benchmarks/nano_scores.py                      500 cases a row, the bundled model
    OMP_NUM_THREADS=1 python benchmarks/nano_scores.py --runtime native --jobs 2     the same answers, sooner
    python benchmarks/nano_scores.py --model DIRECTORY --cases 100 --only reading

Each case is one question on a picture, clip or pair of its own from the test split, asked alone, answered greedily and
compared character by character. Beside it: the same with colour-shape pairs and words that training never saw (held
out), the commonest answer of train (majority), guessing as often as each answer occurs (chance), and the model itself
with the picture of another case (blind). Every share has the standard error of its count. Prints Markdown, then JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import smolvlm
from smolvlm import scenes
from smolvlm.scenes import HELD_OUT_SKILLS, Scene, Turn

MOST_SCENES_A_CASE = 60  # how many scenes may be drawn in search of one case
SCENES_FOR_MAJORITY = 3000
MODEL: Answering  # in each process: see start_work
ARGUMENTS: argparse.Namespace


@dataclass(frozen=True)
class Row:
    """A line of the table. kinds: which turns count; pattern: only answers that match it; floor: the goal, percent."""

    name: str
    skill: str
    kinds: tuple[str, ...]
    pattern: str = r"[\s\S]*"
    floor: int | None = None

    def holds(self, turn: Turn) -> bool:
        return turn.kind.removesuffix("_absent") in self.kinds and bool(re.fullmatch(self.pattern, turn.answer))


YES_NO = r"yes|no"
ROWS = (
    Row("colour of a shape", "scene", ("colour_of",), floor=95),
    Row("shape of a colour", "scene", ("shape_of",)),
    Row("yes or no", "scene", ("exists", "is_colour", "is_size", "is_at", "is_relation"), YES_NO, floor=95),
    Row("counting", "scene", ("count_all", "count_colour", "count_shape"), floor=90),
    Row("what is at a place", "scene", ("at_place",)),
    Row("where a shape is", "scene", ("where",)),
    Row("left, right, above, below", "scene", ("left_or_right", "above_or_below")),
    Row("size, largest, smallest", "scene", ("size_of", "largest", "smallest")),
    Row("whole scene described", "scene", ("describe",), floor=75),
    Row("captions and stories", "scene", ("caption_short", "caption_long", "story")),
    Row(
        "questions without an answer",
        "scene",
        ("colour_of", "shape_of", "where", "unknowable"),
        r"There is no.*|I can't.*",
    ),
    Row("whole scene on four tiles", "tiles", ("describe",)),
    Row("a word on four tiles", "tiles", ("read",)),
    Row("reading, up to 6 letters", "read", ("read_1",), r"[A-Z]{1,6}", floor=70),
    Row("reading, 7 or 8 letters", "read", ("read_1",), r"[A-Z]{7,8}"),
    Row("reading, 9 to 12 letters", "read", ("read_1",), r"[A-Z]{9,12}"),
    Row("reading a number", "read", ("read_1", "read_number"), r"\d+"),
    Row("reading two or three lines", "read", ("read_2", "read_3")),
    Row("a word beside a shape", "read", ("word_by", "thing_by")),
    Row("a letter by its place", "read", ("letter_at",)),
    Row("is this word there", "read", ("is_written",)),
    Row("chart: highest", "chart", ("chart_highest",), floor=80),
    Row("chart: lowest", "chart", ("chart_lowest",)),
    Row("chart: value of a bar", "chart", ("chart_value",), r"\d+"),
    Row("chart: which is taller", "chart", ("chart_taller",)),
    Row("chart: all bars", "chart", ("chart_read",)),
    Row("chart: sums and differences", "chart", ("chart_sum", "chart_difference")),
    Row("document: total", "document", ("total",)),
    Row("document: price of an item", "document", ("price",), r"[\d.]+"),
    Row("document: issue and due date", "document", ("issue_date", "due_date")),
    Row("document: shop and number", "document", ("shop", "number")),
    Row("two pictures: which one", "pair", ("which_has", "more"), floor=85),
    Row("two pictures: same or different", "pair", ("same_colour", "same_shape", "same_count")),
    Row("two pictures: what changed", "pair", ("changed",)),
    Row("video: direction", "video", ("direction",), floor=85),
    Row("video: what happens", "video", ("happens",)),
    Row("video: order of two events", "video", ("first", "last", "before")),
    Row("video: colours, growth, what appears", "video", ("turns", "grows", "appears", "disappears", "moves")),
    Row("photographs: says that they are none of its", "photograph", ("photograph",)),
    Row("no picture: who are you", "text", ("who", "can_do")),
    Row("no picture: sums", "text", ("add", "subtract", "greater")),
    Row("no picture: copy and spell", "text", ("copy", "spell")),
    Row("no picture: honest answers", "text", ("no_picture", "beyond")),
)


@dataclass(frozen=True)
class Result:
    """Shares from 0 to 1 and how many cases they come from; None where a measure makes no sense."""

    name: str
    cases: int
    right: float
    held_out: float | None
    majority: float | None
    chance: float | None
    blind: float | None
    floor: int | None
    misses: tuple[tuple[str, str, str], ...]


class Answering(Protocol):
    """What is asked of a model: the part of smolvlm.VLM that is used here."""

    def ask_batch(self, requests: Sequence[dict[str, object]]) -> Sequence[object]: ...


def cases(row: Row, seed: int, count: int, *, split: str = "test", held_out: bool = False) -> list[tuple[Scene, Turn]]:
    """At most one turn a scene, so that cases are independent of each other."""
    found: list[tuple[Scene, Turn]] = []
    for index in range(count * MOST_SCENES_A_CASE):
        scene = scenes.draw(row.skill, seed, index, split, held_out=held_out)
        turn = next((turn for turn in scene.turns if row.holds(turn)), None)
        if turn:
            found.append((scene, turn))
        if len(found) == count:
            break
    return found


def request(scene: Scene, question: str) -> dict[str, object]:
    """The question on a scene's pictures, as ask() takes it."""
    asked: dict[str, object] = {"question": question, "max_new_tokens": 160, "detail": scene.detail}
    if scene.clip:
        asked["videos"] = [list(scene.clip.frames)]
    elif scene.pictures:
        asked["images"] = list(scene.pictures)
    return asked


def share_right(model: Answering, asked: list[tuple[Scene, Turn]]) -> tuple[float, list[tuple[str, str, str]]]:
    """Share of exact answers, and the misses as (question, right answer, given answer)."""
    given = [str(answer) for answer in model.ask_batch([request(scene, turn.question) for scene, turn in asked])]
    misses = [
        (turn.question, turn.answer, answer)
        for (_, turn), answer in zip(asked, given, strict=True)
        if answer.strip() != turn.answer
    ]
    return 1 - len(misses) / len(asked), misses


@cache
def training_turns(skill: str, seed: int) -> list[Turn]:
    return [turn for index in range(SCENES_FOR_MAJORITY) for turn in scenes.draw(skill, seed, index).turns]


def without_looking(row: Row, seed: int, asked: list[tuple[Scene, Turn]]) -> tuple[float, float]:
    """Majority and chance: shares right with train's commonest answer of the kind, and when guessing by frequency."""
    seen: dict[str, Counter[str]] = {}
    for turn in training_turns(row.skill, seed):
        if row.holds(turn):
            seen.setdefault(turn.kind.removesuffix("_absent"), Counter())[turn.answer] += 1
    majority = chance = 0.0
    for _, turn in asked:
        answers = seen.get(turn.kind.removesuffix("_absent"), Counter())
        majority += bool(answers) and turn.answer == answers.most_common(1)[0][0]
        chance += answers[turn.answer] / max(1, answers.total())
    return majority / len(asked), chance / len(asked)


def score(model: Answering, row: Row, seed: int, count: int, plain: bool = False) -> Result:
    """plain: how often it is right, and no more."""
    asked = cases(row, seed, count)
    right, misses = share_right(model, asked)
    if plain:
        return Result(row.name, len(asked), right, None, None, None, None, row.floor, tuple(misses[:5]))
    held_out = blind = None
    if row.skill in HELD_OUT_SKILLS:
        unseen = cases(row, seed, count, held_out=True)
        held_out = share_right(model, unseen)[0] if len(unseen) == count else None
    if row.skill not in ("text", "photograph"):  # with another photograph the answer is the same
        pictures = [scene for scene, _ in asked]
        shifted = list(zip(pictures[1:] + pictures[:1], (turn for _, turn in asked), strict=True))
        blind, _ = share_right(model, shifted)
    majority, chance = without_looking(row, seed, asked)
    return Result(row.name, len(asked), right, held_out, majority, chance, blind, row.floor, tuple(misses[:5]))


def table(results: Sequence[Result]) -> Iterator[str]:
    """The lines of a Markdown table, in percent."""
    yield "| | cases | exactly right | held out | blind | majority | chance | goal |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in results:
        error = 100 * (one.right * (1 - one.right) / one.cases) ** 0.5
        cells = (one.held_out, one.blind, one.majority, one.chance)
        shown = " | ".join("" if value is None else f"{100 * value:.0f}" for value in cells)
        goal = "" if one.floor is None else str(one.floor)
        yield f"| {one.name} | {one.cases} | **{100 * one.right:.1f}** ± {error:.1f} | {shown} | {goal} |"


def start_work(arguments: argparse.Namespace) -> None:
    """In each process: load the model once."""
    global MODEL, ARGUMENTS
    ARGUMENTS, MODEL = arguments, smolvlm.load(arguments.model, runtime=arguments.runtime)


def work(number: int) -> tuple[Result, float]:
    """Score a row; with the seconds it took."""
    started = time.perf_counter()
    result = score(MODEL, ROWS[number], ARGUMENTS.seed, ARGUMENTS.cases, ARGUMENTS.plain)
    return result, time.perf_counter() - started


@contextmanager
def side_by_side(arguments: argparse.Namespace) -> Iterator[Callable[..., Iterable[Any]]]:
    """A map() over rows; with several jobs each is a process: spawned, as a thread pool doesn't survive a fork."""
    if arguments.jobs == 1:
        start_work(arguments)
        yield map
    else:
        with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), start_work, (arguments,)) as pool:
            yield pool.map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or hub id (default: the bundled nano)")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--runtime", default="torch", choices=("torch", "native"))
    parser.add_argument("--jobs", type=int, default=1, help="rows scored at a time, each in a process of its own")
    parser.add_argument("--plain", action="store_true", help="nothing beside: held out, blind, majority, chance")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--misses", action="store_true", help="show up to five wrong answers a row")
    arguments = parser.parse_args()
    wanted = [number for number, row in enumerate(ROWS) if arguments.only in row.name]
    results = []
    with side_by_side(arguments) as score_all:
        for result, seconds in score_all(work, wanted):
            results.append(result)
            print(f"{result.name}: {100 * result.right:.1f} % in {seconds:.0f} s", file=sys.stderr)
            if arguments.misses:
                for question, answer, given in result.misses:
                    print(f"    {question} -> {given!r} instead of {answer!r}", file=sys.stderr)
    print("\n".join(table(results)))
    figures = json.dumps({"seed": arguments.seed, "rows": [asdict(one) for one in results]})
    print(figures)
    if arguments.json:
        arguments.json.write_text(figures + "\n")


if __name__ == "__main__":
    main()
