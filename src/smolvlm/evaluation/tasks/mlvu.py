"""MLVU (dev): long videos; seven kinds of multiple-choice questions, and two of open ones that a judge grades.

Source: VLMEvalKit e8e78f0, dataset/mlvu.py. Texts: video_prompts.toml, [mlvu].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from ..messages import options_of
from ..scorers import Judge, Mode, Score
from ..scorers import mlvu as score_letter
from ..task import Asked, Protocol, Row, Task
from ..video_layouts import read_mlvu, read_mlvu_generation
from ..video_wrapper import VIDEO, Said, ask_about, option_lines, video_texts

# A judge's two marks, of 1 to 5: accuracy and relevance of a scene's description, or completeness and reliability.
_MARK = re.compile(r"score_(?:accuracy|relevance|completeness|reliability)\W*?(\d(?:\.\d+)?)")
_BEST = 10


def ask(row: Row, protocol: Protocol) -> Asked:
    texts = video_texts("mlvu")
    question = texts["question"].format(question=row.question, options=option_lines(options_of(row))).rstrip()
    message = [Said(texts["system"], "system"), VIDEO, Said(question), Said(texts["after"])]
    return ask_about(row, protocol, "MLVU_MCQ", message)


def ask_generation(row: Row, protocol: Protocol) -> Asked:
    message = [Said(video_texts("mlvu")["system_generation"], "system"), VIDEO, Said(row.question)]
    return ask_about(row, protocol, "MLVU_OpenEnded", message)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return score_letter(prediction, options_of(row), row.fields["answer"], mode, judge=judge)


def score_generation(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    """The judge's two marks as a share of the best; undecided without a judge, or without two marks in its answer."""
    if not prediction.strip():
        return Score(0.0, "", "empty")
    reply = judge(prediction) if judge is not None else ""
    marks = [float(mark) for mark in _MARK.findall(reply)]
    if len(marks) != 2:
        return Score(0.0, "", "undecided")
    return Score(min(sum(marks) / _BEST, 1.0), f"{marks[0]:g} + {marks[1]:g}")


def average(scores: Sequence[Score], rows: Sequence[Row], mode: Mode) -> float:
    """M-Avg: the mean over questions in VLMEvalKit, over the kinds of question in the official script."""
    if mode == "vlmevalkit":
        return fmean(score.value for score in scores)
    kinds: dict[str, list[float]] = {}
    for score, row in zip(scores, rows, strict=True):
        kinds.setdefault(str(row.groups["task"]), []).append(score.value)
    return fmean(fmean(values) for values in kinds.values())


TASKS = {
    "mlvu": Task("mlvu", "MLVU (dev)", "video", "M-Avg", read_mlvu, ask, score, ("task",), average),
    **{
        name: Task(
            name, f"MLVU (dev), {kind}", "video", "share of the marks", partial(read_mlvu_generation, kind=kind),
            ask_generation, score_generation,
        )
        for name, kind in (("mlvu-sub-scene", "sub_scene"), ("mlvu-summary", "summary"))
    },
}  # fmt: skip
