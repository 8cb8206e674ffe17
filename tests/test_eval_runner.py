"""The runner: records as they were asked, a bad row that harms no other, kills that lose and repeat nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import smolvlm
from smolvlm.errors import DataError, InputError
from smolvlm.evaluation.folder import RECORDS, RunFolder
from smolvlm.evaluation.ranks import Share, share_of
from smolvlm.evaluation.records import Record, RecordFile, read_records, write_records
from smolvlm.evaluation.runner import Asking, answer, evaluate, survey
from smolvlm.evaluation.task import Asked, Protocol, Row, Task
from smolvlm.evaluation.tasks.nano import TASKS
from tests.parrot import NOWHERE, SETTINGS, Parrot, asking, numbered, task_of

REPOSITORY = Path(__file__).resolve().parents[1]
ROWS = numbered(23)


def run(folder: Path, rows: list[Row], limit: int | None = None, *, share: Share | None = None) -> list[str]:
    """What the model was asked, in the rows' order. share: without it the run is ended, too."""
    parrot, task = Parrot(), task_of(rows)
    surveyed = {task.name: survey(task, NOWHERE, limit)}
    run_folder = RunFolder(folder, SETTINGS)
    evaluate(asking(parrot, batch_size=4), [task], surveyed, NOWHERE, run_folder, share=share)
    if share is None:
        run_folder.finish(surveyed)
    return sorted(parrot.asked, key=lambda question: int(question.split()[1]))  # two batches are asked at a time


def keys(folder: Path) -> list[str]:
    return [record.key for record in read_records(folder / RECORDS)]


# ---- records ----


def test_a_record_holds_what_was_asked_what_came_back_and_its_score() -> None:
    vlm, task = smolvlm.load(), TASKS["nano-video"]
    rows = survey(task, NOWHERE, 5)
    records = [record for batch in answer(Asking(vlm, Protocol(), batch_size=2), task, rows) for record in batch]
    assert [record.key for record in records] == [row.key for row in rows]
    for record, row in zip(records, rows, strict=True):
        asked = task.ask(row, Protocol())
        told = vlm.ask(**asked.request)
        assert (record.output, record.prompt_tokens, record.new_tokens) == (
            told.text, told.prompt_tokens, len(told.token_ids),
        )  # fmt: skip
        assert record.tiles == len(record.frames_s) and record.frames_s == told.frames[0].timestamps_s
        assert record.prompt == f"<video>{row.question}" and record.references == row.answers
        assert record.score == float(told.text.strip() == row.answers[0])
        assert record.status == "ok" and record.finish_reason == "stop"


def test_a_record_survives_its_file_whatever_is_in_it(tmp_path: Path) -> None:
    odd = Record(
        "t", "1", 'a\n"b"\u2028\ud800', ("ä", "図"), {"a": "b", "many": ("c", "d")}, "<image>", 1, 2, 3, 4, (0.0, 1.5),
        "</script>\x00", "stop", "p", 0.3, "undecided", "why",
    )  # fmt: skip
    write_records(tmp_path / RECORDS, [odd, replace(odd, key="2")])
    assert read_records(tmp_path / RECORDS) == [odd, replace(odd, key="2")]
    assert "図" in (tmp_path / RECORDS).read_text(encoding="utf-8")


def test_a_half_written_last_line_is_dropped_and_a_damaged_line_before_it_named(tmp_path: Path) -> None:
    record, path = Record("t", "1", "q", ("a",)), tmp_path / RECORDS
    write_records(path, [record])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert read_records(path) == [record]
    file = RecordFile(path)
    file.add([replace(record, key="2")])
    file.close()
    assert [one.key for one in read_records(path)] == ["1", "2"]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataError, match=r"Line 1 of .*records.jsonl is no record"):
        read_records(path)


def test_one_process_at_a_time_writes_a_file_of_records(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / RECORDS)
    with pytest.raises(InputError, match="written to by another process"):
        RecordFile(tmp_path / RECORDS)
    file.close()
    RecordFile(tmp_path / RECORDS).close()


# ---- rows that can't be asked ----


def test_a_row_that_cannot_be_asked_is_told_and_harms_no_other() -> None:
    rows = [*numbered(3), Row("b", "bad", ("bad",)), *[replace(row, key=f"{row.key}+") for row in numbered(3)]]
    (records,) = answer(asking(batch_size=9), task_of(rows), rows)
    assert [record.status for record in records] == ["ok"] * 3 + ["failed"] + ["ok"] * 3
    assert (records[3].score, records[3].reason) == (0.0, "This can't be asked: bad")
    assert [record.output for record in records[:3]] == [row.question for row in rows[:3]]


