"""How likely a model finds given continuations of one prompt. Token ids in, log probabilities out, nothing is sampled.

Choices that begin differently are told apart by the first token, in one forward. Others are scored whole: the prompt
is read once, each ending behind a copy of it. Which texts stand for a choice is up to vlm/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import SamplingParams

if TYPE_CHECKING:
    from .scheduler import Generation

Spelling = tuple[int, ...]
READING = SamplingParams(max_new_tokens=1)


def requests_for(prompt_ids: np.ndarray, pictures: Any, choices: Sequence[Sequence[Spelling]]) -> list[Generation]:
    """What an engine must read to score the choices: prompts whose last logits are kept.

    pictures: (image tokens of the prompt, hidden), None without any. choices: for each choice its spellings as token
    ids, none empty; the same spelling must not stand for two choices.
    """
    from .scheduler import Generation

    endings = [()] if begin_differently(choices) else [spelling[:-1] for choice in choices for spelling in choice]
    place = len(prompt_ids) - 1
    prompts = [np.append(prompt_ids, np.array(ending, prompt_ids.dtype)) for ending in endings]
    return [Generation(prompt, pictures, READING, (), keep_logits=place) for prompt in prompts]


def scores_from(read: Sequence[Generation], choices: Sequence[Sequence[Spelling]]) -> list[float]:
    """The log probability of each choice, its spellings added up, from what requests_for had read."""
    if begin_differently(choices):
        first = _log_softmax(read[0].logits[0])
        starts = [sorted({spelling[0] for spelling in spellings}) for spellings in choices]
        return [float(np.logaddexp.reduce(first[ids])) for ids in starts]
    each = iter(read)
    return [
        float(np.logaddexp.reduce([_likelihood(next(each), spelling) for spelling in spellings]))
        for spellings in choices
    ]


def begin_differently(choices: Sequence[Sequence[Spelling]]) -> bool:
    """True when no two choices have a spelling that begins with the same token."""
    starts = [{spelling[0] for spelling in spellings} for spellings in choices]
    return len(set().union(*starts)) == sum(map(len, starts))


def _likelihood(read: Generation, spelling: Spelling) -> float:
    logs = _log_softmax(np.stack(read.logits))  # (tokens of the spelling, vocabulary)
    return float(logs[np.arange(len(spelling)), list(spelling)].sum())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., vocabulary) float64."""
    logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
