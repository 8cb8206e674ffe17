"""The spellings a model may use for given choices, as token ids, and the decision that their scores are.

How likely they are is generation/scoring.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..generation.scoring import Spelling, scores_from
from ..types import Decision, FramesSeen

if TYPE_CHECKING:
    from ..generation.scheduler import Generation


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
    beginnings = {spelling[:length] for spelling in together for length in range(1, len(spelling))}
    if any(spelling in beginnings for spelling in together):
        spelled = [[(*spelling, end_id) for spelling in spellings] for spellings in spelled]
    return spelled


def decision_of(
    choices: Sequence[str],
    spellings: Sequence[Sequence[Spelling]],
    read: Sequence[Generation],
    frames: tuple[FramesSeen, ...],
) -> Decision:
    """spellings: of each choice. read: what the engine read for them, see scoring.requests_for."""
    logs = np.array(scores_from(read, spellings), dtype=np.float64)
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    return Decision(
        choice=choices[int(shares.argmax())],
        probabilities={choice: float(share) for choice, share in zip(choices, shares, strict=True)},
        label_mass=min(float(np.exp(logs).sum()), 1.0),
        frames=frames,
        prompt_tokens=(read[0].keep_logits or 0) + 1,
        cached_tokens=read[0].cached_tokens,
    )


def _texts(choice: str, exact: bool) -> set[str]:
    text = choice.strip()
    forms = {text} if exact else {text, text.lower(), text.upper(), text[0].upper() + text[1:]}
    return forms | {" " + form for form in forms}
