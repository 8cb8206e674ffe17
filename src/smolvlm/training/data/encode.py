"""A sample -> token ids, which of them are learned, and tiles, as the processor makes them for a question.

Only answers are learned, told apart by spans.py. What is too long gets fewer tiles; what is too long even so is
refused. A picture's run of tokens is never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ...errors import ContextLengthError, PromptError
from ...processing.chat import Message, blocks_of, expand, placeholders, protect
from ...processing.processor import SmolVLMProcessor
from ...processing.request import Look, Prompt, Seen, cut, measure, report
from ...processing.template import DEFAULT_TEMPLATE, template_uses
from ...types import MediaTokens
from ..samples import Branch
from ..samples import Sample as Branches
from ..spans import answer_pieces, encode_pieces
from .sample import Place, Sample

DEFAULT_MAX_TOKENS = 8192  # what the released small models were trained with


@dataclass(frozen=True)
class Encoded:
    """A conversation to learn from.

    ids: (tokens,) int64. learned: (tokens,) bool, which of them the model must say. tiles: (tiles, side, side, 3)
    uint8, in the order of the image tokens. media: what each picture and video is shown as. given_up: tiles that it has
    fewer than asked for, because of its length.
    """

    place: Place
    ids: np.ndarray
    learned: np.ndarray
    tiles: np.ndarray
    media: tuple[MediaTokens, ...] = ()
    given_up: int = 0

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def answers(self) -> int:
        """How many stretches are learned."""
        return int((self.learned & ~np.concatenate([[False], self.learned[:-1]])).sum())

    def as_branches(self, patches: int) -> Branches:
        """The same for collate(): all of it one branch. patches: of a tile; nothing is known of what they show."""
        branch = Branch(tuple(self.ids.tolist()), tuple(self.learned.tolist()), ("answer",) * self.answers)
        labels = np.full((len(self.tiles), patches, 3), -1, np.int16)
        return Branches("data", (), (branch,), self.tiles, labels)


@dataclass(frozen=True)
class Pair:
    """A preference: two conversations that differ in their last answer, which alone is learned. Tiles are shared."""

    chosen: Encoded
    rejected: Encoded

    @property
    def place(self) -> Place:
        return self.chosen.place

    @property
    def tokens(self) -> int:
        return max(self.chosen.tokens, self.rejected.tokens)

    @property
    def given_up(self) -> int:
        return self.chosen.given_up


@dataclass(frozen=True)
class _Plan:
    """Conversations of one sample and its measured media, not decoded. marked: (ids, learned) of each."""

    seen: list[Seen]
    marked: list[tuple[list[int], list[bool]]]

    @property
    def length(self) -> int:
        return max(len(ids) for ids, _ in self.marked)

    @property
    def tiles(self) -> int:
        return sum(one.tiles for one in self.seen)


class Encoder:
    """Turns samples into what a model learns from, by the processor of one checkpoint.

    max_tokens: most tokens of a sample; None is the checkpoint's context, at most 8192. look: how pictures and videos
    are looked at, as in a question.
    """

    def __init__(self, processor: SmolVLMProcessor, *, max_tokens: int | None = None, look: Look | None = None) -> None:
        self.parts = processor.parts
        self.look = look or Look()
        context = self.parts.tokenizer.model_max_length
        self.max_tokens = min(context, DEFAULT_MAX_TOKENS) if max_tokens is None else max_tokens

    def __call__(self, sample: Sample) -> Encoded | Pair:
        """Raises PromptError, MediaError, ContextLengthError for a sample that can't be used."""
        if not sample.chosen:
            return self._encode(sample, [sample.messages], 0)[0]
        talks = [(*sample.messages, *answer) for answer in (sample.chosen, sample.rejected)]
        return Pair(*self._encode(sample, talks, len(sample.messages)))

    def _encode(self, sample: Sample, talks: Sequence[Sequence[Message]], first: int) -> list[Encoded]:
        """first: the message from which on answers are learned."""
        for talk in talks:
            check_answers(talk, first)
        given_up, plan = self._fit(talks, first)
        side = self.parts.image_processor.options.tile_size
        tiles, shown = [np.zeros((0, side, side, 3), np.uint8)], []
        for one in plan.seen:
            cut_tiles, came_out = cut(self.parts, one)
            tiles.append(cut_tiles)
            shown.append(came_out)
        if shown != plan.seen:  # the end of a video could not be decoded: tell the model what it is shown
            plan = self._plan(talks, shown, first)
        joined = np.concatenate(tiles)
        media = report(self.parts, Prompt([], tuple(shown)), None).media
        return [
            Encoded(sample.place, np.array(ids, np.int64), np.array(learned, bool), joined, media, given_up)
            for ids, learned in plan.marked
        ]

    def _fit(self, talks: Sequence[Sequence[Message]], first: int) -> tuple[int, _Plan]:
        """(tiles given up, a plan that fits): with the most tiles of each picture and video that leave room."""
        plan = self._measure(talks, self.look, first)
        wanted = plan.tiles
        if plan.length <= self.max_tokens:
            return 0, plan
        fits, low, high = None, 1, max((one.tiles for one in plan.seen), default=1) - 1
        while low <= high:
            most = (low + high) // 2
            plan = self._measure(talks, replace(self.look, max_image_tokens=most * self.parts.image_seq_len), first)
            if plan.length <= self.max_tokens:
                fits, low = plan, most + 1
            else:
                high = most - 1
        if fits is None:
            raise ContextLengthError(self._why_too_long(plan))
        return wanted - fits.tiles, fits

    def _why_too_long(self, plan: _Plan) -> str:
        ids, learned = max(plan.marked, key=lambda one: len(one[0]))
        seen = ids.count(self.parts.tokenizer.image_token_id)
        return (
            f"The sample takes {len(ids):,} tokens ({sum(learned):,} of answers; {seen:,} of tiles, as few as there "
            f"can be), and the limit is {self.max_tokens:,}. Shorten or split it, or raise the limit."
        )

    def _measure(self, talks: Sequence[Sequence[Message]], look: Look, first: int) -> _Plan:
        return self._plan(talks, measure(self.parts, talks[0], look), first)

    def _plan(self, talks: Sequence[Sequence[Message]], seen: list[Seen], first: int) -> _Plan:
        return _Plan(seen, [self._mark(talk, seen, first) for talk in talks])

    def _mark(self, talk: Sequence[Message], seen: Sequence[Seen], first: int) -> tuple[list[int], list[bool]]:
        """Ids of a conversation and which of them are learned."""
        template = self.parts.template or DEFAULT_TEMPLATE
        if any(one.kind == "video" for one in seen) and not template_uses(template, "video"):
            template = DEFAULT_TEMPLATE  # as for questions: the released templates know no videos
        pieces = answer_pieces(
            protect(talk, self.parts.control_tokens), template, first=first,
            variables=self.parts.tokenizer.special_tokens_map,
        )  # fmt: skip
        blocks = iter([(one.kind, one.text) for one in seen])
        tokens = self.parts.tokens
        filled = [
            (expand(text, list(islice(blocks, len(placeholders(text, tokens)))), tokens), answer)
            for text, answer in pieces
        ]
        return encode_pieces(self.parts.tokenizer, filled)


def check_answers(talk: Sequence[Message], first: int) -> None:
    """Raises PromptError when there is nothing to learn, or an answer is empty or holds a picture."""
    answers = [message for message in talk[first:] if message["role"] == "assistant" and message.get("weight") != 0]
    if not answers or talk[-1] is not answers[-1]:
        raise PromptError("The conversation must end in an answer to learn; what comes after it teaches nothing.")
    for message in answers:
        blocks = blocks_of(message)
        if any(block["type"] != "text" for block in blocks):
            raise PromptError("An answer holds a picture or video, and models of this family write text only.")
        if not "".join(str(block["text"]) for block in blocks).strip():
            raise PromptError("An answer is empty: there is nothing to learn from it.")
