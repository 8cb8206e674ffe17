"""MathVista: a choice, a whole number, a decimal or a list, taken out of free text by a judge or not at all.

Source: MathVista (arXiv 2310.02255), extract_answer.py and calculate_score.py; VLMEvalKit e8e78f0, utils/mathvista.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

from ...errors import InputError
from .choice import multiple_choice
from .score import Judge, Mode, Score, graded
from .text import edit_distance, read_number

AnswerType = Literal["text", "integer", "float", "list"]
_Value = str | float | tuple[str | float, ...]
_BRACKETED = re.compile(r"\(([a-zA-Z])\)")


def mathvista(
    prediction: str,
    answer: str,
    answer_type: AnswerType,
    *,
    choices: Sequence[str] = (),
    precision: int | None = None,
    mode: Mode = "vlmevalkit",
    judge: Judge | None = None,
) -> Score:
    """Whether the prediction gives the answer. choices: texts, one of them the answer; none when the form is free.

    precision: decimals of a float answer. judge: takes the answer out of a longer text; asked when the prediction as a
    whole is no answer (mode "vlmevalkit": nor the right number).
    mode "vlmevalkit" compares numbers unrounded and holds every list for wrong. "official" rounds to the precision,
    then wants the same text, and takes for a choice the one that is spelt most alike. "strict" compares numbers at the
    precision, lists by member, and choices as multiple_choice does.
    Raises InputError when the answer isn't one of the choices.
    """
    if choices and answer not in choices:
        raise InputError(f"The answer {answer!r} is none of the choices: {', '.join(choices)}. Give one of them.")
    if mode == "official":
        return _official(prediction, answer, answer_type, choices, precision, judge)
    if choices:
        return multiple_choice(prediction, choices, ascii_uppercase[choices.index(answer)], mode, judge=judge)
    if mode == "vlmevalkit":
        return _vlmevalkit(prediction, answer, answer_type, judge)
    said, wanted = _value(prediction, answer_type, precision), _value(answer, answer_type, precision)
    if said is None and judge is not None:
        said = _value(judge(prediction), answer_type, precision)
    return graded(prediction, None if said is None else str(said), said is not None and said == wanted)


def _vlmevalkit(prediction: str, answer: str, answer_type: AnswerType, judge: Judge | None) -> Score:
    if answer_type not in ("integer", "float"):
        return graded(prediction, prediction.strip(), 0.0)  # compared with the text "None", whatever was said
    said, wanted = _python_number(prediction, answer_type), _python_number(answer, answer_type)
    if judge is not None and (said is None or said != wanted):
        said = _python_number(judge(prediction), answer_type)
    return graded(prediction, None if said is None else str(said), said is not None and said == wanted)


def _official(
    prediction: str,
    answer: str,
    answer_type: AnswerType,
    choices: Sequence[str],
    precision: int | None,
    judge: Judge | None,
) -> Score:
    direct = prediction in choices if choices else _python_number(prediction, answer_type) is not None
    text = prediction if direct or not prediction or judge is None else judge(prediction)
    if choices:
        said: str | None = _most_alike(text.strip(), choices)
    elif answer_type in ("integer", "float"):
        said = _rounded(text, answer_type, precision)
    else:
        said = text
    return graded(prediction, said, said == answer)


def _python_number(text: str, answer_type: AnswerType) -> float | None:
    """As Python converts it, so " 1_4 " is 14. None for other text and for other types."""
    try:
        return {"integer": int, "float": float}[answer_type](text)
    except (KeyError, ValueError):
        return None


def _rounded(text: str, answer_type: AnswerType, precision: int | None) -> str | None:
    try:
        return str(int(float(text)) if answer_type == "integer" else round(float(text), precision))
    except (ValueError, OverflowError):  # also of "nan" and "inf"
        return None


def _most_alike(text: str, choices: Sequence[str]) -> str:
    """The choice with the letter, "(B)" anywhere or "B" alone; else the nearest by edits: for no text the shortest."""
    bracketed = _BRACKETED.search(text)
    letter = bracketed[1].upper() if bracketed else text
    for place, choice in zip(ascii_uppercase, choices, strict=False):
        if letter == place:
            return choice
    return min(choices, key=lambda choice: edit_distance(letter, choice))


def _value(text: str, answer_type: AnswerType, precision: int | None) -> _Value | None:
    if answer_type == "text":
        return " ".join(text.casefold().split()) or None
    if answer_type == "list":
        inner = text.strip()
        if not (inner.startswith("[") and inner.endswith("]")):
            return None
        members = [member.strip().strip("'\"") for member in inner[1:-1].split(",")]
        return tuple(member if (number := read_number(member)) is None else number for member in members)
    number = read_number(text)
    return number if number is None or precision is None or answer_type == "integer" else round(number, precision)
