"""Which option of a multiple-choice question an answer means (MMMU, MMStar, AI2D, ScienceQA).

Source: VLMEvalKit e8e78f0, matching_util.py; MMMU's parser as in lmms-eval, tasks/mmmu. An option is its text; its
letter is its place: A, B, ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from string import ascii_uppercase

from ...errors import InputError
from .score import Judge, Mode, Score, graded, read_or_ask

REFUSED = "Z"  # what VLMEvalKit notes for a refusal; it decides the question, as wrong
JUDGE_TRIES = 3
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LETTERED = re.compile(
    r"(?:(?:the )?(?:best |correct |final )?(?:answer|option|choice)(?: is)? ?:? ?)?[(\[*]*([A-Z])[)\]*.:]*(?: (.+))?",
    re.ASCII | re.IGNORECASE,
)


def multiple_choice(
    prediction: str,
    options: Sequence[str],
    gold: str,
    mode: Mode = "vlmevalkit",
    *,
    judge: Judge | None = None,
    random: Random | None = None,
) -> Score:
    """Whether the prediction means the option with the letter gold.

    mode: "vlmevalkit" is its generic matching, "official" MMMU's parser, "strict" wants the answer to be one option and
    nothing else. judge: asked up to three times about what stays undecided. random: what is still undecided is guessed
    with it, as MMMU's parser does, and marked as undecided all the same.
    Raises InputError when gold is no option's letter.
    """
    letters = letters_of(options, gold)
    letter = read_or_ask(prediction, lambda text: READERS[mode](text, options), judge, JUDGE_TRIES)
    if letter is None and random is not None:
        guess = random.choice(letters)
        return Score(float(guess == gold), guess, graded(prediction, None, 0.0).status)
    return graded(prediction, letter, letter == gold)


def leading_letter(prediction: str, options: Sequence[str], gold: str) -> Score:
    """A letter alone or before a dot at the start: ScienceQA and AI2D in lmms-eval; all else is wrong.

    (Of AI2D lmms-eval forgives the case and punctuation of a lone letter too.)
    """
    letters, text = letters_of(options, gold), prediction.strip()
    letter = text[:1] if text[1:2] in ("", ".") and text[:1] in set(letters) else None
    return graded(prediction, letter, letter == gold)


def letters_of(options: Sequence[str], gold: str) -> str:
    """The options' letters. Raises InputError when gold isn't one of them."""
    letters = ascii_uppercase[: len(options)]
    if gold not in set(letters):
        raise InputError(
            f"The right answer is given as {gold!r}, but the options are {', '.join(letters) or 'none'}. "
            "Give the letter of the right option."
        )
    return letters


def read_vlmevalkit(prediction: str, options: Sequence[str]) -> str | None:
    """A letter, "Z" for a refusal, or None when undecided.

    In this order: a refusal; the only option letter among the words, if it first comes up within the last four; "answer
    is" before a, b, c or d, even as the start of a word; the only option text that occurs in an answer not longer than
    twice all options.
    """
    if any(refusal in prediction for refusal in _REFUSALS):
        return REFUSED
    words = prediction.translate(_TO_SPACES).split()
    letters = ascii_uppercase[: len(options)]
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and REFUSED in words:
        return REFUSED
    verbose = _ANSWER_IS.search(prediction)
    if verbose and verbose[1].upper() in letters:
        return verbose[1].upper()
    text = prediction.lower()
    if len(text) > 2 * sum(map(len, options)):
        return None
    found = [letter for letter, option in zip(letters, options, strict=False) if option.lower() in text]
    return found[0] if len(found) == 1 else None


def read_mmmu(prediction: str, options: Sequence[str]) -> str | None:
    """A letter, or None where MMMU's parser would guess.

    "(B)" goes before "B " and that before "B."; an option's text counts only in answers of more than five words. Of
    several the last wins. "B " is not tied to a word's start: "NASA is" has the letter A.
    """
    text = prediction
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = ascii_uppercase[: len(options)]
    # The place of a letter is looked up with blanks on both sides, also for those that were found without.
    for sign, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in letters if sign.format(letter) in text]
        if found:
            return max(found, key=lambda letter: text.rfind(place.format(letter)))
    if len(text.split()) <= 5:
        return None
    lower = text.lower()
    places = {letter: lower.rfind(option.lower()) for letter, option in zip(letters, options, strict=False)}
    best = max(places, key=lambda letter: places[letter], default=None)
    return best if best is not None and places[best] >= 0 else None


def read_strict(prediction: str, options: Sequence[str]) -> str | None:
    """A letter when the answer is that letter ("b", "(B).", "Answer: B"), its option's text, or both; else None."""
    text = " ".join(prediction.split())
    texts = [_bare(option) for option in options]
    lettered = _LETTERED.fullmatch(text)
    if lettered and lettered[1].upper() in ascii_uppercase[: len(options)]:
        letter = lettered[1].upper()
        if lettered[2] is None or _bare(lettered[2]) == texts[ascii_uppercase.index(letter)]:
            return letter
    same = [letter for letter, option in zip(ascii_uppercase, texts, strict=False) if option == _bare(text)]
    return same[0] if len(same) == 1 else None


READERS: dict[Mode, Callable[[str, Sequence[str]], str | None]] = {
    "vlmevalkit": read_vlmevalkit,
    "official": read_mmmu,
    "strict": read_strict,
}


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")
