"""What records add up to, the page about them, and what changed between two runs."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image

from smolvlm.errors import DataError, InputError
from smolvlm.evaluation.comparison import comparison_page
from smolvlm.evaluation.diff import compare, difference, mcnemar, sign_flip
from smolvlm.evaluation.folder import RECORDS, SUMMARY, RunFolder
from smolvlm.evaluation.records import Record, write_records
from smolvlm.evaluation.report import report_page, shown_records
from smolvlm.evaluation.results import finish
from smolvlm.evaluation.runner import evaluate, survey
from smolvlm.evaluation.summary import figure_of, summarise, wilson
from smolvlm.evaluation.task import Asked, Protocol, Row
from smolvlm.evaluation.tasks.nano import TASKS
from smolvlm.evaluation.thumbnails import LONG_SIDE, MOST, Thumbnail, thumbnails
from tests.parrot import NOWHERE, SETTINGS, Parrot, asking, numbered, task_of

ROWS = numbered(12)


def records_of(scores: list[float], **more: object) -> list[Record]:
    return [Record("told", f"{at}", "q", ("a",), score=score, **more) for at, score in enumerate(scores)]  # type: ignore[arg-type]


# ---- figures ----


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (7, 20), (500, 1000), (125, 250)])
def test_a_wilson_interval_ends_where_the_true_share_would_be_1_96_errors_away(hits: int, n: int) -> None:
    for bound in wilson(hits, n):
        assert abs(hits / n - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_intervals_of_1000_and_250_samples_at_a_half_are_as_wide_as_texts_on_evaluation_say() -> None:
    assert [round(100 * (0.5 - wilson(n // 2, n)[0]), 1) for n in (1000, 250)] == [3.1, 6.2]


def test_graded_scores_get_a_bootstrap_interval_near_the_normal_one() -> None:
    scores = [0.0, 0.3, 0.6, 0.9, 1.0] * 80
    one = figure_of(records_of(scores))
    error = math.sqrt(fmean((score - 0.56) ** 2 for score in scores) / len(scores))
    assert (one.n, one.score, one.interval) == (400, pytest.approx(0.56), "bootstrap")
    assert (one.low, one.high) == pytest.approx((0.56 - 1.96 * error, 0.56 + 1.96 * error), abs=0.006)
    assert figure_of(records_of(scores)) == one


def test_undecided_empty_and_failed_samples_are_counted_and_count_as_scored() -> None:
    records = [
        *records_of([1.0, 0.0]),
        replace(records_of([0.0])[0], status="undecided"),
        replace(records_of([1.0])[0], status="empty"),  # some harnesses give points for nothing
        replace(records_of([0.0])[0], status="failed"),
    ]
    one = figure_of(records)
    assert (one.n, one.score, one.interval) == (5, 0.4, "wilson")
    assert (one.undecided, one.empty, one.failed) == (1, 1, 1)


def test_a_summary_breaks_down_by_group_also_where_a_row_is_in_several(tmp_path: Path) -> None:
    task = task_of(ROWS)
    folder, surveyed = RunFolder(tmp_path, SETTINGS), {"told": survey(task, NOWHERE)}
    evaluate(asking(), [task], surveyed, NOWHERE, folder)
    records = folder.finish(surveyed)
    one = summarise(task, records, ROWS, "vlmevalkit")
    assert (one.figure.n, one.figure.score) == (12, pytest.approx(8 / 12))
    groups = {name: (figure.n, figure.score) for name, figure in one.groups["kind"].items()}
    assert groups == {"even": (6, 4 / 6), "odd": (6, 4 / 6), "strange": (6, 4 / 6)}
    assert (one.prompt_tokens, one.image_tokens, one.new_tokens, one.cut) == (240, 192, 12, 0)
    assert one.prompts == hashlib.sha256("\0".join(row.question for row in ROWS).encode()).hexdigest()


def test_a_task_with_a_rule_of_its_own_is_summed_up_by_it() -> None:
    def best(scores: object, rows: object, mode: str) -> float:
        return max(score.value for score in scores) / (2 if mode == "strict" else 1)  # type: ignore[attr-defined]

    task, records = replace(task_of(ROWS), overall=best), records_of([0.0] * 6 + [1.0] * 6)
    assert summarise(task, records, ROWS, "vlmevalkit").figure.score == 1.0
    figure = summarise(task, records, ROWS, "strict").figure
    assert (figure.score, figure.low, figure.high, figure.interval) == (0.5, 0.5, 0.5, "bootstrap")


# ---- the page ----


class Page(HTMLParser):
    """What a page has, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)></article>'


