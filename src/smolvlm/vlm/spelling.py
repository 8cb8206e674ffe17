"""The spellings a model may use for given choices, as token ids. How likely they are is generation/scoring.py's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ..errors import InputError
from ..generation.scoring import Spelling


def spell(choices: Sequence[str], encode: Callable[[str], list[int]], end_id: int) -> list[list[Spelling]]:
    """For each choice its spellings: with and without a space ahead, as given, in lower, upper and title case.

    Choices that differ in case only are taken exactly as given. When all choices begin with tokens of their own in the
    spelling that models write (a space ahead), other spellings count only as far as theirs belong to one choice, too.
    When a spelling is the beginning of another choice's, all end with end_id: "red" isn't "red circle".
    Raises InputError for choices that can't be told apart.
    """
    if isinstance(choices, str) or len(choices) < 2 or not all(isinstance(one, str) and one.strip() for one in choices):
        raise InputError(f"choices={choices!r}: give at least two texts that aren't empty.")
    exact = len({choice.casefold() for choice in choices}) < len(choices)
    spelled = [sorted({tuple(encode(text)) for text in _texts(choice, exact)}) for choice in choices]
    together = [spelling for spellings in spelled for spelling in spellings]
    if len(set(together)) < len(together):
        raise InputError(f"choices={choices!r}: two of them are the same text. Every choice must differ.")
    usual = [encode(" " + choice.strip())[0] for choice in choices]
    if len(set(usual)) == len(choices):
        owners = Counter(start for spellings in spelled for start in {spelling[0] for spelling in spellings})
        clear = [[spelling for spelling in spellings if owners[spelling[0]] == 1] for spellings in spelled]
        if all(clear):
            return clear
    if any(_begins_another(spelling, together) for spelling in together):
        spelled = [[(*spelling, end_id) for spelling in spellings] for spellings in spelled]
    return spelled


def _texts(choice: str, exact: bool) -> set[str]:
    text = choice.strip()
    forms = {text} if exact else {text, text.lower(), text.upper(), text[0].upper() + text[1:]}
    return forms | {" " + form for form in forms}


def _begins_another(spelling: Spelling, together: Sequence[Spelling]) -> bool:
    return any(len(other) > len(spelling) and other[: len(spelling)] == spelling for other in together)
