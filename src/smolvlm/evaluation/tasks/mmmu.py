"""MMMU (val): 900 college questions of 30 subjects, up to seven pictures each, one in twenty without options.

Source: arXiv 2311.16502; VLMEvalKit e8e78f0, MMMU_DEV_VAL (the validation rows); the hub's MMMU/MMMU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from ...errors import DataError
from ..layouts import Files, Record, literal_list, read_records
from ..messages import Part, ask_image, choice_message, lettered, options_of, rows_of
from ..scorers import Judge, Mode, Score, mmmu_open, multiple_choice
from ..task import Asked, Protocol, Row, Task

FILES = Files("MMMU_DEV_VAL", "mmmu", ("validation*.parquet", "**/validation*.parquet"), "MMMU/MMMU, lmms-lab/MMMU")
DISCIPLINES = {
    "Art & Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health & Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
    "Public_Health",
    "Humanities & Social Science": "History Literature Sociology Psychology",
    "Tech & Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
    "Materials Mechanical_Engineering",
}
_DISCIPLINE = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
_PLACE = "<image "


def read(directory: Path) -> Iterator[Row]:
    records = (_as_tsv(record) for record in read_records(directory, FILES))
    validation = (record for record in records if record.columns.get("split", "validation") == "validation")
    return rows_of(validation, groups={"discipline": "l2-category", "subject": "category"})


def ask(row: Row, protocol: Protocol) -> Asked:
    return ask_image(interleaved(choice_message(row), row.key), FILES.tsv, protocol)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    options, gold = options_of(row), str(row.fields["answer"])
    if not options:
        # VLMEvalKit's one right option is the cell as it stands, a list included.
        return mmmu_open(prediction, [gold] if mode == "vlmevalkit" else row.answers, mode, judge=judge)
    guess = Random(row.key) if mode == "official" else None  # MMMU's parser guesses; the same in every run
    return multiple_choice(prediction, options, gold, mode, judge=judge, random=guess)


def interleaved(message: Sequence[Part], key: str) -> list[Part]:
    """The message with each picture where its text says `<image 1>`; those that it doesn't mention are left out.

    A text that mentions none stays behind the pictures. Raises DataError for the number of a picture that isn't there.
    """
    *images, text = message
    first, *rest = str(text["value"]).split(_PLACE)
    if not rest:
        return list(message)
    parts: list[Part] = [{"type": "text", "value": first}]
    for segment in rest:
        number, bracket = segment[:1], segment[1:2]
        if bracket != ">" or number not in "123456789" or int(number) > len(images):
            raise DataError(f"Row {key}: '{_PLACE}{segment[:9]}' names none of its {len(images)} pictures.")
        parts += [images[int(number) - 1], {"type": "text", "value": segment[2:]}]
    return parts


def _as_tsv(record: Record) -> Record:
    """Of the hub: options in one column, the subject in the id, validation_Art_Theory_12."""
    columns = record.columns
    if "options" not in columns:
        return record
    split, _, rest = str(columns["id"]).partition("_")
    subject = rest.rpartition("_")[0]
    options = columns["options"]
    texts = options if isinstance(options, list) else literal_list(str(options)) or []
    added = {"index": columns["id"], "split": split, "category": subject, "l2-category": _DISCIPLINE.get(subject)}
    return replace(record, columns={**columns, **added, **lettered(texts)})


TASK = Task(
    name="mmmu",
    title="MMMU (val)",
    kind="image",
    metric="accuracy",
    read=read,
    ask=ask,
    score=score,
    groups=("discipline", "subject"),
)
