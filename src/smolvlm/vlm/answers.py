"""The text of answers as it comes out of the generation loop: one Writer a request, and the iterator that users hold.

Cutting text is processing/text_stream.py's, choosing tokens generation's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator

from ..errors import InputError
from ..generation.likelihood import Likely
from ..processing.text_stream import TextStream
from ..processing.tokenizer import SmolVLMTokenizer
from ..types import Answer, FinishReason, FramesSeen, TokenLogprob
from .rules import Parse


class Writer:
    """Writes down the answer to one request, token by token."""

    def __init__(
        self,
        tokenizer: SmolVLMTokenizer,
        stop: tuple[str, ...],
        ends: Collection[int],
        *,
        started: float,
        prompt_tokens: int,
        image_tokens: int,
        frames: tuple[FramesSeen, ...],
        strip: str | None = None,
        parse: Parse | None = None,
    ) -> None:
        """ends: ids that end an answer and are no text. started: time.perf_counter() when the request came.

        strip: characters that a text doesn't begin with; None is all white space. parse: what a complete text stands
        for.
        """
        self._tokenizer = tokenizer
        self._text = TextStream(tokenizer.token_bytes, stop, strip_start=True, strip=strip)
        self._parse = parse
        self._ends = ends
        self._started = started
        self._cost = (prompt_tokens, image_tokens, frames)
        self._token_ids: list[int] = []
        self._first_token_s = 0.0
        self._pieces: deque[tuple[str, tuple[TokenLogprob, ...]]] = deque()  # another thread may add to it
        self._likely: Likely | None = None
        self._held: deque[tuple[int, TokenLogprob]] = deque()  # where each begins: its text isn't certain yet
        self._logprobs: list[TokenLogprob] = []
        self.answer: Answer | None = None

    def note(self, likely: Likely) -> None:
        """How likely the token is that is taken next."""
        self._likely = likely

    def take(self, token_id: int) -> bool:
        """Add a token. True when the text now holds a stop text."""
        if not self._token_ids:
            self._first_token_s = time.perf_counter() - self._started
        self._token_ids.append(token_id)
        if token_id not in self._ends:
            if self._likely is not None:
                self._held.append((self._text.decoded, self._spelled(token_id, self._likely)))
            self._release(self._text.push(token_id), last=False)
        return self._text.stopped

    def finish(self, reason: FinishReason, cached_tokens: int = 0) -> None:
        self._release(self._text.finish(), last=True)
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
            logprobs=tuple(self._logprobs),
            parsed=self._parse(self._text.text) if self._parse is not None and reason == "stop" else None,
            cached_tokens=cached_tokens,
        )

    def drain(self) -> tuple[str, tuple[TokenLogprob, ...]]:
        """The text that came since the last call, and its tokens when it was noted how likely they were.

        At the end there may be tokens without a text.
        """
        text = ""
        tokens: tuple[TokenLogprob, ...] = ()
        while self._pieces:
            more, its_tokens = self._pieces.popleft()
            text, tokens = text + more, tokens + its_tokens
        return text, tokens

    def _release(self, text: str, *, last: bool) -> None:
        """A text is certain, and so are the tokens that begin in it. None begins behind a stop text."""
        tokens = []
        everything = last and not self._text.stopped
        while self._held and (everything or self._held[0][0] < self._text.released):
            tokens.append(self._held.popleft()[1])
        if self._text.stopped:
            self._held.clear()
        self._logprobs += tokens
        self._pieces.append((text, tuple(tokens)))

    def _spelled(self, token_id: int, likely: Likely) -> TokenLogprob:
        top = zip(likely.top_ids, likely.top_logprobs, strict=True)
        return self._spell(token_id, likely.logprob, tuple(self._spell(*one) for one in top))

    def _spell(self, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        text = self._tokenizer.token_text(token_id)
        known = token_id < len(self._tokenizer)
        return TokenLogprob(token_id, text, self._tokenizer.token_bytes(token_id) if known else b"", logprob, top)


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
            piece, _ = self._writer.drain()
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
