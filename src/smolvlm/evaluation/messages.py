"""A row's columns -> the message that VLMEvalKit's data sets build of it, and that message -> a request.

Columns have the names of its TSV files here, whatever layout they came from. Source: VLMEvalKit e8e78f0,
dataset/image_base.py, image_mcq.py and image_vqa.py; texts in prompts.toml.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import DataError
from ..media.image import open_image
from .layouts import Record, literal_list
from .prompts import prompt_texts
from .task import Asked, Protocol, Row
from .wrapper import written_prompt

if TYPE_CHECKING:
    from ..vlm.requests import AskRequest

MAX_NEW_TOKENS = 2048  # of VLMEvalKit's classes
NO_OPTION = "\0"  # in the place of an option that the file leaves out: no answer contains it

Part = Mapping[str, object]


def rows_of(
    records: Iterable[Record],
    *,
    needs: Sequence[str] = ("question", "answer"),
    key: str = "index",
    groups: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Records with the columns of a TSV -> rows.

    needs: columns that no row may leave empty. key: the column that tells rows apart; a row without it is called by
    its place. groups: breakdown -> its column.
    Raises DataError for a row without one of its columns or a picture, and for a key that comes twice.
    """
    seen: dict[str, str] = {}
    for record in records:
        columns = record.columns
        for name in needs:
            if columns.get(name) in (None, ""):
                raise DataError(f"{record.where}: the row has no {name}. What it has: {', '.join(columns)}.")
        if not record.images:
            raise DataError(f"{record.where}: the row has no picture. Add it, or take the row out.")
        name = str(record.number if columns.get(key) is None else columns[key])
        if name in seen:
            raise DataError(f"{record.where}: this row is called {name}, and so is {seen[name]}. Names must differ.")
        seen[name] = record.where
        found = {breakdown: texts_of(columns.get(column)) for breakdown, column in (groups or {}).items()}
        yield Row(
            key=name,
            question=str(columns["question"]),
            answers=texts_of(columns.get("answer")),
            images=record.images,
            fields=columns,
            groups={breakdown: of[0] if len(of) == 1 else of for breakdown, of in found.items() if of},
        )
    if not seen:
        raise DataError("The data set has no rows. Its files may be cut off: copy them again.")


def renamed(records: Iterable[Record], **names: str) -> Iterator[Record]:
    """Records with columns under the TSV's names. names: TSV's name -> the hub's, used where the TSV's isn't there."""
    for record in records:
        found = {name: record.columns[other] for name, other in names.items() if other in record.columns}
        yield replace(record, columns=found | dict(record.columns))


def with_letters(records: Iterable[Record], options: str) -> Iterator[Record]:
    """Records with the options of one column in A, B and so on, and an answer that counts from 0 as a letter."""
    for record in records:
        columns = dict(record.columns)
        texts = columns.pop(options, None)
        if isinstance(texts, list):
            columns |= lettered(texts)
            answer = str(columns.get("answer"))
            columns["answer"] = ascii_uppercase[int(answer)] if answer.isdigit() and int(answer) < 26 else answer
        yield replace(record, columns=columns)


def texts_of(cell: Any) -> tuple[str, ...]:
    """A text, a list, a list written out, or nothing -> texts."""
    if cell is None:
        return ()
    members = (literal_list(cell) or [cell]) if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
    return tuple(map(str, members))


def lettered(options: Iterable[Any]) -> dict[str, Any]:
    """Options of one column -> the columns A, B and so on."""
    return dict(zip(ascii_uppercase, options, strict=False))


def options_of(row: Row) -> list[str]:
    """The texts of the columns A, B and so on, up to the last there is."""
    texts = [row.fields.get(letter) for letter in ascii_uppercase]
    while texts and texts[-1] is None:
        texts.pop()
    return [NO_OPTION if text is None else str(text) for text in texts]


def choice_message(row: Row) -> list[Part]:
    """The pictures, then hint, question and options."""
    texts = prompt_texts("multiple_choice")
    hint, options = row.fields.get("hint"), options_of(row)
    text = texts["question"].format(question=row.question)
    if hint:
        text = texts["hint"].format(hint=hint) + text
    if options:
        shown = zip(ascii_uppercase, options, strict=False)
        listed = (texts["option"].format(letter=letter, text=option) for letter, option in shown if option != NO_OPTION)
        text += texts["options"] + "".join(listed) + texts["select"]
    return _behind_pictures(row, text)


def short_message(row: Row) -> list[Part]:
    """The pictures, then the question and the wish for a short answer."""
    return _behind_pictures(row, row.question + prompt_texts("short_answer")["after"])


def plain_message(row: Row) -> list[Part]:
    """The pictures, then the question."""
    return _behind_pictures(row, row.question)


def ask_image(message: Sequence[Part], dataset: str, protocol: Protocol) -> Asked:
    """The request of a message about pictures: greedy, pictures cut as the released models cut them.

    dataset: its name in VLMEvalKit. Raises ImageError for a picture that can't be decoded.
    """
    request: AskRequest = {"detail": "high", "max_new_tokens": protocol.max_new_tokens or MAX_NEW_TOKENS}
    if protocol.wrapper != "chat":
        prompt, sources = written_prompt(message, dataset, protocol.wrapper)
        return Asked(request | {"prompt": prompt, "images": [open_opaque(source) for source in sources]}, prompt)
    blocks: list[dict[str, object]] = [
        {"type": "image", "image": open_image(part["value"])}
        if part["type"] == "image"
        else {"type": "text", "text": str(part["value"])}
        for part in message
    ]
    if blocks[-1]["type"] == "text":
        blocks[-1]["text"] = str(blocks[-1]["text"]).rstrip()
    prompt = "".join("<image>" if block["type"] == "image" else str(block["text"]) for block in blocks)
    return Asked(request | {"messages": [{"role": "user", "content": blocks}]}, prompt)


def open_opaque(source: object) -> Image.Image:
    """The picture as the harness and transformers open it: transparency is forgotten, not laid on white."""
    picture = open_image(source, quirks=True)
    picture.info.pop("transparency", None)  # it would be laid on white when the picture is handed on
    return picture


def _behind_pictures(row: Row, text: str) -> list[Part]:
    return [*({"type": "image", "value": image} for image in row.images), {"type": "text", "value": text}]
