"""Multiple-choice questions about videos: Video-MME, WorldSense, MVBench, MLVU, CinePile.

Source: VLMEvalKit e8e78f0, dataset/utils (videomme.py, worldsense.py, mvbench.py, mlvu.py); for CinePile lmms-eval,
tasks/cinepile. gold is a letter throughout and options are texts without theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .choice import letters_of, multiple_choice
from .score import Judge, Mode, Score, graded

_ANSWER_LINE = re.compile(r"Answer:\s*([A-E])\)?\.?\s*(.*)", re.IGNORECASE)


def videomme(
    prediction: str,
    options: Sequence[str],
    gold: str,
    mode: Mode = "vlmevalkit",
    *,
    judge: Judge | None = None,
) -> Score:
    """Video-MME and WorldSense: by the first capital A to D anywhere, so "Actually D" is A.

    mode "vlmevalkit" asks the generic matching, and the judge, when there is no such letter; "official" stops there.
    """
    letters_of(options, gold)
    letter = first_capital(prediction) if mode != "strict" else None
    if letter is None and mode != "official":
        return multiple_choice(prediction, options, gold, mode, judge=judge)
    return graded(prediction, letter, letter == gold)


def first_capital(prediction: str) -> str | None:
    """The first of A, B, C, D. Of the phrases that the script cuts out first, these two alone hold such a letter.

    The longer one is two phrases that a missing comma has joined, so "Best option: C" keeps its B.
    """
    for phrase in ("Best answer:Best option:", "Answer:"):
        prediction = prediction.replace(phrase, "")
    return next((letter for letter in prediction if letter in "ABCD"), None)


def mvbench(
    prediction: str,
    options: Sequence[str],
    gold: str,
    mode: Mode = "vlmevalkit",
    *,
    judge: Judge | None = None,
) -> Score:
    """By the first word: right when it is a part of "(b)", as are "b", "B.", "(" and no word at all, or contains it.

    mode "vlmevalkit" goes on to the generic matching; "official" stops there, and keeps blanks in front, so " A" has an
    empty first word and is right.
    """
    letters_of(options, gold)
    if mode != "strict":
        text = prediction.lower() if mode == "official" else prediction.lower().strip()
        word, right = text.split(" ")[0], f"({gold.lower()})"
        if word.replace(".", "") in right or right in word:
            return graded(prediction, gold, 1.0)
        if mode == "official":
            return graded(prediction, word, 0.0)
    return multiple_choice(prediction, options, gold, mode, judge=judge)


def mlvu(
    prediction: str,
    options: Sequence[str],
    gold: str,
    mode: Mode = "vlmevalkit",
    *,
    judge: Judge | None = None,
) -> Score:
    """By the character before the first ")", or the whole answer when there is none.

    mode "vlmevalkit" goes on to the generic matching when that isn't the right letter; "official" stops there.
    """
    letters = letters_of(options, gold)
    head, bracket, _ = prediction.partition(")")
    letter = head[-1:] if bracket else head
    if mode == "official" or (mode == "vlmevalkit" and letter == gold):
        return graded(prediction, letter if letter in set(letters) else None, letter == gold)
    return multiple_choice(prediction, options, gold, mode, judge=judge)


def cinepile(prediction: str, options: Sequence[str], gold: str, mode: Mode = "official") -> Score:
    """By a lone letter or what follows "Answer:"; a text behind the letter must be the option's, case aside.

    Without either the whole answer must be the right option's text. Asterisks don't count. Only lmms-eval has this
    benchmark: mode "vlmevalkit" is "official".
    """
    letters = letters_of(options, gold)
    text = prediction.replace("*", "").strip()
    if mode == "strict":
        return multiple_choice(text, options, gold, mode)
    right_text = options[letters.index(gold)].lower()
    line = _ANSWER_LINE.search(text)
    if re.fullmatch("[A-Ea-e]", text):
        return graded(prediction, text.upper(), text.upper() == gold)
    if line:
        letter, rest = line[1].upper(), line[2].strip().lower()
        return graded(prediction, letter, letter == gold and rest in ("", right_text))
    hit = text.lower() == right_text
    return graded(prediction, gold if hit else None, hit)
