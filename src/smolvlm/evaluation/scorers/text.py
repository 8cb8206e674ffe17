"""Answers that are a word, a number or a line: ANLS, relaxed accuracy, equality, containment.

Source: ANLS, DocVQA (arXiv 2007.00398) as its challenge's server computes it; relaxed accuracy, ChartQA (2203.10244) as
pix2struct computes it; containment, OCRBench (2305.07895); each as in VLMEvalKit e8e78f0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from math import isfinite

import numpy as np

from .score import Mode, Score, graded

ANLS_THRESHOLD = 0.5
RELATIVE_TOLERANCE = 0.05
_NUMBER = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?%?", re.ASCII | re.IGNORECASE)


def anls(prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit") -> Score:
    """Average normalised Levenshtein similarity (DocVQA, InfoVQA): the best over the answers, 0 below one half.

    Neither case nor the length of blanks counts. mode "strict" divides by the length of what was compared, the others
    by that of the texts as they came, so that blanks around an answer raise its score.
    """
    value = max((_similarity(prediction, answer, mode) for answer in answers), default=0.0)
    return graded(prediction, _plain(prediction), value)


def relaxed_accuracy(prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit") -> Score:
    """A number within 5 percent of an answer, or the same text (ChartQA). "17%" is 0.17.

    mode "vlmevalkit", "official": a number is what Python's float takes, and an answer of 0 is compared as text, so
    that "0.0" misses it. mode "strict" takes 0 for a number and "2,000" for 2000, but not "nan".
    """
    said = prediction.strip()
    is_near = _is_near if mode == "strict" else _is_near_as_pix2struct
    return graded(prediction, said, any(is_near(said, answer) for answer in answers))


def exact_match(prediction: str, answers: Sequence[str]) -> Score:
    """The same text but for case and the blanks around it (GQA, OCRVQA)."""
    said = prediction.strip().lower()
    return graded(prediction, said, said in [answer.strip().lower() for answer in answers])


def containment(prediction: str, answers: Sequence[str], mode: Mode = "vlmevalkit", *, formula: bool = False) -> Score:
    """Whether an answer stands somewhere in the prediction (OCRBench).

    formula: a handwritten mathematical expression, where case counts and spaces don't. mode "strict" wants whole words
    ("1" isn't in "2019"), wants a formula to be all that was said, and reads full-width letters as plain ones.
    """
    prepare, is_in = (_folded, _stands_in) if mode == "strict" else (_one_line, _is_part)
    said = prepare(prediction, formula)
    return graded(prediction, said, any(is_in(prepare(answer, formula), said, formula) for answer in answers))


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's: insertions, deletions and replacements that make one text the other.

    One row of the table per character of the shorter text. In a row, the cheapest chain of insertions that ends at
    column j starts at the smallest value minus its column, which is a running minimum.
    """
    if first == second:
        return 0
    short, long = sorted((first, second), key=len)
    letters = np.fromiter(map(ord, long), np.int64, len(long))
    columns = np.arange(len(long) + 1)
    row = columns
    for letter in map(ord, short):
        kept = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.minimum.accumulate(np.concatenate(([row[0] + 1], kept)) - columns) + columns
    return int(row[-1])


def read_number(text: str) -> float | None:
    """The finite number that a text is, thousands' commas and percent included; None for all else ("nan", "1_000")."""
    written = text.strip()
    if not _NUMBER.fullmatch(written):
        return None
    number = float(written.replace(",", "").rstrip("%")) / (100 if written.endswith("%") else 1)
    return number if isfinite(number) else None


def _similarity(prediction: str, answer: str, mode: Mode) -> float:
    said, wanted = _plain(prediction), _plain(answer)
    # In capitals, as the server counts them: a German sharp s is two letters long.
    texts = (said, wanted) if mode == "strict" else (prediction.upper(), answer.upper())
    longest = max(map(len, texts))
    if said == wanted:
        return 1.0
    if abs(len(said) - len(wanted)) > longest * ANLS_THRESHOLD:  # a rambling answer is 0 without a table of its size
        return 0.0
    similarity = 1 - edit_distance(said, wanted) / longest
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _is_near_as_pix2struct(said: str, wanted: str) -> bool:
    number, target = _as_float(said), _as_float(wanted)
    if number is None or not target:
        return said.lower() == wanted.lower()
    return abs(number - target) / abs(target) <= RELATIVE_TOLERANCE


def _as_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _is_near(said: str, wanted: str) -> bool:
    number, target = read_number(said), read_number(wanted)
    if number is None or target is None:
        return _plain(said) == _plain(wanted)
    return abs(number - target) <= RELATIVE_TOLERANCE * abs(target)


def _one_line(text: str, formula: bool) -> str:
    line = text.strip().replace("\n", " ")
    return line.replace(" ", "") if formula else line.lower()


def _is_part(answer: str, said: str, formula: bool) -> bool:
    return answer in said


def _folded(text: str, formula: bool) -> str:
    folded = unicodedata.normalize("NFKC", text)
    return "".join(folded.split()) if formula else _plain(folded)


def _stands_in(answer: str, said: str, formula: bool) -> bool:
    if formula or not answer:
        return answer == said
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", said) is not None
