"""Rows that hold a conversation, whatever their spelling -> samples. Each converter is a function of one row.

Layouts as published; what they look like stands in each docstring. Videos with notes of their own are clips.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...errors import DataError, PromptError
from ...processing.chat import Message, normalise_messages
from .placing import image, media_of, place_in_blocks, place_in_texts
from .sample import Row, Sample, answer, as_list, as_text, make_sample, question

NAMES_OF_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "assistant": "assistant", "bot": "assistant", "system": "system",
}  # fmt: skip
DESCRIBE = {"image": "Describe the picture.", "video": "Describe the video."}


def from_cauldron(row: Row) -> Sample:
    """The Cauldron, FineVision, Docmatix: `images`, `texts: [{user, assistant, source}]`, several turns on the same
    pictures. Texts have no places; the pictures come before the first question."""
    pictures = [image(source) for source in as_list(row.get("images"))]
    messages: list[Message] = []
    for turn in as_list(row["texts"]):
        messages += [question(turn["user"], *([] if messages else pictures)), answer(turn["assistant"])]
    return make_sample(row, messages)


def from_llava(row: Row) -> Sample:
    """LLaVA and its many heirs (OneVision, M4-Instruct, MAmmoTH-VL, LLaVA-Video-178K, Video-STaR, VISTA-400K):
    `conversations: [{from, value}]`, `image` or `video` (one or a list), `<image>` and `<video>` anywhere in a value.
    Mantis's `conversation: [{role, content}]` with `images` is the same. A system text may stand in a column."""
    turns = as_list(row.get("conversations", "conversation"))
    messages: list[Message] = [
        {"role": _role(turn.get("from", turn.get("role"))), "content": _value(turn.get("value", turn.get("content")))}
        for turn in turns
    ]
    system = row.get("system", "system_message", "system_prompt")
    if system and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, {"role": "system", "content": as_text(system, "system text")})
    return make_sample(row, place_in_texts(messages, media_of(row)))


def from_messages(row: Row) -> Sample:
    """OpenAI's `messages: [{role, content}]`, content a text or blocks; media inside the blocks, or in columns beside
    them as TRL has it. Texts may have `<image>` places for those columns."""
    return make_sample(row, _messages(row, row["messages"]))


def from_prompt_completion(row: Row) -> Sample:
    """TRL: `prompt` and `completion`, texts or messages."""
    return make_sample(row, [*_messages(row, _talk(row["prompt"], "user")), *_talk(row["completion"], "assistant")])


def from_preference(row: Row) -> Sample:
    """TRL, RLAIF-V: `prompt`, `chosen`, `rejected`, texts or messages, and `images` or `image`. Without a prompt,
    it is what the two answers have in common; a prompt that they repeat is taken out of them."""
    chosen, rejected = (_talk(row[name], "assistant") for name in ("chosen", "rejected"))
    prompt = _talk(row.get("prompt"), "user") if row.get("prompt") else _common(chosen, rejected)
    chosen, rejected = (one[len(prompt) :] if one[: len(prompt)] == prompt else one for one in (chosen, rejected))
    if not (prompt and chosen and rejected):
        raise PromptError("A preference needs a question and two answers, 'chosen' and 'rejected'.")
    return make_sample(row, _messages(row, prompt), chosen, rejected)


def from_vqa(row: Row) -> Sample:
    """VQAv2 and alike: `question`, `image`, and `multiple_choice_answer`, `answer`, `label` or `answers`. Of several
    answers the commonest is taken, of equally common ones the first."""
    said = row.get("multiple_choice_answer", "answer", "label", "answers")
    if isinstance(said, list | tuple):
        texts = [one["answer"] if isinstance(one, dict) else one for one in said]
        said = Counter(texts).most_common(1)[0][0] if texts else ""
    return make_sample(row, [question(row["question"], *media_of(row)), answer(said)])


def from_caption(row: Row) -> Sample:
    """A picture or video and its `caption` or `text`; `file_name` as in captioned folders. The question is ours."""
    media = media_of(row)
    said = row.get("caption", "text")
    return make_sample(row, [question(DESCRIBE[str(media[0]["type"])], *media), answer(said)])


def from_text(row: Row) -> Sample:
    """Plain `text`: an answer to no question, so all of it is learned."""
    return make_sample(row, [answer(row["text"])])


def _messages(row: Row, messages: Any) -> list[Message]:
    """Messages with the media of the row in their places."""
    if not isinstance(messages, list | tuple):
        raise PromptError(f"Messages are a list of {{'role', 'content'}}, but here a {type(messages).__name__}.")
    media = media_of(row)
    if all(isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages):
        return place_in_texts(list(messages), media, strict=False)
    return place_in_blocks(normalise_messages(list(messages)), media)


def _talk(content: Any, role: str) -> list[Message]:
    """A text as one message of a role; messages as they are."""
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list | tuple):
        raise DataError(f"A text or a list of messages is wanted, not a {type(content).__name__}.")
    return list(content)


def _common(one: Sequence[Message], other: Sequence[Message]) -> list[Message]:
    """The messages that two conversations begin with alike."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return list(one[:length])


def _role(name: object) -> str:
    role = NAMES_OF_ROLES.get(str(name).lower())
    if role is None:
        raise PromptError(f"A turn is from {name!r}; known are {', '.join(NAMES_OF_ROLES)}.")
    return role


def _value(text: object) -> str:
    return as_text(text, "text of a turn")
