"""Where answers begin and end in the tokens of a conversation, for losses that count answers only.

The rendered prompt is cut by rendering it up to each answer, never by looking for words in it, so nothing that a text
says can be taken for a turn. Drawn scenes (samples.py) and data sets (data/) both cut here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import PromptError
from ..processing.chat import Message
from ..processing.template import render
from ..processing.tokenizer import SmolVLMTokenizer

Piece = tuple[str, bool]  # text of a prompt, and whether it is an answer with what the template ends it by


def answer_pieces(
    messages: Sequence[Message],
    template: str | None = None,
    *,
    first: int = 0,
    variables: Mapping[str, object] | None = None,
) -> list[Piece]:
    """Normalised messages -> the text of their prompt, cut where answers begin and end; it stops after the last one.

    first: messages before this one are no answers to learn; nor is one with "weight": 0, as in OpenAI's files.
    Raises PromptError for a template that doesn't write messages one after another.
    """
    pieces: list[Piece] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index < first or message.get("weight") == 0:
            continue
        question = render(messages[:index], template, add_generation_prompt=True, variables=variables)
        through = render(messages[: index + 1], template, variables=variables)
        if not (question.startswith(done) and through.startswith(question)):
            raise PromptError(
                "The chat template doesn't write messages one after another, so answers can't be told from questions. "
                "Train with a template that does, such as the family's own."
            )
        pieces += [(question[len(done) :], False), (through[len(question) :], True)]
        done = through
    return pieces


def encode_pieces(tokenizer: SmolVLMTokenizer, pieces: Sequence[Piece]) -> tuple[list[int], list[bool]]:
    """Pieces -> token ids, and which of them the model must say: each answer up to its end token.

    What a template writes after the end token (a line break) belongs to the next question. After the last answer
    nothing is kept.
    """
    ids: list[int] = []
    is_answer: list[bool] = []
    for text, answer in pieces:
        piece = tokenizer.encode_prompt(text)
        said = _length_with_end(piece, tokenizer.eos_token_id) if answer else 0
        ids += piece
        is_answer += [True] * said + [False] * (len(piece) - said)
    kept = len(ids) - is_answer[::-1].index(True) if any(is_answer) else 0
    return ids[:kept], is_answer[:kept]


def _length_with_end(ids: Sequence[int], end: int | None) -> int:
    """Up to the last end token, or everything when there is none. Text of an answer can't hold one: it is fenced."""
    return len(ids) - ids[::-1].index(end) if end in ids else len(ids)