def test_a_page_escapes_whatever_a_model_or_data_say_and_loads_nothing() -> None:
    record = Record(
        HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), {"kind": HOSTILE}, HOSTILE, output=HOSTILE, parsed=HOSTILE + ".",
        reason=HOSTILE, finish_reason="length", status="undecided",
    )  # fmt: skip
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "JPEG")
    task = replace(task_of(ROWS, HOSTILE), metric=HOSTILE)
    summary = summarise(task, [record], [ROWS[0]], "vlmevalkit")
    seen = {record.place: [Thumbnail(HOSTILE, 4, 3, file.getvalue())]}
    text = report_page(HOSTILE, {HOSTILE: HOSTILE}, [summary], [record], seen, {HOSTILE: 0.5})
    page = Page(text)
    assert page.tags.count("script") == 1 and page.tags.count("article") == 1 and page.handlers == []
    assert page.tags.count("img") == 1 and all(link.startswith(("data:image/jpeg", "#")) for link in page.links)
    assert page.text.count("alert(1)") >= 8
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'" in text
    differences = [difference(HOSTILE, [(record, replace(record, score=1.0))])]
    assert Page(comparison_page(HOSTILE, HOSTILE, differences)).tags.count("script") == 1


def test_a_page_shows_wrong_answers_evenly_spread() -> None:
    records = records_of([1.0, 0.0] * 400)
    assert [int(record.key) for record in shown_records(records)] == [8 * number + 1 for number in range(100)]
    assert shown_records(records_of([1.0, 0.7])) == []
    assert shown_records(records_of([1.0], status="failed")) != []


def test_pictures_of_a_report_are_those_that_were_sent() -> None:
    for name in ("nano-read", "nano-pair", "nano-video"):
        row = survey(TASKS[name], NOWHERE, 3)[2]
        sent = TASKS[name].ask(row, Protocol())
        count = len(sent.frames_s) or len(sent.request["images"])  # type: ignore[arg-type]
        found = thumbnails(TASKS[name], row, Protocol())
        assert len(found) == min(count, MOST)
        for one in found:
            with Image.open(io.BytesIO(one.jpeg)) as picture:
                assert picture.size == (one.width, one.height) and max(picture.size) <= LONG_SIDE


def test_pictures_in_messages_are_found_and_damaged_ones_left_out() -> None:
    picture = Image.new("RGB", (300, 150), "red")
    block = {"type": "image", "image": picture}
    messages = [{"role": "user", "content": [block, {"type": "text", "text": "Hi"}]}, {"role": "user", "content": "Hi"}]
    task = replace(task_of([]), ask=lambda row, protocol: Asked({"messages": messages}, "Hi"))
    (one,) = thumbnails(task, Row("0", "Hi", ()), Protocol())
    assert (one.width, one.height) == (240, 120)
    damaged = replace(task, ask=lambda row, protocol: Asked({"images": [b"no picture"], "question": "Hi"}, "Hi"))
    assert thumbnails(damaged, Row("0", "Hi", ()), Protocol()) == []


