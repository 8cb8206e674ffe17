"""What the server of DocVQA's test set takes, from the answers of a run: `python -m smolvlm.evaluation.harness.docvqa`.

The test set's references aren't public; rrc.cvc.uab.es (Document Visual Question Answering, task 1) scores an upload of
[{"questionId": 1, "answer": "text"}, ...] with one entry a question.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from ...errors import DataError, MissingDependencyError, SmolVLMError
from ..records import read_records

TASK = "docvqa-test"
IDS = ("questionId", "index")  # VLMEvalKit's file calls a question by its row where it has no other name


def write_submission(predictions: Path, submission: Path) -> int:
    """Write the upload. Returns how many questions it answers.

    predictions: records.jsonl of `smolvlm eval --tasks docvqa-test`, or the .xlsx, .tsv or .json that VLMEvalKit writes
    for DocVQA_TEST. A question without an answer gets an empty one.
    Raises DataError for a file that holds something else, and for a question that comes twice.
    """
    answers: dict[int | str, str] = {}
    for name, answer in _predictions(predictions):
        key = int(name) if name.isdigit() else name
        if key in answers:
            raise DataError(f"{predictions} answers question {name} twice: the server takes one answer a question.")
        answers[key] = answer.strip()
    if not answers:
        raise DataError(f"{predictions} holds no answers to DocVQA's test set ({TASK}).")
    entries = [{"questionId": key, "answer": answer} for key, answer in answers.items()]
    submission.write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return len(entries)


def main() -> None:
    """Read the command line: predictions and the file to write."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m smolvlm.evaluation.harness.docvqa PREDICTIONS SUBMISSION.json")
    try:
        write_submission(Path(sys.argv[1]), Path(sys.argv[2]))
    except (SmolVLMError, OSError) as error:
        sys.exit(f"smolvlm: error: {error}")


def _predictions(file: Path) -> Iterator[tuple[str, str]]:
    """Question and answer of each row."""
    if file.suffix == ".jsonl":
        for record in read_records(file):
            if record.task == TASK:
                yield record.key, record.output
        return
    readers = {".xlsx": _sheet, ".tsv": _table, ".json": _list}
    if file.suffix not in readers:
        raise DataError(f"{file} can't be read: give a records.jsonl, or VLMEvalKit's {', '.join(readers)}.")
    try:
        rows = list(readers[file.suffix](file))
    except (ValueError, BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}): let VLMEvalKit write it again.") from error
    for number, row in enumerate(rows, 1):
        name = next((row[column] for column in IDS if row.get(column) not in (None, "")), None)
        if name is None or "prediction" not in row:
            raise DataError(
                f"Row {number} of {file} needs a prediction and one of {' and '.join(IDS)}; it has {[*row]}."
            )
        yield str(name), str(row["prediction"] or "")


def _sheet(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import openpyxl
    except ImportError as error:
        raise MissingDependencyError(f"{file.name} is a spreadsheet, which needs: pip install openpyxl") from error
    rows = openpyxl.load_workbook(file, read_only=True).active.iter_rows(values_only=True)
    names = [str(name) for name in next(rows, ())]
    for row in rows:
        yield dict(zip(names, row, strict=True))


def _table(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t")


def _list(file: Path) -> Iterator[Mapping[str, Any]]:
    yield from json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