def test_a_missing_picture_a_damaged_clip_and_too_long_a_prompt_are_failed_samples(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video at all" * 99)
    requests = {
        "missing": {"question": "What?", "images": [tmp_path / "away.png"]},
        "damaged": {"question": "What?", "videos": [tmp_path / "clip.mp4"]},
        "long": {"question": "word " * 9000},
        "fine": {"question": "Who are you?"},
    }
    rows = [Row(name, name, ("x",)) for name in requests]
    task = replace(task_of(rows), ask=lambda row, protocol: Asked(requests[row.key], row.key))  # type: ignore[arg-type]
    records = {one.key: one for batch in answer(Asking(smolvlm.load(), Protocol()), task, rows) for one in batch}
    assert {name: one.status for name, one in records.items()} == dict.fromkeys(requests, "failed") | {"fine": "ok"}
    assert "away.png" in records["missing"].reason
    assert "clip.mp4" in records["damaged"].reason
    assert "tokens" in records["long"].reason


def test_a_row_that_its_task_cannot_turn_into_a_request_or_score_is_a_failed_sample() -> None:
    def refuse(*_: object) -> None:
        raise InputError("The answer is none of the choices.")

    rows = numbered(2)
    for task, reason in (
        (replace(task_of(rows), ask=refuse), "The answer is none"),
        (replace(task_of(rows), score=refuse), "It can't be scored: The answer is none"),
    ):
        (records,) = answer(asking(), task, rows)
        assert [one.status for one in records] == ["failed"] * 2 and records[0].reason.startswith(reason)


def test_rows_without_keys_of_their_own_and_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="Two rows of told have the key '0'"):
        survey(task_of([*numbered(1), *numbered(1)]), NOWHERE)
    with pytest.raises(DataError, match="told has no rows in nowhere"):
        survey(task_of([]), NOWHERE)


# ---- interruptions ----


@pytest.mark.parametrize("kept", [0, 1, 7, 22, 23])
def test_a_run_that_goes_on_asks_what_is_missing_and_ends_the_same(kept: int, tmp_path: Path) -> None:
    run(tmp_path / "whole", ROWS)
    whole = (tmp_path / "whole" / RECORDS).read_bytes()
    run(tmp_path / "cut", ROWS[:1], 1)
    lines = whole.split(b"\n")
    (tmp_path / "cut" / RECORDS).write_bytes(b"\n".join(lines[:kept] + [lines[kept][:9]]))
    assert run(tmp_path / "cut", ROWS) == [row.question for row in ROWS[kept:]]
    assert (tmp_path / "cut" / RECORDS).read_bytes() == whole


def test_a_run_grows_with_its_limit_and_keeps_the_rows_order(tmp_path: Path) -> None:
    run(tmp_path, ROWS, 5)
    assert run(tmp_path, ROWS, 12) == [row.question for row in ROWS[5:12]]
    assert keys(tmp_path) == [row.key for row in ROWS[:12]]
    with pytest.raises(InputError, match="holds an answer to row '5' of told, which isn't asked now"):
        run(tmp_path, ROWS, 5)


