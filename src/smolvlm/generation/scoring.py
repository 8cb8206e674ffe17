"""How likely a model finds given continuations of one prompt. Token ids in, log probabilities out, nothing is sampled.

Choices that begin differently are told apart by the first token, in one forward. Others are scored whole: the prompt
is read once into a cache, and their endings in a batch on top of it. Which texts stand for a choice is up to vlm.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..types import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import KVCache, SmolVLMForConditionalGeneration
    from .scheduler import Generation

Spelling = tuple[int, ...]
READING = SamplingParams(max_new_tokens=1)
# Endings read at once on copies of the prompt's cache: more save little time and cost memory.
ROWS_AT_ONCE = 8


def score_choices(
    model: SmolVLMForConditionalGeneration, batch: Mapping[str, Tensor], choices: Sequence[Sequence[Spelling]]
) -> list[float]:
    """The log probability of each choice as the continuation of a prompt, its spellings added up.

    batch: one row, as generate() takes it, without padding. choices: for each choice its spellings as token ids, none
    empty; the same spelling must not stand for two choices.
    """
    import torch

    whole = not begin_differently(choices)
    with torch.inference_mode():
        output = model(**batch, use_cache=whole, logits_to_keep=1)
        first = output.logits[0, -1].float().log_softmax(dim=-1)  # (vocabulary,)
        if not whole:
            starts = [sorted({spelling[0] for spelling in spellings}) for spellings in choices]
            return [float(first[ids].logsumexp(dim=0)) for ids in starts]
        spellings = [spelling for choice in choices for spelling in choice]
        likelihoods: dict[Spelling, Tensor] = {}
        for start in range(0, len(spellings), ROWS_AT_ONCE):
            rows = spellings[start : start + ROWS_AT_ONCE]
            likelihoods |= zip(rows, _score_whole(model, output.past_key_values, first, rows), strict=True)
        return [_log_sum([likelihoods[spelling] for spelling in choice]) for choice in choices]


def requests_for(
    prompt_ids: np.ndarray, pictures: np.ndarray | None, choices: Sequence[Sequence[Spelling]]
) -> list[Generation]:
    """score_choices for an engine: what it must read. pictures: (image tokens of the prompt, hidden)."""
    from .scheduler import Generation

    endings = [()] if begin_differently(choices) else [spelling[:-1] for choice in choices for spelling in choice]
    return [
        Generation(np.append(prompt_ids, np.array(ending, prompt_ids.dtype)), pictures, READING, (),
                   keep_logits=len(prompt_ids) - 1)
        for ending in endings
    ]  # fmt: skip


def scores_from(read: Sequence[Generation], choices: Sequence[Sequence[Spelling]]) -> list[float]:
    """The log probability of each choice, from the logits that were kept."""
    if begin_differently(choices):
        first = _log_softmax(read[0].logits[0])
        starts = [sorted({spelling[0] for spelling in spellings}) for spellings in choices]
        return [float(np.logaddexp.reduce(first[ids])) for ids in starts]
    likelihoods = iter(read)
    found = []
    for spellings in choices:
        each = []
        for spelling in spellings:
            logits = _log_softmax(np.stack(next(likelihoods).logits))  # (tokens of the spelling, vocabulary)
            each.append(logits[np.arange(len(spelling)), list(spelling)].sum())
        found.append(float(np.logaddexp.reduce(each)))
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., vocabulary) float64."""
    logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def begin_differently(choices: Sequence[Sequence[Spelling]]) -> bool:
    """True when no two choices have a spelling that begins with the same token."""
    starts = [{spelling[0] for spelling in spellings} for spellings in choices]
    return len(set().union(*starts)) == sum(map(len, starts))


def _log_sum(scores: Sequence[Tensor]) -> float:
    import torch

    return float(torch.stack(list(scores)).logsumexp(dim=0))


def _score_whole(
    model: SmolVLMForConditionalGeneration, prompt: KVCache, first: Tensor, spellings: Sequence[Spelling]
) -> list[Tensor]:
    """Log probability of each spelling. first: log probabilities of the first token after the prompt, (vocabulary,)."""
    import torch

    scores = [first[spelling[0]] for spelling in spellings]
    width = max(map(len, spellings)) - 1  # the last token of a spelling is scored, never read
    if width:
        # Filled up on the right: what comes after a spelling can't change the logits before it.
        ids = torch.tensor([[*spelling[:-1], *[0] * (width + 1 - len(spelling))] for spelling in spellings])
        cache = _copies(model, prompt, len(spellings), width)
        output = model(input_ids=ids.to(first.device), past_key_values=cache, use_cache=True)
        later = output.logits.float().log_softmax(dim=-1)  # (spellings, width, vocabulary)
        for row, spelling in enumerate(spellings):
            for place, token_id in enumerate(spelling[1:]):
                scores[row] = scores[row] + later[row, place, token_id]
    return scores


def _copies(model: SmolVLMForConditionalGeneration, prompt: KVCache, rows: int, extra: int) -> KVCache:
    """`rows` copies of a cache of one row, with room for `extra` tokens."""
    from ..model import KVCache

    copies = KVCache.allocate(model.config.text_config, rows, prompt.length + extra, model.dtype, model.device)
    for layer, (key, value) in enumerate(prompt.to_legacy()):
        copies.keys[layer][:, :, : prompt.length] = key
        copies.values[layer][:, :, : prompt.length] = value
    copies.length = prompt.length
    return copies
