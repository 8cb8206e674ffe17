"""`smolvlm eval` as users run it: a run and its files, plans, comparisons, twins, and what is typed wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import smolvlm
from smolvlm.cli import main
from smolvlm.evaluation.records import read_records
from smolvlm.evaluation.tasks import TASKS
from smolvlm.evaluation.tasks.nano import ROWS
from smolvlm.evaluation.twins import TWINS, draw_twin
from smolvlm.scenes import draw
from tests.commands import Outcome, process, run

NANO = Path(smolvlm.__file__).parent / "assets" / "nano"
IMAGES = "mathvista,mmmu,ocrbench,mmstar,ai2d,chartqa,scienceqa,textvqa,docvqa"
VIDEOS = "videomme,mlvu,mvbench,worldsense,tempcompass"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows of every official layout."""
    directory = tmp_path_factory.mktemp("data")
    for name in TWINS:
        draw_twin(name, directory, 3)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert main(["eval", "--tasks", "nano-read,nano-scenes", "--limit", "6", "--output", str(folder), "--quiet"]) == 0
    return folder


def cells(outcome: Outcome) -> dict[str, list[str]]:
    """First column -> the others, of a printed table."""
    rows = [re.split(r"\s{2,}", line) for line in outcome.out.partition("\n\n")[0].splitlines()]
    return {row[0]: row[1:] for row in rows}


# ---- a run ----