def test_a_run_ends_with_a_summary_and_a_page(tmp_path: Path) -> None:
    task = TASKS["nano-scenes"]
    surveyed = {task.name: survey(task, NOWHERE, 4)}
    folder = RunFolder(tmp_path, SETTINGS)
    wrong = [Record(task.name, row.key, row.question, row.answers, row.groups) for row in surveyed[task.name]]
    write_records(tmp_path / RECORDS, wrong)
    facts = {"model": "parrot", "protocol": {"fps": None, "frames": 8}, "judge": "", "seconds": 1.5}
    finish(folder, [task], surveyed, NOWHERE, Protocol(), facts, {task.name: 0.25})
    found = json.loads((tmp_path / SUMMARY).read_text())
    assert found["protocol"] == facts["protocol"] and found["tasks"][0]["published"] == 0.25
    assert found["tasks"][0]["figure"]["n"] == 4 and found["tasks"][0]["figure"]["score"] == 0.0
    page = Page((tmp_path / "report.html").read_text())
    assert page.tags.count("article") == page.tags.count("img") == 4
    assert "25.0" in page.text and "frames8" in page.text and "judge" not in page.text


# ---- two runs ----


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == 1.0 and mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5000) < 1e-300 or mcnemar(0, 5000) == 0.0


def test_the_permutation_test_agrees_with_all_signs_tried() -> None:
    deltas = [0.3, -0.1, 0.4, 0.2, 0.6, -0.3, 0.1, 0.0, 0.3]
    changed = [delta for delta in deltas if delta]
    sums = [
        abs(sum(map(math.prod, zip(changed, signs, strict=True)))) for signs in itertools.product((1, -1), repeat=8)
    ]
    exact = fmean(one >= abs(sum(deltas)) - 1e-9 for one in sums)
    assert sign_flip(deltas) == pytest.approx(exact, abs=0.01)
    assert sign_flip([0.0, 0.0]) == 1.0


def finished(folder: Path, rows: list[Row], parrot: Parrot | None = None, name: str = "told") -> Path:
    task = task_of(rows, name)
    surveyed = {task.name: survey(task, NOWHERE)}
    run = RunFolder(folder, SETTINGS)
    evaluate(asking(parrot), [task], surveyed, NOWHERE, run)
    finish(run, [task], surveyed, NOWHERE, Protocol(), {"model": "parrot"}, {})
    return folder


def test_a_comparison_tells_what_was_fixed_broken_and_only_worded_otherwise(tmp_path: Path) -> None:
    before, after = finished(tmp_path / "a", ROWS), finished(tmp_path / "b", ROWS, Parrot(times=2))
    (one,) = compare(before, after)
    assert (one.n, one.before, one.after) == (12, pytest.approx(8 / 12), 0.0)
    assert [pair[0].key for pair in one.broken] == [row.key for row in ROWS if int(row.key) % 3]
    assert (len(one.fixed), one.reworded) == (0, 4)
    assert (one.test, one.p_value) == ("McNemar, exact", mcnemar(0, 8))
    (back,) = compare(after, before)
    assert len(back.fixed) == 8 and back.p_value == one.p_value
    (same,) = compare(before, before)
    assert (len(same.fixed), len(same.broken), same.reworded, same.p_value) == (0, 0, 0, 1.0)
    text = comparison_page("a", "b", [one])
    assert Page(text).tags.count("article") == 8 and "question 1question 1" in text


def test_graded_scores_are_compared_by_permutation() -> None:
    pairs = list(zip(records_of([0.3, 0.6]), records_of([0.9, 0.6]), strict=True))
    assert difference("told", pairs).test == "paired permutation"


def test_runs_of_other_tasks_rows_or_data_and_unfinished_ones_are_not_compared(tmp_path: Path) -> None:
    one = finished(tmp_path / "one", ROWS)
    with pytest.raises(InputError, match="different tasks: .* has told, .* has other"):
        compare(one, finished(tmp_path / "task", ROWS, name="other"))
    with pytest.raises(InputError, match="different rows: 7 are only in .*one, row '5' of told first"):
        compare(one, finished(tmp_path / "rows", ROWS[:5]))
    with pytest.raises(InputError, match="Row '0' of told isn't the same in both"):
        compare(one, finished(tmp_path / "data", [replace(row, question="bird") for row in ROWS]))
    with pytest.raises(DataError, match="no run of `smolvlm eval`"):
        compare(one, tmp_path)
    (one / SUMMARY).unlink()
    with pytest.raises(InputError, match="hasn't ended"):
        compare(one, one)
