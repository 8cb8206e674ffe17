"""The folder that a run lives in: settings.json, records.jsonl, summary.json, report.html.

Records of different settings never mix: a folder is gone on with when what is asked now is what it holds, or more of
it, and refused else. Processes that share a run write records.<rank>.jsonl, joined when all are done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import DataError, InputError, SmolVLMError
from .ranks import Share
from .records import Record, RecordFile, read_records, write_records
from .settings import Settings
from .task import Row

SETTINGS, RECORDS, SUMMARY, REPORT = "settings.json", "records.jsonl", "summary.json", "report.html"
POLL_S = 0.2
PATIENCE_S = 3600.0  # for one more record of another process

Place = tuple[str, str]
Surveyed = Mapping[str, Sequence[Row]]


class RunFolder:
    """A folder that belongs to runs with these settings, made when it isn't there.

    Raises InputError when it can't be written to, holds something else, or a run with other settings.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        wanted = asdict(settings)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / SETTINGS).exists():
                if others := sorted(one.name for one in path.iterdir() if not one.name.startswith(SETTINGS)):
                    raise InputError(
                        f"{path} holds other things ({', '.join(others[:3])}) and no run. Give a new folder."
                    )
                new = path / f"{SETTINGS}.{os.getpid()}"  # processes that start together write the same
                new.write_text(json.dumps(wanted, indent=2) + "\n")
                new.replace(path / SETTINGS)
        except OSError as error:
            raise InputError(f"The run can't be kept in {path}: {error.strerror or error}.") from error
        _refuse_changes(path, read_settings(path), wanted)

    def records(self, surveyed: Surveyed) -> dict[Place, Record]:
        """All there are, each once. Raises InputError when one belongs to none of these rows: the data changed."""
        rows = {(task, row.key): row for task, found in surveyed.items() for row in found}
        found: dict[Place, Record] = {}
        for file in self._files():
            for record in read_records(file):
                found.setdefault(record.place, record)
        for place, record in found.items():
            row = rows.get(place)
            if row is None:
                raise InputError(
                    f"{self.path} holds an answer to row {place[1]!r} of {place[0]}, which isn't asked now. Give the "
                    "same tasks, data and at least the same --limit to go on, or another --output."
                )
            if (row.question, row.answers) != (record.question, record.references):
                raise InputError(
                    f"Row {place[1]!r} of {place[0]} isn't what it was when {self.path} was begun: its question or its "
                    "answer changed. Give another --output."
                )
        return found

    def open_records(self, share: Share) -> RecordFile:
        return RecordFile(self.path / (RECORDS if share.ranks == 1 else f"records.{share.rank}.jsonl"))

    def finish(self, surveyed: Surveyed) -> list[Record]:
        """Wait for the records of all processes, put them in the rows' order into records.jsonl, and return them."""
        places = [(task, row.key) for task, rows in surveyed.items() for row in rows]
        found = self.wait(surveyed)
        records = [found[place] for place in places]
        write_records(self.path / RECORDS, records)
        for file in self._files():
            if file.name != RECORDS:
                file.unlink()
        return records

    def speed(self, latest: Mapping[str, float]) -> Mapping[str, Any]:
        """Samples asked, seconds, samples a second: of this run, or of the last that asked any.

        latest: {"asked", "seconds"} of this run.
        """
        if not latest["asked"] and (self.path / SUMMARY).is_file():
            known = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
            return {name: known.get(name) for name in ("asked", "seconds", "samples_per_s")}
        return {**latest, "samples_per_s": round(latest["asked"] / latest["seconds"], 3)}

    def wait(self, surveyed: Surveyed) -> dict[Place, Record]:
        """The records of all rows, when all processes have written theirs."""
        count = sum(map(len, surveyed.values()))
        found, sizes, last = self.records(surveyed), self._sizes(), time.monotonic()
        while len(found) < count:
            time.sleep(POLL_S)
            if sizes != (now := self._sizes()):
                found, sizes, last = self.records(surveyed), now, time.monotonic()
            elif time.monotonic() - last > PATIENCE_S:
                raise SmolVLMError(
                    f"{count - len(found)} of {count} records are missing, and none came for {PATIENCE_S / 60:.0f} "
                    "minutes: a process must have ended. Run it again to go on."
                )
        return found

    def _sizes(self) -> list[int]:
        return [file.stat().st_size for file in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("records*.jsonl"))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run. Raises DataError when the folder holds none."""
    try:
        found: dict[str, Any] = json.loads((path / SETTINGS).read_text())
        found["protocol"] = dict(found["protocol"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is no run of `smolvlm eval`: its {SETTINGS} is missing or another program's. Give the folder that "
            "was its --output."
        ) from error
    return found


def _refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = (_flat(one) for one in (before, now))
    for name, value in new.items():
        if name not in ("model", "adapter") and old.get(name) != value:
            raise InputError(
                f"{path} holds a run with {name} {old.get(name)!r}, and now it is {value!r}: their answers must not be "
                "mixed. Give what was given then to go on, or another --output."
            )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "protocol"} | dict(settings["protocol"])
