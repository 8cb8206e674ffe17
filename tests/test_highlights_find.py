"""Known events are found by the bundled model: highlights, search, chapters, a log, and a watched source."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest

import smolvlm
from smolvlm.errors import FetchError, InputError, VideoError
from smolvlm.highlights import (
    Index,
    Selection,
    Watching,
    ask_long,
    build_index,
    describe,
    find_chapters,
    find_highlights,
    find_published,
    propose_criteria,
    read_record,
    search,
    watch,
)
from smolvlm.highlights.score import question_for
from smolvlm.vlm import VLM
from tests.commands import run
from tests.eventful import Eventful, overlap, write_eventful

SORTS = (None, "move", None, "appear", None)
MOVES, APPEARS = "Does anything move?", "Does anything appear?"
UNPADDED = Selection(padding_s=0.0)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Eventful:
    return write_eventful(tmp_path_factory.mktemp("film") / "film.mp4", SORTS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def index(vlm: VLM, film: Eventful, cache: Path) -> Index:
    return build_index(vlm, film.path, cache=cache)


# ---- finding ----


@pytest.mark.parametrize(("question", "sort"), [(MOVES, "move"), (APPEARS, "appear")])
def test_what_is_asked_for_is_found_and_nothing_else(
    vlm: VLM, film: Eventful, index: Index, question: str, sort: str
) -> None:
    found = find_highlights(vlm, index, criteria=question, selection=UNPADDED)
    wanted = film.spans(sort)
    assert len(found.segments) == len(wanted) == 1
    assert overlap((found.segments[0].start_s, found.segments[0].end_s), wanted[0]) >= 0.5
    assert found.questions == (question,) and found.label_mass > 0.9


def test_of_several_criteria_one_is_enough(vlm: VLM, film: Eventful, index: Index) -> None:
    found = find_highlights(vlm, index, criteria=[MOVES, APPEARS], selection=UNPADDED)
    spans = [(one.start_s, one.end_s) for one in found.segments]
    assert all(any(overlap(span, event[2:]) >= 0.5 for span in spans) for event in film.events)


def test_borders_at_cuts_are_exact_to_the_frame(vlm: VLM, film: Eventful, index: Index) -> None:
    found = find_highlights(vlm, index, criteria="Is there any shape?", selection=Selection(threshold=0.0))
    borders = {border for one in found.segments for border in (one.start_s, one.end_s)}
    inner = sorted(borders - {0.0, found.segments[-1].end_s})
    assert inner and all(min(abs(border - cut_s) for cut_s in film.cuts_s) < 1e-6 for border in inner)


def test_a_result_tells_what_it_rests_on(vlm: VLM, film: Eventful, index: Index) -> None:
    found = find_highlights(vlm, index, criteria=MOVES)
    facts = json.loads(json.dumps(found.facts()))
    assert facts["criteria"] == [MOVES] and facts["prompts"]["questions"] == [MOVES]
    assert facts["frames_seen"]["timestamps_s"] == list(range(int(film.seconds)))
    assert facts["model"] == "nano" and facts["versions"]["smolvlm"] == smolvlm.__version__
    assert facts["selection"]["threshold"] == 0.5


def test_the_same_video_proposes_the_same_criteria(vlm: VLM, index: Index) -> None:
    first = propose_criteria(vlm, index)
    assert first == propose_criteria(vlm, index) and first.description


def test_a_criterion_becomes_a_question() -> None:
    assert question_for("a goal is scored.") == "Does this clip show: a goal is scored? yes or no"
    assert question_for(MOVES) == MOVES
    assert question_for("a goal", "Is {criteria} in it?") == "Is a goal in it?"
    assert "- a goal\n- a foul" in question_for("- a goal\n- a foul")
    with pytest.raises(InputError, match="criteria are empty"):
        question_for("  ")


def test_an_index_that_is_there_takes_no_options_of_looking(vlm: VLM, index: Index) -> None:
    with pytest.raises(InputError, match="looked at already, so fps can't change that"):
        find_highlights(vlm, index, criteria=MOVES, fps=2.0)


def test_the_published_procedure_judges_pieces_of_ten_seconds(vlm: VLM, film: Eventful) -> None:
    found = find_published(vlm, film.path, criteria=MOVES, question="{criteria}", system=None)
    assert found.method == "published" and found.curve.times_s == tuple(
        10.0 * n for n in range(len(found.curve.times_s))
    )
    assert all(one.start_s % 10 == 0 for one in found.segments)
    assert len(found.curve.times_s) == -(-film.seconds // 10)


# ---- other questions of the same index ----


def test_search_ranks_the_place_that_is_asked_for_first(vlm: VLM, film: Eventful, index: Index) -> None:
    best = search(vlm, [index], APPEARS, top=3)[0]
    assert overlap((best.segment.start_s, best.segment.end_s), film.spans("appear")[0]) >= 0.5


def test_search_names_the_video_of_each_place(vlm: VLM, film: Eventful, index: Index, cache: Path) -> None:
    other = write_eventful(cache / "other.mp4", [None, None], seed=3)
    best = search(vlm, [other.path, film.path], MOVES, cache=cache)[0]
    assert (best.number, best.video) == (1, str(film.path)) or film.path.name in best.video


def test_chapters_begin_at_cuts_and_have_titles(vlm: VLM, film: Eventful, index: Index) -> None:
    chapters = find_chapters(vlm, index, shortest_s=3.0)
    assert [one.start_s for one in chapters[1:]] == pytest.approx(film.cuts_s, abs=0.25)
    moving = next(one for one in chapters if overlap((one.start_s, one.end_s), film.spans("move")[0]) > 0.5)
    assert "moves" in moving.title
    assert chapters[0].start_s == 0 and chapters[-1].end_s == pytest.approx(film.seconds)


def test_chapters_are_as_long_as_is_asked(vlm: VLM, film: Eventful, index: Index) -> None:
    chapters = find_chapters(vlm, index, shortest_s=8.0)
    assert all(one.duration_s >= 8 for one in chapters) and len(chapters) <= film.seconds / 8


def test_a_log_has_a_line_for_every_stretch(vlm: VLM, film: Eventful, index: Index) -> None:
    log = list(describe(vlm, index))
    assert [line.start_s for line in log[1:]] == [line.end_s for line in log[:-1]]
    thing = next(name for sort, name, _, _ in film.events if sort == "move")
    assert any(f"The {thing} moves" in line.title for line in log)


def test_a_question_about_a_long_video_is_answered_over_its_log(vlm: VLM, film: Eventful, index: Index) -> None:
    said: list[int] = []
    found = ask_long(
        vlm, index, "What moves?", answer={"max_new_tokens": 8}, on_progress=lambda *at: said.append(at[0])
    )
    assert len(found.log) == len(said) > 1 and len(found.answer.token_ids) <= 8
    assert found.answer.prompt_tokens > sum(len(line.title) for line in found.log) / 8


def test_a_short_video_is_shown_and_not_described(vlm: VLM, cache: Path) -> None:
    short = write_eventful(cache / "short.mp4", ["move"], seed=1)
    found = ask_long(vlm, short.path, "What moves?", cache=cache)
    assert found.log == () and found.answer.text == f"{short.events[0][1]}"


# ---- watching ----


def test_an_event_begins_and_ends_once(vlm: VLM, film: Eventful) -> None:
    scores: list[float] = []
    seen = list(watch(vlm, str(film.path), MOVES, on_score=lambda _, score: scores.append(score)))
    start_s, end_s = film.spans("move")[0]
    assert seen[0].event == "start" and start_s <= seen[0].time_s <= end_s + 6
    assert [one.event for one in seen] == ["start", "end"] * (len(seen) // 2) + ["start"] * (len(seen) % 2)
    assert len(scores) == int(film.seconds) - 3  # asked once there are four frames


def test_a_file_may_grow_while_it_is_watched(vlm: VLM, film: Eventful, tmp_path: Path) -> None:
    import av

    whole, growing = tmp_path / "whole.ts", tmp_path / "growing.ts"
    with av.open(str(film.path)) as source, av.open(str(whole), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    content = whole.read_bytes()
    growing.write_bytes(content[: len(content) // 2])

    def grow() -> None:
        time.sleep(0.5)
        with growing.open("ab") as file:
            file.write(content[len(content) // 2 :])

    writer = threading.Thread(target=grow)
    writer.start()
    times: list[float] = []
    how = Watching(idle_s=1.5)
    list(watch(vlm, str(growing), MOVES, how=how, on_score=lambda time_s, _: times.append(time_s)))
    writer.join()
    assert times[-1] > film.seconds - 2


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.ts", VideoError, "There is no file 'nowhere.ts'"),
        ("http://example.org/a.ts", FetchError, "can't be watched"),
        ("camera:/dev/none", VideoError, "can't be watched: .*plugged in"),
    ],
)
def test_a_source_that_cannot_be_watched_is_refused(
    vlm: VLM, source: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        next(watch(vlm, source, MOVES))


# ---- the commands ----


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