def test_a_run_prints_scores_and_keeps_records_summary_and_page(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run again, nothing is asked and the same is told."""
    before = (finished / "records.jsonl").read_bytes()
    outcome = run(capsys, ["eval", "--tasks", "nano-read,nano-scenes", "--limit", "6", "--output", str(finished)])
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.endswith(f"\n{finished / 'report.html'}\n")
    records, found = read_records(finished / "records.jsonl"), json.loads((finished / "summary.json").read_text())
    assert (finished / "records.jsonl").read_bytes() == before
    assert [record.task for record in records] == ["nano-read"] * 6 + ["nano-scenes"] * 6
    vlm = smolvlm.load()
    for task in found["tasks"]:
        right = [record.score for record in records if record.task == task["task"]]
        assert task["figure"]["score"] == pytest.approx(sum(right) / 6)
        assert cells(outcome)[task["task"]][0] == f"{100 * sum(right) / 6:.1f}"
    assert (found["model"], found["runtime"], found["dtype"]) == ("nano", vlm.runtime, vlm.dtype)
    assert found["longest_edge"] == 256 and found["asked"] == 12 and found["samples_per_s"] > 0
    assert len(found["prompts"]) == 64 and found["protocol"]["mode"] == "vlmevalkit"


def test_two_processes_write_the_records_of_one(finished: Path, tmp_path: Path) -> None:
    words = ("eval", "--tasks", "nano-read,nano-scenes", "--limit", "6", "--output", tmp_path / "two", "--jobs", "2")
    command = process(*words, "--batch-size", "2")
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err.decode()
    assert out.count(b"nano-read") == 1 and err == b""
    assert (tmp_path / "two" / "records.jsonl").read_bytes() == (finished / "records.jsonl").read_bytes()
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["processes"] == 2


def test_when_one_of_several_processes_fails_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--tasks", "nano-read", "--limit", "2", "--jobs", "2", "--output", str(tmp_path / "run")]
    outcome = run(capsys, [*words, "--model", str(tmp_path)])
    assert outcome.code == 1 and "The evaluation stopped: process 0" in outcome.error


@pytest.mark.parametrize(
    ("name", "tasks"), [("SmolVLM-256M-Instruct", IMAGES), ("SmolVLM2-500M-Video-Instruct", VIDEOS)]
)
def test_published_figures_stand_beside_ours_for_every_task_of_the_tables(
    name: str, tasks: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(NANO, tmp_path / name)
    words = ["eval", "--tasks", tasks, "--data", str(data), "--model", str(tmp_path / name), "--published"]
    outcome = run(capsys, [*words, "--output", str(tmp_path / "run")])
    assert outcome.code == 0 and outcome.err == ""
    told = cells(outcome)
    assert list(told)[1:] == tasks.split(",")
    assert all(float(told[task][6].split()[0]) > 0 for task in tasks.split(","))
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["protocol"]["wrapper"] == ("smolvlm" if name.startswith("SmolVLM-") else "smolvlm2")
    assert {one["task"]: one["published"] for one in found["tasks"]}.keys() == set(tasks.split(","))
    assert {record.status for record in read_records(tmp_path / "run" / "records.jsonl")} <= {
        "ok",
        "undecided",
        "empty",
    }
    shown = (tmp_path / "run" / "report.html").read_text()
    assert "published" in shown and "data:image/jpeg" in shown


def test_options_of_the_protocol_reach_the_prompts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--tasks", "videomme,mmstar", "--data", str(data), "--limit", "1", "--answer-tokens", "2"]
    words += ["--output", str(tmp_path / "run"), "--frames", "3", "--frame-rate", "even", "--mode", "strict"]
    assert run(capsys, words).code == 0
    video, picture = read_records(tmp_path / "run" / "records.jsonl")
    assert len(video.frames_s) == video.prompt.count("<image>") == 3
    assert video.new_tokens <= 2 and picture.new_tokens <= 2


def test_failed_samples_are_told_and_a_task_without_any_other_fails(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def videos(folder: Path) -> list[Path]:
        shutil.copytree(data / "Video-MME", folder / "Video-MME")
        return sorted((folder / "Video-MME").rglob("*.mp4"))

    def outcome_of(folder: Path) -> Outcome:
        return run(capsys, ["eval", "--tasks", "videomme", "--data", str(folder), "--output", str(folder / "run")])

    one, every = tmp_path / "one", tmp_path / "every"
    damaged = videos(one)[0]
    for video in (damaged, *videos(every)):
        video.write_bytes(b"this is no video")
    outcome = outcome_of(one)
    (failed,) = [record for record in read_records(one / "run" / "records.jsonl") if record.status == "failed"]
    assert outcome.code == 0 and damaged.name in failed.reason
    assert "smolvlm: warning: 1 of 3 samples of videomme failed and count as 0" in outcome.err
    outcome = outcome_of(every)
    assert outcome.code == 1 and "3 of 3 samples of videomme failed" in outcome.err


def test_a_judge_that_is_down_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--tasks", "tempcompass", "--data", str(data), "--output", str(tmp_path / "run")]
    outcome = run(capsys, [*words, "--judge", "http://127.0.0.1:9/v1", "--judge-model", "gpt"])
    assert outcome.code == 0
    assert "are undecided, for the judge gpt at http://127.0.0.1:9/v1 didn't answer" in outcome.err
    assert "undecided" in {one.status for one in read_records(tmp_path / "run" / "records.jsonl")}


# ---- without a run ----


def test_the_list_has_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, ["eval", "--list"])
    assert [line.split()[0] for line in outcome.out.splitlines()] == list(TASKS)


def test_a_plan_of_all_rows_counts_the_tokens_that_the_run_then_reads(
    finished: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--tasks", "nano-read,nano-scenes", "--limit", "6", "--plan", "--rate", "2"]
    told = cells(run(capsys, words))
    records = read_records(finished / "records.jsonl")
    for task in ("nano-read", "nano-scenes"):
        tokens = sum(record.prompt_tokens for record in records if record.task == task)
        assert told[task][:2] == ["6", f"{tokens:,}"]
        assert told[task][4] in (f"{tokens / 2:.0f} s", f"{tokens / 120:.0f} min")
    assert told["together"][0] == "12"
    measured = run(capsys, ["eval", "--tasks", "nano-read,docvqa", "--data", str(data), "--plan"])
    assert "Time: from 4 samples of each task, answered here by VLM('nano'" in measured.out
    assert all(float(cells(measured)[task][3].replace(",", "")) > 0 for task in ("nano-read", "docvqa"))


def test_a_plan_extrapolates_from_rows_that_are_evenly_spread(capsys: pytest.CaptureFixture[str]) -> None:
    told = cells(run(capsys, ["eval", "--tasks", "nano-chart", "--plan", "--rate", "1000"]))["nano-chart"]
    assert told[0] == str(ROWS) and 30 * ROWS < int(told[1].replace(",", "")) < 120 * ROWS


def test_a_comparison_prints_a_table_and_writes_a_page(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "int4"
    words = ["eval", "--tasks", "nano-read,nano-scenes", "--limit", "6", "--output", str(other), "--dtype", "int4"]
    assert run(capsys, words).code == 0
    outcome = run(capsys, ["eval", "diff", str(finished), str(other), "--output", str(tmp_path / "page.html")])
    assert outcome.out.endswith(f"\n{tmp_path / 'page.html'}\n") and (tmp_path / "page.html").is_file()
    assert [cells(outcome)[task][0] for task in ("nano-read", "nano-scenes")] == ["6", "6"]
    assert run(capsys, ["eval", "diff", str(finished), str(other)]).out.endswith(f"{other / 'diff.html'}\n")


def test_twins_of_every_layout_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, ["eval", "--draw", str(tmp_path), "--limit", "1"])
    assert outcome.code == 0 and len(outcome.out.splitlines()) == len(TWINS)
    assert (tmp_path / "MMStar.tsv").is_file()


# ---- what is typed wrong ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs --tasks NAME,..."),
        (["--tasks", "nano-read"], "needs --output DIR, where the run lives; or --plan"),
        (["--tasks", "nano-raed", "--output", "run"], "There is no task 'nano-raed'. Did you mean nano-read"),
        (["--tasks", "a,a"], "argument --tasks: a is named twice"),
        (["--tasks", "mmstar", "--output", "run", "--data", "."], "Looked for MMStar.tsv"),
        (["--tasks", "nano-read", "--output", "file.txt"], "The run can't be kept in file.txt"),
        (["--tasks", "nano-read", "--output", "."], ". holds other things (file.txt) and no run"),
        (["--tasks", "nano-read", "--output", "run", "--judge", "http://x"], "--judge-model NAME belong together"),
        (["--tasks", "nano-read", "--output", "r", "--published", "--frames", "8"], "is a protocol of its own"),
        (["--tasks", "nano-read", "--frame-rate", "0"], "argument --frame-rate: 0 can't be used"),
        (["diff", "one"], "two runs are compared by `smolvlm eval diff RUN RUN`"),
        (["nano-read"], "tasks are named by --tasks"),
        (["diff", ".", "."], ". is no run of `smolvlm eval`"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_its_cure(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    outcome = run(capsys, ["eval", *words])
    assert message in outcome.error
    assert outcome.code == 2


def test_data_sets_are_looked_for_where_vlmevalkit_keeps_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMUData", str(data))
    assert "mmstar" in cells(run(capsys, ["eval", "--tasks", "mmstar", "--plan", "--rate", "1"]))
    monkeypatch.delenv("LMUData")
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = run(capsys, ["eval", "--tasks", "mmstar", "--plan", "--rate", "1"])
    assert f"There is no MMStar under {tmp_path / 'LMUData'}" in outcome.error


# ---- the bundled model's own sets ----


def test_drawn_sets_ask_about_scenes_that_training_never_shows() -> None:
    counted = list(TASKS["nano-count"].read(Path()))
    assert len(counted) == ROWS == len({row.key for row in counted})
    for row in counted[:9]:
        turns = [turn for turn in draw("scene", 0, int(row.key), "test").turns if turn.kind == row.groups["kind"]]
        assert (row.question, row.answers[0]) in [(turn.question, turn.answer) for turn in turns]
        assert row.groups["kind"].startswith("count_")  # type: ignore[union-attr]


def test_drawn_sets_are_scored_by_exact_equality() -> None:
    task = TASKS["nano-read"]
    row = next(iter(task.read(Path())))
    for said, value, status in (
        (f" {row.answers[0]}\n", 1.0, "ok"), (row.answers[0].lower(), 0.0, "ok"), ("", 0.0, "empty"),
    ):  # fmt: skip
        found = task.score(said, row, "strict", None)
        assert (found.value, found.status) == (value, status)


# ---- training ----


def test_a_checkpoint_is_chosen_by_tasks(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.jsonl").write_text('{"question": "Who are you?", "answer": "nano"}\n')
    (tmp_path / "r.toml").write_text(
        f'name = "r"\nstart = "nano"\nsteps = 1\nsamples_per_step = 1\nevaluate_every = 1\n[[data]]\n'
        f'path = "{tmp_path / "notes.jsonl"}"\n[adapter]\nr = 2\ntarget_modules = ["text.q_proj"]\n'
    )
    words = ["train", str(tmp_path / "r.toml"), "--output", str(tmp_path / "run"), "--workers", "0"]
    chosen = ["--score-tasks", "nano-read,docvqa", "--score-data", str(data)]
    assert "--score-tasks needs --score N" in run(capsys, [*words, *chosen]).error
    assert "There is no task 'x'" in run(capsys, [*words, "--score", "3", "--score-tasks", "x"]).error
    assert run(capsys, [*words, "--score", "3", *chosen]).code == 0
    (history,) = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert list(history["scores"]) == ["nano-read", "docvqa"]
    told = run(capsys, ["eval", "--tasks", "nano-read,docvqa", "--data", str(data), "--limit", "3", "--adapter",
                        str(tmp_path / "run" / "checkpoint"), "--output", str(tmp_path / "eval")])  # fmt: skip
    for task, score in history["scores"].items():
        assert cells(told)[task][0] == f"{100 * score:.1f}"