@pytest.mark.parametrize("change", [{"question": "another"}, {"answers": ("another",)}])
def test_a_run_is_not_gone_on_with_when_its_data_changed(change: dict[str, object], tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    with pytest.raises(InputError, match="Row '4' of told isn't what it was"):
        run(tmp_path, [replace(row, **change) if row.key == "4" else row for row in ROWS])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dtype": "int8"}, "dtype 'float32', and now it is 'int8'"),
        ({"weights": "1"}, "weights '0', and now it is '1'"),
        ({"prompts": "1"}, "prompts '0', and now it is '1'"),
        ({"protocol": Protocol(frames=8)}, "frames 64, and now it is 8"),
        ({"judge": "m at u"}, "judge '', and now it is 'm at u'"),
    ],
)
def test_a_run_is_not_gone_on_with_by_other_settings(change: dict[str, object], told: str, tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    with pytest.raises(InputError, match=told):
        RunFolder(tmp_path, replace(SETTINGS, **change))  # type: ignore[arg-type]
    RunFolder(tmp_path, replace(SETTINGS, model="another name of the same"))


def test_a_folder_of_something_else_and_one_that_cannot_be_written_to_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("Preface")
    with pytest.raises(InputError, match=r"holds other things \(thesis.tex\) and no run"):
        RunFolder(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="can't be kept in"):
        RunFolder(tmp_path / "thesis.tex" / "run", SETTINGS)
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(DataError, match="no run of `smolvlm eval`"):
        RunFolder(tmp_path, SETTINGS)


KILLED = """
import sys
from pathlib import Path
from tests.parrot import NOWHERE, SETTINGS, Parrot, asking, numbered, task_of
from smolvlm.evaluation.folder import RunFolder
from smolvlm.evaluation.runner import evaluate, survey

task = task_of(numbered(240))
surveyed = {task.name: survey(task, NOWHERE)}
folder = RunFolder(Path(sys.argv[1]), SETTINGS)
evaluate(asking(Parrot(3_000, 0.012), batch_size=2), [task], surveyed, NOWHERE, folder)
folder.finish(surveyed)
"""  # long answers, so that some kills come while a line is being written


def test_a_run_that_is_killed_ten_times_ends_with_the_same_records_none_twice(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}

    def start(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / folder)], env=environment)

    assert start("whole").wait(timeout=120) == 0
    rng, records = random.Random(5), tmp_path / "killed" / RECORDS
    seen = [0]
    for _ in range(10):
        process = start("killed")
        while process.poll() is None and (records.stat().st_size if records.exists() else 0) <= seen[-1]:
            time.sleep(0.002)  # until it has gone on
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL, "it ended before it was killed: give it more rows"
        seen.append(records.stat().st_size)
    assert sorted(set(seen)) == seen
    assert start("killed").wait(timeout=120) == 0
    assert records.read_bytes() == (tmp_path / "whole" / RECORDS).read_bytes()
    assert len(set(keys(tmp_path / "killed"))) == len(keys(tmp_path / "killed")) == 240


# ---- several processes ----


@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_of_several_processes_join_to_the_records_of_one(ranks: int, tmp_path: Path) -> None:
    run(tmp_path / "one", ROWS)
    folder = tmp_path / "shared"
    for rank in range(ranks):
        asked = run(folder, ROWS, share=Share(rank, ranks))
        assert asked == [row.question for row in ROWS[rank::ranks]]
    assert sorted(path.name for path in folder.glob("records*")) == [f"records.{rank}.jsonl" for rank in range(ranks)]
    assert run(folder, ROWS) == []
    assert [path.name for path in folder.glob("records*")] == [RECORDS]
    assert (folder / RECORDS).read_bytes() == (tmp_path / "one" / RECORDS).read_bytes()


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    run(tmp_path / "one", ROWS)
    folder = tmp_path / "shared"
    run(folder, ROWS[:9], share=Share(1, 3))
    torn = folder / "records.1.jsonl"
    torn.write_bytes(torn.read_bytes()[:-30])
    first = run(folder, ROWS, share=Share(0, 2))
    second = run(folder, ROWS, share=Share(1, 2))
    assert set(first) | set(second) == {row.question for row in ROWS} - {ROWS[1].question, ROWS[4].question}
    assert run(folder, ROWS) == []
    assert (folder / RECORDS).read_bytes() == (tmp_path / "one" / RECORDS).read_bytes()


def test_torchrun_says_which_rows_are_whose() -> None:
    assert share_of({}) == Share(0, 1)
    assert share_of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Share(5, 8, 1)
    for wrong in ({"RANK": "8", "WORLD_SIZE": "8"}, {"RANK": "one", "WORLD_SIZE": "8"}):
        with pytest.raises(InputError, match="RANK"):
            share_of(wrong)


def test_every_settings_file_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    run(tmp_path, ROWS, 1)
    assert json.loads((tmp_path / "settings.json").read_text())["protocol"]["wrapper"] == "smolvlm2"


def test_two_tasks_keep_their_order_in_one_file(tmp_path: Path) -> None:
    tasks: list[Task] = [task_of(numbered(5), name) for name in ("second", "first")]
    surveyed = {task.name: survey(task, NOWHERE) for task in tasks}
    folder = RunFolder(tmp_path, SETTINGS)
    evaluate(asking(batch_size=2), tasks, surveyed, NOWHERE, folder)
    assert [record.place for record in folder.finish(surveyed)] == [
        (name, f"{number}") for name in ("second", "first") for number in range(5)
    ]
