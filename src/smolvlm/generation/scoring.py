"""How likely a model finds given continuations of one prompt. Token ids in, log probabilities out, nothing is sampled.

Choices that begin differently are told apart by the first token, in one forward. Others are scored whole: the prompt
is read once, each ending behind a copy of it. Which texts stand for a choice is up to vlm/.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import SamplingParams
from .likelihood import log_softmax

if TYPE_CHECKING:
    from ..runtimes.motor import LiveAdapter
    from .scheduler import Generation

Spelling = tuple[int, ...]
READING = SamplingParams(max_new_tokens=1)


def requests_for(
    prompt_ids: np.ndarray,
    pictures: Any,
    choices: Sequence[Sequence[Spelling]],
    adapter: LiveAdapter | None = None,
) -> list[Generation]:
    """What an engine must read to score the choices: prompts whose last logits are kept.

    pictures: (image tokens of the prompt, hidden), None without any. choices: for each choice its spellings as token
    ids, none empty; the same spelling must not stand for two choices. adapter: to read with.
    """
    from .scheduler import Generation

    endings = [()] if begin_differently(choices) else [spelling[:-1] for choice in choices for spelling in choice]
    place = len(prompt_ids) - 1
    prompts = [np.append(prompt_ids, np.array(ending, prompt_ids.dtype)) for ending in endings]
    read = [Generation(prompt, pictures, READING, (), keep_logits=place, adapter=adapter) for prompt in prompts]
    if not begin_differently(choices):
        for one, spelling in zip(read, chain.from_iterable(choices), strict=True):
            one.keep = partial(_likelihood, spelling)
    return read


def scores_from(read: Sequence[Generation], choices: Sequence[Sequence[Spelling]]) -> list[float]:
    """The log probability of each choice, its spellings added up, from what requests_for had read."""
    if begin_differently(choices):
        first = log_softmax(read[0].logits[0])
        starts = [sorted({spelling[0] for spelling in spellings}) for spellings in choices]
        return [float(np.logaddexp.reduce(first[ids])) for ids in starts]
    each = iter(read)
    return [float(np.logaddexp.reduce([float(sum(next(each).logits)) for _ in spellings])) for spellings in choices]


def begin_differently(choices: Sequence[Sequence[Spelling]]) -> bool:
    """True when no two choices have a spelling that begins with the same token."""
    starts = [{spelling[0] for spelling in spellings} for spellings in choices]
    return len(set().union(*starts)) == sum(map(len, starts))


def _likelihood(spelling: Spelling, place: int, logits: np.ndarray) -> np.ndarray:
    """(), the log probability of the token of a spelling that comes at a place: all that is needed of large logits."""
    return np.asarray(log_softmax(logits)[spelling[place]])
