"""Notice an answer that only repeats itself, which a weak model may do until its last token.

An answer loops when its last SHORTEST tokens or more are one cycle of at most LONGEST tokens, REPEATS times or more.
Honest answers repeat themselves, too: the rows of an empty table, a line of dots. The numbers let 20 equal rows of 6
cells pass, or 12 of 10, which is much for a model of this size; a loop goes on for thousands of tokens. What was
written is kept whole: a stream has told it already.
"""

from __future__ import annotations

import numpy as np

LONGEST = 64
REPEATS = 8
SHORTEST = 256


class LoopGuard:
    """One answer. For each length of a cycle it counts the last tokens that equal those a cycle before."""

    def __init__(self) -> None:
        lengths = np.arange(1, LONGEST + 1)
        self._needed = np.maximum(REPEATS * lengths, SHORTEST) - lengths  # the first cycle has nothing before it
        self._equal = np.zeros(LONGEST, np.int64)  # [length - 1]
        self._last = np.full(LONGEST, -1, np.int64)  # the newest first

    def add(self, token_id: int) -> bool:
        """Count a token. True when the answer loops."""
        self._equal = np.where(self._last == token_id, self._equal + 1, 0)
        self._last[1:] = self._last[:-1]
        self._last[0] = token_id
        return bool((self._equal >= self._needed).any())
