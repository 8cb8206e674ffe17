"""The commands on videos: what they print and write, what they refuse, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import smolvlm
from smolvlm.highlights import Index, build_index, find_highlights, propose_criteria, read_record, write_record
from smolvlm.highlights.propose import OF_ANY_VIDEO
from smolvlm.types import Features
from smolvlm.vlm import VLM
from tests.commands import run
from tests.eventful import Eventful, overlap, write_eventful
from tests.limits import files_of_at_most

MOVES, APPEARS = "Does anything move?", "Does anything appear?"


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Eventful:
    return write_eventful(tmp_path_factory.mktemp("film") / "film.mp4", (None, "move", None, "appear", None))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def index(vlm: VLM, film: Eventful, cache: Path) -> Index:
    return build_index(vlm, film.path, cache=cache)


def test_a_reel_is_cut_and_cut_again_without_the_model(
    film: Eventful, index: Index, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    reel = tmp_path / "reel.mp4"
    words = ["highlights", str(film.path), "--criteria", MOVES, "--cache", str(cache), "--encode", "-o", str(reel)]
    outcome = run(capsys, words)
    assert outcome.code == 0, outcome.err
    suffixes = (".mp4", ".highlights.json", ".vtt", ".xspf", ".edl", ".png", ".html")
    assert all(reel.with_suffix(suffix).stat().st_size for suffix in suffixes)
    record = read_record(reel.with_suffix(".highlights.json"))
    assert len(record.segments) == 1 and record.facts["criteria"] == [MOVES]
    monkeypatch.setattr("smolvlm.vlm.load", lambda *_, **__: pytest.fail("the model was loaded"))
    again = tmp_path / "again.mp4"
    words = ["highlights", "--from", str(reel.with_suffix(".highlights.json")), "--padding", "0", "-o", str(again)]
    assert run(capsys, words).code == 0
    assert read_record(again.with_suffix(".highlights.json")).facts["selection"]["padding_s"] == 0


def test_a_record_of_another_hand_or_of_a_video_that_is_gone_says_what_is_missing(
    film: Eventful, vlm: VLM, index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_highlights(vlm, index, criteria=MOVES)
    record = tmp_path / "own.highlights.json"
    write_record(record, found.segments, found.curve, found.facts())
    words = ["highlights", "--from", str(record), "-o", str(tmp_path / "reel.mp4")]
    assert "holds no 'source'" in run(capsys, words).error
    write_record(record, found.segments, found.curve, {**found.facts(), "source": str(tmp_path / "gone.mp4")})
    outcome = run(capsys, words)
    assert outcome.code == 2 and "There is no file" in outcome.err and "gone.mp4" in outcome.err
    assert [one.name for one in tmp_path.iterdir()] == [record.name]


def test_a_run_that_is_stopped_goes_on_with_the_same_command(
    film: Eventful, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["highlights", str(film.path), "--criteria", MOVES, "--dry-run", "--fps", "4", "--cache", str(tmp_path)]
    encode, frames = VLM.encode, list[int]()

    def stopped(self: VLM, **given: Any) -> Features:
        frames.append(len(given["videos"][0]))
        if len(frames) == 3:
            raise KeyboardInterrupt
        return encode(self, **given)

    monkeypatch.setattr(VLM, "encode", stopped)
    outcome = run(capsys, words)
    assert outcome.code == 130 and "the same command goes on from here" in outcome.err
    assert run(capsys, words).code == 0
    assert sum(frames) - frames[2] == 4 * film.seconds  # each frame once


def test_a_full_disk_leaves_no_half_file(
    film: Eventful, index: Index, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["highlights", str(film.path), "--criteria", MOVES, "--cache", str(cache), "-o"]
    for name, whole in (("reel.mp4", set()), ("marks.html", {".highlights.json", ".vtt", ".xspf", ".edl"})):
        with files_of_at_most(3000):
            outcome = run(capsys, [*words, str(tmp_path / name)])
        assert outcome.code == 2 and "can't be written" in outcome.err
        assert {"".join(one.suffixes) for one in tmp_path.iterdir()} == whole


def test_a_limit_of_the_first_cut_can_be_lifted_in_the_next(
    film: Eventful, index: Index, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "marks.html"
    words = ["highlights", str(film.path), "--criteria", MOVES, "--criteria", APPEARS, "--cache", str(cache)]
    limits = ["--top", "1", "--target-length", "3", "--longest", "2"]
    assert run(capsys, [*words, *limits, "-o", str(page)]).code == 0
    record = page.with_suffix(".highlights.json")
    assert [one.duration_s <= 3 for one in read_record(record).segments] == [True]
    lifted = ["--top", "0", "--target-length", "0", "--longest", "0"]
    outcome = run(capsys, ["highlights", "--from", str(record), *lifted, "--dry-run"])
    assert len(outcome.out.splitlines()) == 2


def test_a_dry_run_shows_segments_and_writes_nothing(
    film: Eventful, index: Index, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(film.path.parent.iterdir())
    words = ["highlights", str(film.path), "--criteria", MOVES, "--cache", str(cache), "--dry-run", "--titles"]
    outcome = run(capsys, words)
    assert outcome.code == 0 and "moves" in outcome.out
    assert set(film.path.parent.iterdir()) == before


def test_nothing_found_is_said_and_exits_with_1(
    film: Eventful, index: Index, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reel = tmp_path / "reel.mp4"
    words = ["highlights", str(film.path), "--criteria", MOVES, "--threshold", "1", "--cache", str(cache)]
    outcome = run(capsys, [*words, "-o", str(reel)])
    assert outcome.code == 1 and "Nothing reaches the threshold of 1" in outcome.out
    assert not list(tmp_path.iterdir())
    assert run(capsys, [*words, "--dry-run"]).code == 1


def test_a_question_the_model_does_not_know_is_warned_of(
    film: Eventful, index: Index, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["highlights", str(film.path), "--criteria", "a goal", "--cache", str(cache), "--dry-run"]
    assert "it doesn't know such a question" in run(capsys, words).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["highlights"], "give a video, or --from"),
        (["highlights", "film.mp4"], "name the reel"),
        (["highlights", "film.mp4", "--dry-run", "--seed", "1"], "--seed has no effect without --method published"),
        (["highlights", "nowhere.mp4", "--dry-run"], "there is no file nowhere.mp4"),
        (["highlights", "https://example.org/a.mp4", "-o", "reel.mp4"], "download the video first"),
        (["search", "question only?"], "name videos and, last, what is looked for"),
        (["watch", "film.ts", "--when", "x", "--run", "'"], "--run can't be split into words"),
        (["ask", "--long", "-q", "What?"], "--long answers about one video"),
    ],
)
def test_a_command_line_that_cannot_be_used_says_why(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(capsys, words)
    assert outcome.code == 2 and message in outcome.error


@pytest.mark.parametrize("form", ["youtube", "webvtt", "json"])
def test_chapters_are_written_in_three_forms(
    film: Eventful, index: Index, cache: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chapters", str(film.path), "--format", form, "--shortest", "12", "--cache", str(cache)]
    begins = {"youtube": "0:00 ", "webvtt": "WEBVTT\n", "json": '{"video": '}[form]
    assert run(capsys, words).out.startswith(begins)


def test_search_and_describe_print_times(
    film: Eventful, index: Index, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(capsys, ["search", str(film.path), APPEARS, "--json", "--cache", str(cache)])
    best = json.loads(found.out.splitlines()[0])
    assert overlap((best["start_s"], best["end_s"]), film.spans("appear")[0]) >= 0.5
    log = run(capsys, ["describe-video", str(film.path), "--json", "--cache", str(cache)])
    assert [set(json.loads(line)) for line in log.out.splitlines()][0] == {"start_s", "end_s", "text"}


def test_a_question_about_a_long_video_says_how_little_of_it_was_shown(
    film: Eventful, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.cli.ask.is_watched", lambda _: True)
    assert "--long" not in run(capsys, ["ask", str(film.path), "What moves?"]).err
    outcome = run(capsys, ["ask", str(film.path), "What moves?", "--max-frames", "3"])
    assert f"was shown in 3 frames, one every {film.seconds / 3:.0f} s; --long looks at all of it" in outcome.err


def test_watch_starts_a_command_without_a_shell(
    film: Eventful, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = tmp_path / "noted; touch x"
    program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    command = f'{sys.executable} -c "{program}" "{noted}" "{{event}} $HOME"'
    outcome = run(capsys, ["watch", str(film.path), "--when", MOVES, "--run", command])
    events = [json.loads(line)["event"] for line in outcome.out.splitlines()]
    assert events and sorted(noted.read_text()) == sorted("".join(f"{event} $HOME" for event in events))


def test_the_help_of_watch_says_what_it_is_not_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, ["watch", "--help"])
    assert "without their knowledge and consent is not what this is for" in capsys.readouterr().out


def test_without_criteria_it_is_told_what_is_looked_for_and_why(
    vlm: VLM, film: Eventful, index: Index, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = propose_criteria(vlm, index)
    outcome = run(capsys, ["highlights", str(film.path), "--cache", str(cache), "--dry-run"])
    assert repr(proposal.moments) in outcome.err and "can't judge by that" in outcome.err
    assert f"--criteria TEXT looks for something else:\n  {OF_ANY_VIDEO[0]}\n" in outcome.err
    assert "warning" not in outcome.err and outcome.code == 0
