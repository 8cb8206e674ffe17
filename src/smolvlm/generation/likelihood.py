"""How likely tokens are, from a model's own logits: before temperature, penalty and mask. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Likely:
    """The natural logarithm of a chosen token's probability, and the likeliest tokens in its place, likeliest first."""

    logprob: float
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]


def likely(logits: np.ndarray, token_id: int, count: int) -> Likely:
    """logits: (vocabulary,). count: how many of the likeliest tokens are wanted; of equal ones, the lower ids."""
    logs = log_softmax(logits)
    top = np.zeros(0, np.int64)
    if count:
        count = min(count, logs.size)
        near = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
        top = near[np.argsort(-logits[near], kind="stable")][:count]
    return Likely(float(logs[token_id]), tuple(top.tolist()), tuple(logs[top].tolist()))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., vocabulary) float64."""
    logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
