"""Token ids in, text out, while a model is still writing: whole characters only, and nothing past a stop text.

One character may take several tokens (a byte-level vocabulary splits UTF-8), and a stop text may begin in one token
and end in another, so text is held back until it is decided. Pieces joined equal the decoded whole.
Knows neither model nor sampling; the tokenizer is processing/tokenizer.py.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

TokenBytes = Callable[[int], bytes]


class TextStream:
    """The text of one answer as it grows. `text` is all that was released, `stopped` says that a stop text came.

    released: how many characters were, what was stripped counted in; decoded: how many came, held ones counted in.
    """

    def __init__(
        self, token_bytes: TokenBytes, stop: Sequence[str] = (), *, strip_start: bool = False, strip: str | None = None
    ) -> None:
        """token_bytes: the UTF-8 bytes of a token id (none for special tokens). strip_start: drop leading spaces.

        strip: the characters dropped there; None is all white space.
        """
        self.text = ""
        self.stopped = False
        self.released = 0
        self._stripped = strip
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self._strip = strip_start

    def push(self, token_id: int) -> str:
        """Add one token; returns the text that became certain, which is often empty."""
        return self._advance(self._utf8.decode(self._token_bytes(token_id)), last=False)

    def finish(self) -> str:
        """No more tokens: returns what was held back. A character cut in the middle becomes U+FFFD."""
        return self._advance(self._utf8.decode(b"", final=True), last=True)

    @property
    def decoded(self) -> int:
        return self.released + len(self._held)

    def _advance(self, new: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._held += new
        found = self._first_stop()
        if found is not None:
            self.stopped, keep = True, found
        else:
            keep = len(self._held) - (0 if last else self._undecided())
        piece, self._held = self._held[:keep], self._held[keep:]
        self.released += len(piece)
        if self._strip and piece:
            piece = piece.lstrip(self._stripped)
            self._strip = not piece
        self.text += piece
        return piece

    def _first_stop(self) -> int | None:
        """Where the stop text begins that is complete first, however the tokens were cut; None when there is none."""
        starts = ((self._held.find(stop), stop) for stop in self._stop)
        found = [(start + len(stop), start) for start, stop in starts if start >= 0]
        return min(found)[1] if found else None

    def _undecided(self) -> int:
        """Length of the longest ending that a stop text could begin with."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            ending = self._held[-length:]
            if any(stop.startswith(ending) for stop in self._stop):
                return length
        return 0
