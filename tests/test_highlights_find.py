"""Known events are found by the bundled model: highlights, search, chapters, a log, and a watched source."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

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
    search,
    watch,
)
from smolvlm.highlights.propose import OF_ANY_VIDEO
from smolvlm.highlights.score import DOUBTFUL_MASS, question_for, score_windows
from smolvlm.highlights.windows import Window
from smolvlm.vlm import VLM
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


def test_nothing_is_found_in_blank_frames(vlm: VLM, cache: Path) -> None:
    shown = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red")]
    blank = build_index(vlm, shown, cache=cache)
    scores = score_windows(vlm, blank, [Window(0, 3, 0, 3)], [APPEARS])
    assert scores.yes == (0.0,) and scores.label_mass == 1.0
    shown[1].putpixel((32, 32), (255, 255, 255))  # noise
    assert score_windows(vlm, build_index(vlm, shown, cache=cache), [Window(0, 3, 0, 3)], [APPEARS]).yes == (0.0,)
    shown[1].paste("yellow", (24, 24, 34, 34))
    assert score_windows(vlm, build_index(vlm, shown, cache=cache), [Window(0, 3, 0, 3)], [APPEARS]).yes != (0.0,)


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


def test_a_list_that_the_model_can_judge_by_is_what_counts(
    vlm: VLM, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "ask", lambda *_, **__: SimpleNamespace(text=MOVES))
    proposal = propose_criteria(vlm, index)
    assert proposal.criteria == (MOVES,) and proposal.is_own and proposal.label_mass > 0.9
    assert find_highlights(vlm, index).criteria == (MOVES,)


def test_for_a_list_that_it_cannot_judge_by_it_is_asked_what_it_can_be(vlm: VLM, film: Eventful, index: Index) -> None:
    found = find_highlights(vlm, index, selection=UNPADDED)
    assert found.proposal is not None and found.proposal.label_mass < DOUBTFUL_MASS and not found.proposal.is_own
    assert found.criteria == OF_ANY_VIDEO and found.label_mass > 0.9
    spans = [(one.start_s, one.end_s) for one in found.segments]
    assert all(any(overlap(span, event[2:]) >= 0.5 for span in spans) for event in film.events)


def test_windows_that_show_the_same_frames_are_asked_about_once(
    vlm: VLM, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    decide = vlm.decide
    monkeypatch.setattr(vlm, "decide", lambda question, **given: (asked.append(question), decide(question, **given))[1])
    windows = [Window(0.1, 0.3, 0.1, 0.3), Window(0.2, 0.4, 0.2, 0.4), Window(6.0, 12.0, 6.0, 12.0)]
    scores = score_windows(vlm, index, windows, [MOVES])
    assert len(asked) == 2 and scores.yes[0] == scores.yes[1] != scores.yes[2]


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
