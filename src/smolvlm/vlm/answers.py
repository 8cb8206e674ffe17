"""The text of answers as it comes out of the generation loop: one Writer a request, and the iterator that users hold.

Cutting text is processing/text_stream.py's, choosing tokens generation's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator

from ..errors import InputError
from ..processing.text_stream import TextStream, TokenBytes
from ..types import Answer, FinishReason, FramesSeen


class Writer:
    """Writes down the answer to one request, token by token."""

    def __init__(
        self,
        token_bytes: TokenBytes,
        stop: tuple[str, ...],
        ends: Collection[int],
        *,
        started: float,
        prompt_tokens: int,
        image_tokens: int,
        frames: tuple[FramesSeen, ...],
    ) -> None:
        """ends: ids that end an answer and are no text. started: time.perf_counter() when the request came."""
        self._text = TextStream(token_bytes, stop, strip_start=True)
        self._ends = ends
        self._started = started
        self._cost = (prompt_tokens, image_tokens, frames)
        self._token_ids: list[int] = []
        self._first_token_s = 0.0
        self._pieces: deque[str] = deque()  # another thread may add to it
        self.answer: Answer | None = None

    def take(self, token_id: int) -> bool:
        """Add a token. True when the text now holds a stop text."""
        if not self._token_ids:
            self._first_token_s = time.perf_counter() - self._started
        self._token_ids.append(token_id)
        if token_id not in self._ends:
            self._pieces.append(self._text.push(token_id))
        return self._text.stopped

    def finish(self, reason: FinishReason) -> None:
        self._pieces.append(self._text.finish())
        prompt_tokens, image_tokens, frames = self._cost
        self.answer = Answer(
            text=self._text.text,
            token_ids=tuple(self._token_ids),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            image_tokens=image_tokens,
            frames=frames,
            first_token_s=self._first_token_s,
            total_s=time.perf_counter() - self._started,
        )

    def drain(self) -> str:
        """The text that came since the last call."""
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        return "".join(pieces)


class AnswerStream:
    """Iterate over it for pieces of text; afterwards `.answer` is the whole, with its cost and the frames seen."""

    def __init__(self, writer: Writer, steps: Iterator[None]) -> None:
        self._writer = writer
        self._steps = steps
        self._tell: list[Callable[[Answer], None]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece, never empty."""
        while True:
            piece = self._writer.drain()
            if piece:
                return piece
            if self._writer.answer is not None:
                while self._tell:
                    self._tell.pop(0)(self._writer.answer)
                raise StopIteration
            next(self._steps)

    def when_complete(self, tell: Callable[[Answer], None]) -> None:
        """Call `tell` once, with the whole answer, after the last piece was taken."""
        self._tell.append(tell)

    @property
    def answer(self) -> Answer:
        """Raises InputError before the last piece was taken."""
        if self._writer.answer is None:
            raise InputError("The answer isn't complete: iterate over the stream to its end first, or call ask().")
        return self._writer.answer

    def close(self) -> None:
        """Stop before the end and free what the model kept for this request."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
