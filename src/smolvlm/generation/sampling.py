"""Choose one request's next token from its logits. numpy only, so every motor can use it.

Each filter is defined as transformers defines it, and they apply in its order: repetition penalty, temperature,
top-k, top-p, min-p; what a mask forbids is left out before. Random numbers are counter-based (Philox keyed by seed,
counted by step): what a request draws depends on its seed and on nothing else, whoever shares the batch. Parity in
tests/reference/test_sampling.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from ..types import FinishReason, SamplingParams
from .likelihood import Likely, likely
from .loops import LoopGuard

# Below this a temperature is 0: dividing by it would leave the range of float32, and nothing but the best has a chance.
COLDEST = 1e-5


class TokenMask(Protocol):
    """What an answer may go on with. It is handed in, as stop checks are: the engine knows no text."""

    def allowed(self) -> np.ndarray:
        """Ids of the tokens that may come next, ascending, at least one."""

    def accept(self, token_id: int) -> None:
        """One of them was chosen."""

    def forced(self) -> list[int]:
        """What is likely to be chosen next, for there is little else; maybe nothing."""

    @property
    def complete(self) -> bool:
        """True when nothing may come any more."""


class Sampler:
    """The choices of one request, in order. prompt_ids: its own prompt, without padding.

    likely: how likely the last choice was, when params.logprobs asks for it.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Iterable[int] = (), mask: TokenMask | None = None) -> None:
        self.params = params
        self.likely: Likely | None = None
        self._mask = mask
        self._guard = LoopGuard() if params.loop_guard else None
        self._loops = False
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        self.step = 0
        self._greedy = params.temperature < COLDEST
        self._seen = np.unique(np.fromiter(prompt_ids, dtype=np.int64)) if params.repetition_penalty != 1 else None

    @property
    def is_argmax(self) -> bool:
        """True when the choice is the largest logit and nothing else, so a motor may take it where the logits lie."""
        return self._greedy and self._seen is None and self._mask is None and self.params.logprobs is None

    @property
    def ending(self) -> FinishReason | None:
        """Why the answer ends with what was chosen last, when its mask or the loop guard says so."""
        if self._mask is not None and self._mask.complete:
            return "stop"
        return "loop" if self._loops else None

    def choose(self, logits: np.ndarray) -> int:
        """logits: (vocabulary,) float32, left unchanged. Returns the id of the next token."""
        scores = logits if self._seen is None else penalise(logits, self._seen, self.params.repetition_penalty)
        allowed = None
        if self._mask is not None:
            allowed = self._mask.allowed()
            scores = scores[allowed]
        if self._greedy:
            place = int(scores.argmax())
        else:
            place = draw(*distribution(scores, self.params), uniform(self.seed, self.step))
        token_id = place if allowed is None else int(allowed[place])
        if self.params.logprobs is not None:
            self.likely = likely(logits, token_id, self.params.logprobs)
        return self.accept(token_id)

    def accept(self, token_id: int) -> int:
        """Count a token as chosen, by whomever; returns it."""
        self.step += 1
        if self._mask is not None:
            self._mask.accept(token_id)
        if self._guard is not None:
            self._loops = self._guard.add(token_id)
        if self._seen is not None:
            self._seen = np.union1d(self._seen, token_id)
        return token_id


def penalise(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Make tokens that occurred already less likely: positive logits divided by the penalty, negative multiplied."""
    scores = logits.astype(np.float32, copy=True)
    values = scores[seen]
    scores[seen] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return scores


def distribution(scores: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """What may be drawn: token ids in ascending order and their probabilities, (candidates,) each.

    scores: (vocabulary,) after the repetition penalty. params.temperature must be at least COLDEST.
    """
    ids = np.arange(scores.size)
    if 0 < params.top_k < scores.size:  # before the temperature, which keeps the order: fewer logits are left to scale
        ids = np.flatnonzero(scores >= np.partition(scores, -params.top_k)[-params.top_k])
        scores = scores[ids]
    weights = np.exp((scores - scores.max()) / np.float32(params.temperature))  # (candidates,) float32
    if params.top_p < 1:
        kept = _top_p(weights / weights.sum(dtype=np.float64), params.top_p)
        ids, weights = ids[kept], weights[kept]
    if params.min_p > 0:
        kept = np.flatnonzero(weights >= params.min_p * weights.max())
        ids, weights = ids[kept], weights[kept]
    return ids, weights / weights.sum(dtype=np.float64)


def draw(ids: np.ndarray, probabilities: np.ndarray, point: float) -> int:
    """The id at `point` (0 to 1) of the cumulated probabilities.

    They are cumulated in the order of the vocabulary, never sorted by size: two nearly equal tokens that change
    places through rounding would otherwise change the draw.
    """
    cumulated = probabilities.cumsum()
    index = int(cumulated.searchsorted(point * cumulated[-1], side="right"))
    return int(ids[min(index, ids.size - 1)])


def uniform(seed: int, step: int) -> float:
    """The random number in [0, 1) that belongs to this seed and step. Negative seeds are taken modulo 2**128."""
    word = int(np.random.Philox(key=seed % 2**128, counter=step).random_raw())
    return (word >> 11) * 2.0**-53


def _top_p(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Positions, ascending, of the smallest set whose probability reaches top_p. At least the likeliest stays."""
    excess = 1 - top_p
    # All weights below excess / size add up to less than the excess, so they go without being sorted: sorting
    # 49,280 weights costs 3.6 ms, sorting the few hundred that are left costs nothing.
    likely = np.flatnonzero(weights >= excess / weights.size)
    order = likely[weights[likely].argsort(kind="stable")]
    removed = weights.sum() - weights[order].sum() + weights[order].cumsum() <= excess
    removed[-1] = False
    return np.sort(order[~removed])
