"""Prompt lookup: guess the next tokens from what followed the last few where they stood before.

Several rows cost little more than one, because a step's time goes into reading the weights. Guesses are read together
with the last token and kept as far as the sampler chooses the same, so answers are what they are without guesses.
Source: prompt lookup decoding, as an option of transformers' generate (prompt_lookup_num_tokens).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NGRAM = 3  # tokens that must stand there again; shorter ones guess often and badly
FIRST_GUESS = 3


class Lookup:
    """The n-grams of one request. most: tokens guessed at a time; after guesses that failed, fewer, then more again."""

    def __init__(self, prompt_ids: np.ndarray, most: int, never: Iterable[int] = ()) -> None:
        """never: ids that are not guessed, such as image tokens."""
        self._never = frozenset(never)
        self._most = most
        self._length = min(FIRST_GUESS, most)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> where the token after its last occurrence stands
        self.add(prompt_ids.tolist())

    def add(self, token_ids: Iterable[int]) -> None:
        """What was read or chosen."""
        for token_id in token_ids:
            last = tuple(self._ids[-NGRAM:])
            if len(last) == NGRAM and token_id not in self._never:
                self._after[last] = len(self._ids)
            self._ids.append(token_id)

    def guess(self) -> list[int]:
        """The tokens that may come next, none when their beginning is new."""
        start = self._after.get(tuple(self._ids[-NGRAM:]))
        if start is None:
            return []
        guessed = self._ids[start : start + self._length]
        wrong = next((at for at, token_id in enumerate(guessed) if token_id in self._never), len(guessed))
        return guessed[:wrong]

    def learn(self, guessed: int, right: int) -> None:
        """Guess twice as far after a guess that was right to its end, half as far after another."""
        if guessed:
            wanted = 2 * self._length if right == guessed else max(1, self._length // 2)
            self._length = min(wanted, self._most)
