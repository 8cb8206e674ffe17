"""MMMU's questions without options, about one in twenty.

Source: MMMU's (arXiv 2311.16502) parser as in lmms-eval, tasks/mmmu; VLMEvalKit's table of its questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .choice import multiple_choice
from .score import Judge, Mode, Score, graded
from .text import exact_match, read_number

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
# Digits are tried from the start of their run only: from inside they could but fail again, in quadratic time.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?e[+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?!e[+-]?\d)(?![,\d])"),
)


def mmmu_open(
    prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit", *, judge: Judge | None = None
) -> Score:
    """Whether the prediction gives one of the answers.

    mode "vlmevalkit" makes it a question with the options "the (first) answer" and "Other Answers", so that "A" is
    right. "official" looks behind words like "is" in each line and takes any text that contains an answer, any number
    that equals one to two decimals. "strict" wants the answer alone: the same number to two decimals or the same text.
    """
    if mode == "vlmevalkit":
        return multiple_choice(prediction, [*answers[:1], "Other Answers"], "A", judge=judge)
    if mode == "strict":
        number = read_number(prediction)
        if number is None:
            return exact_match(prediction, answers)
        wanted = [read_number(answer) for answer in answers]
        return graded(prediction, str(number), round(number, 2) in [round(n, 2) for n in wanted if n is not None])
    parts = _key_parts(prediction)
    found = [number for part in parts for pattern in _NUMBERS for number in pattern.findall(part)]
    forms = [form for answer in answers for form in _forms(answer)]
    hit = any(_matches(form, forms) for text in parts + found for form in _forms(text))
    return graded(prediction, parts[0], hit)


def _key_parts(prediction: str) -> list[str]:
    """What stands behind the last key word of each line, the shortest such piece; without any, all of it.

    MMMU means to cut at sentences too, but at a dot before a capital, which lower case has none of.
    """
    whole = prediction.strip().strip(".").lower()
    *lines, last = whole.split("\n")
    pieces = [_shortest_piece(line, _KEYS) for line in lines] + [_shortest_piece(last, (*_KEYS, "="))]
    return [piece for piece in pieces if piece and piece not in tuple(":,.!?;'")] or [whole]


def _shortest_piece(line: str, keys: Sequence[str]) -> str:
    piece = ""
    for key in keys:
        behind = line.rpartition(key)[2].strip()
        # An empty piece gives way to the next one, of any length.
        if key in line and (not piece or len(behind) < len(piece)):
            piece = behind
    return piece


def _forms(text: str) -> list[float | str]:
    """A number to two decimals, or text in lower case. A single character needs a blank at its side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _matches(said: float | str, forms: Sequence[float | str]) -> bool:
    if isinstance(said, str):
        return any(isinstance(form, str) and form in said for form in forms)
    return said in forms
