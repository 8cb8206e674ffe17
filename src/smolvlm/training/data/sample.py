"""One sample as every format ends up: a conversation in the family's chat form, and where it came from.

Formats are conversations.py's and clips.py's; ids and tiles are encode.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, PromptError
from ...processing.chat import Block, Message, blocks_of, media_blocks, normalise_messages

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Place:
    """Where a sample was found. file: as the data set names it. row: from 0."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


@dataclass(frozen=True)
class Row:
    """One row of a file as it is there: its columns by name, empty ones left out."""

    columns: Mapping[str, Any]
    place: Place

    def __getitem__(self, name: str) -> Any:
        """A column. Raises DataError when the row has none of that name."""
        if name not in self.columns:
            raise DataError(f"The row has no {name!r}; it has {', '.join(map(repr, self.columns)) or 'nothing'}.")
        return self.columns[name]

    def get(self, *names: str) -> Any:
        """The first of these columns that is there, or None."""
        return next((self.columns[name] for name in names if name in self.columns), None)


@dataclass(frozen=True)
class Sample:
    """A conversation to learn from. Its messages are normalised (see processing/chat.py); media have a "source".

    chosen, rejected: two answers that end the conversation, a better and a worse one, in preference data; both are
    empty otherwise.
    """

    messages: tuple[Message, ...]
    place: Place
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()

    @property
    def media(self) -> list[Block]:
        """Its picture and video blocks, in the order of the prompt."""
        return media_blocks(self.messages)


@dataclass(frozen=True)
class Skipped:
    """A sample that isn't learned from, because it can't be used. kind: the class of the error; reason: its message."""

    place: Place
    kind: str
    reason: str

    @classmethod
    def by(cls, place: Place, error: Exception) -> Skipped:
        return cls(place, type(error).__name__, " ".join(str(error).split()))

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Passed(Skipped):
    """A sample that could be used, but is shorter than its data set wants (`min_tokens`). Nothing is wrong with it."""


def make_sample(
    row: Row,
    messages: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]] = (),
    rejected: Sequence[Mapping[str, Any]] = (),
) -> Sample:
    """Messages of any spelling that chat.py knows -> a sample. Raises PromptError for others, and for other roles."""
    talk = tuple(normalise_messages(list(messages)))
    answers = [tuple(normalise_messages(list(answer))) if answer else () for answer in (chosen, rejected)]
    for message in (*talk, *answers[0], *answers[1]):
        if message["role"] not in ROLES:
            raise PromptError(f"A message is of the role {message['role']!r}; this family has {', '.join(ROLES)}.")
        if not all(_is_unicode(str(block.get("text", ""))) for block in blocks_of(message)):
            raise PromptError("A text holds half a character (a lone surrogate), which no tokenizer takes.")
    return Sample(talk, row.place, *answers)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write \ud800, which is no character
        return False
    return True


def question(text: object, *media: Mapping[str, Any]) -> Message:
    """A message of the user: media, then a text."""
    return {"role": "user", "content": [*media, {"type": "text", "text": as_text(text, "question")}]}


def answer(text: object) -> Message:
    return {"role": "assistant", "content": as_text(text, "answer")}


def as_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"The {what} must be a text, but is a {type(value).__name__}.")
    return value


def as_list(value: Any) -> list[Any]:
    """A column that may hold one thing, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
