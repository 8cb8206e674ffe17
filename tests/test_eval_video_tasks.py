"""Video benchmarks: prompts and frames as the harnesses' own code has them, scores, breakdowns, and bad files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import smolvlm
from smolvlm.errors import DataError, VideoError
from smolvlm.evaluation.frames import choose
from smolvlm.evaluation.scorers import Score
from smolvlm.evaluation.task import Protocol, Row, Task
from smolvlm.evaluation.tasks import cinepile, mlvu, mvbench, tempcompass, videomme, worldsense
from smolvlm.evaluation.twins.video import TWINS, draw_twin
from tests.videos import numbered_frame, write_video

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_prompts_video.json").read_text(encoding="utf-8"))
TASKS: dict[str, Task] = {
    **videomme.TASKS, **worldsense.TASKS, **mlvu.TASKS, **tempcompass.TASKS,
    "mvbench": mvbench.TASK, "cinepile": cinepile.TASK,
}  # fmt: skip
# What the vectors call a set of prompts -> the files it is on, and our tasks with the same rows in the same order.
SETS = {
    "videomme": ("videomme", ["videomme"]),
    "videomme-subtitles": ("videomme", ["videomme-subtitles"]),
    "worldsense": ("worldsense", ["worldsense"]),
    "worldsense-subtitles": ("worldsense", ["worldsense-subtitles"]),
    "mlvu": ("mlvu", ["mlvu"]),
    "mlvu-open": ("mlvu", ["mlvu-sub-scene", "mlvu-summary"]),
    "mvbench": ("mvbench", ["mvbench"]),
    "mvbench-cut": ("mvbench-cut", ["mvbench"]),
    "tempcompass": ("tempcompass", ["tempcompass"]),
}
FOLDER_OF = {"videomme": "Video-MME", "worldsense": "WorldSense", "mlvu": "MLVU", "mvbench": "MVBench"}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the vectors, in the official layouts: <name of the set>/<folder of the benchmark>/..."""
    root = tmp_path_factory.mktemp("official")
    films = {}
    for name, (frames, rate, per) in GOLDEN["films"].items():
        films[name] = write_video(root / f"{name}.mp4", frames, Fraction(rate, per))
    for name, made in GOLDEN["sets"].items():
        for path, content in made["files"].items():
            file = root / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content, encoding="utf-8")
            else:
                write_parquet(file, content)
        for path, film in made["films"].items():
            file = root / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if film == "folder":
                write_frames(file, 13)
            else:
                shutil.copy(films[film], file)
    return root


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(numbered_frame(number)).save(folder / f"{number:05}.jpg")


def rows_of(name: str, directory: Path) -> Iterator[tuple[Task, Row]]:
    folder, tasks = SETS[name]
    return chain.from_iterable(((TASKS[task], row) for row in TASKS[task].read(directory / folder)) for task in tasks)


@pytest.mark.parametrize("name", SETS)
def test_prompts_and_frames_are_the_harness(name: str, official: Path) -> None:
    rows = list(rows_of(name, official))
    settings = sorted({(case["frames"], case["fps"]) for case in GOLDEN["prompts"][name]})
    vectors = iter(GOLDEN["prompts"][name])
    for frames, fps in settings:
        for task, row in rows:
            case = next(vectors)
            protocol = Protocol(frames=frames, fps=fps)
            assert row.video is not None
            rule, bound = ("segments", row.fields["bound"]) if task.name == "mvbench" else ("even", None)
            assert list(choose(row.video, protocol, rule, bound).numbers) == case["numbers"]  # type: ignore[arg-type]
            asked = task.ask(row, protocol)
            assert asked.prompt == case["smolvlm2"]
            assert asked.request["prompt"] == case["smolvlm2"] and asked.request["detail"] == "low"
            assert len(asked.request["images"]) == len(asked.frames_s) == case["smolvlm2"].count("<image>")
            if "smolvlm" in case:
                first = task.ask(row, Protocol(wrapper="smolvlm", frames=frames, fps=fps))
                assert (first.prompt, first.request["detail"]) == (case["smolvlm"], "high")
    assert next(vectors, None) is None and len(rows) >= 5


def test_cinepile_asks_what_lmms_eval_asks(official: Path) -> None:
    rows = list(cinepile.TASK.read(official / "cinepile"))
    for row, case in zip(rows, GOLDEN["prompts"]["cinepile"], strict=True):
        assert cinepile.question_of(row) == case["text"]
        assert row.answers == (case["target"],)
        asked = cinepile.TASK.ask(row, Protocol(wrapper="smolvlm", frame_side=384, frames=50))
        shown = len(asked.frames_s)
        assert asked.prompt == (
            f"<|im_start|>User: Answer briefly.{'<image>' * shown}{case['text']}<end_of_utterance>\nAssistant:"
        )
        assert asked.request["max_new_tokens"] == 16
        assert all(picture.size == (384, 384) for picture in asked.request["images"])


def test_many_frames_are_thinned_and_told_by_their_places(official: Path) -> None:
    row = next(row for _, row in rows_of("videomme", official) if row.video and row.video.stem == "long")
    asked = videomme.TASKS["videomme"].ask(row, Protocol())
    assert len(asked.frames_s) == 64 and asked.prompt.count("<image>") == 64
    assert "Frame from 00:00:" in asked.prompt and "Frame from 01:09: <image> \n" in asked.prompt
    assert asked.frames_s[-1] == 69.0


def test_chat_takes_the_models_own_road(official: Path) -> None:
    task = mvbench.TASK
    whole, bounded, folder = (
        next(row for row in task.read(official / "mvbench") if row.groups["task"] == name)
        for name in ("Moving Count", "Action Sequence", "Episodic Reasoning")
    )
    chat = Protocol(wrapper="chat", frames=8)
    vlm = smolvlm.load()
    asked = task.ask(whole, chat)
    system, turn = asked.request["messages"]  # type: ignore[misc]
    assert system["role"] == "system" and "Best option" not in json.dumps(turn)
    assert turn["content"][0] == {"type": "video", "video": str(whole.video), "fps": 1.0, "max_frames": 8}
    assert vlm.tokens(messages=asked.request["messages"]).media[0].timestamps_s
    for row in (bounded, folder):
        asked = task.ask(row, chat)
        assert asked.frames_s and vlm.tokens(messages=asked.request["messages"]).media[0].timestamps_s == asked.frames_s


def test_the_bundled_model_answers_every_drawn_twin(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    vlm = smolvlm.load()
    for name in TWINS:
        draw_twin(name, tmp_path, 4)
    for task in TASKS.values():
        rows = list(task.read(tmp_path))[:2]
        assert rows and all(set(task.groups) <= row.groups.keys() for row in rows)
        asked = [task.ask(row, Protocol(max_new_tokens=4, frames=4)) for row in rows]
        answers = vlm.ask_batch([one.request for one in asked])
        scores = [task.score(answer.text, row, "vlmevalkit", None) for answer, row in zip(answers, rows, strict=True)]
        assert all(0 <= score.value <= 1 for score in scores)


def test_a_right_answer_to_a_twin_is_right(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name, (folder, _) in TWINS.items():
        assert draw_twin(name, tmp_path, 8) == tmp_path / folder
        for row in TASKS[name].read(tmp_path):
            right = row.fields["answer"] if "answer" in row.fields else row.answers[0]
            judge = None if row.groups.get("form") != "captioning" else lambda _, right=right: f"Answer: {right}"
            score = TASKS[name].score(str(right), row, "vlmevalkit", judge)
            assert (score.value, score.status) == (1.0, "ok"), (name, row.key)


def test_a_twin_is_the_same_in_every_run(tmp_path: Path) -> None:
    for run in ("one", "two"):
        draw_twin("worldsense", tmp_path / run, 6)
    for file in (tmp_path / "one").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_mlvu_averages_questions_in_the_harness_and_kinds_officially() -> None:
    task = TASKS["mlvu"]
    kinds = ("count", "count", "count", "ego")
    rows = [Row(str(n), "?", ("3",), groups={"task": kind}) for n, kind in enumerate(kinds)]
    scores = [Score(value, "A") for value in (1.0, 0.0, 0.0, 1.0)]
    assert task.overall is not None
    assert task.overall(scores, rows, "vlmevalkit") == 0.5
    assert task.overall(scores, rows, "official") == pytest.approx((1 / 3 + 1) / 2)


def test_open_questions_of_mlvu_are_graded_by_two_marks_of_a_judge() -> None:
    row, task = Row("0", "What happens?", ("It ends.",)), TASKS["mlvu-summary"]
    marks = "{'score_completeness': 4, 'score_reliability': 3, 'total_score': 7}"
    assert task.score("It ends.", row, "vlmevalkit", lambda _: marks).value == 0.7
    assert task.score("It ends.", row, "vlmevalkit", None).status == "undecided"
    assert task.score("It ends.", row, "vlmevalkit", lambda _: "Good!").status == "undecided"
    assert task.score(" ", row, "vlmevalkit", lambda _: marks).status == "empty"


def test_tempcompass_of_the_authors_and_of_tsv_files_is_the_same(official: Path, tmp_path: Path) -> None:
    """The authors' lists are by video and aspect; VLMEvalKit's TSV has the options apart."""
    lists = {
        name: json.loads((official / "tempcompass" / "TempCompass" / f"{name}.json").read_text())
        for name in ("multi-choice", "caption_matching", "captioning", "yes_no")
    }
    for name, rows in lists.items():
        nested: dict[str, dict[str, list[dict[str, str]]]] = {}
        for number, row in enumerate(rows):  # every row a video of its own, so that the order stays
            columns = {key: value for key, value in row.items() if key not in ("video_id", "dim")}
            nested[f"{row['video_id']}-{number}"] = {row["dim"]: [columns]}
        (tmp_path / f"{name}.json").write_text(json.dumps(nested))
    lines = ["index\ttask_type\tvideo\tquestion\tanswer\tdim\tcandidates"]
    for name in ("multi-choice", "caption_matching"):
        for row in lists[name]:
            question, *candidates = row["question"].split("\n")
            cells = [str(len(lines)), name, row["video_id"], question, row["answer"], row["dim"], str(candidates)]
            lines.append("\t".join('"' + cell.replace('"', '""') + '"' for cell in cells))
    task = TASKS["tempcompass"]
    expected = [(row.key, row.question, row.answers, row.groups) for row in task.read(official / "tempcompass")]
    assert [(row.key, row.question, row.answers, row.groups) for row in task.read(tmp_path)] == expected
    (tmp_path / "TempCompass_MCQ.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [(row.key, row.question, row.answers, row.groups) for row in task.read(tmp_path)] == expected


def test_videomme_of_the_hub_is_the_harness_tsv(official: Path, tmp_path: Path) -> None:
    task = TASKS["videomme"]
    expected = list(task.read(official / "videomme"))
    columns = [
        {
            "videoID": row.video.stem, "question": row.question, "options": list(row.fields["candidates"]),
            "answer": row.fields["answer"], **row.groups,
        }
        for row in expected if row.video
    ]  # fmt: skip
    write_parquet(tmp_path / "Video-MME" / "videomme" / "test-00000-of-00001.parquet", columns)
    found = list(task.read(tmp_path))
    assert [(row.key, row.question, row.answers, row.groups) for row in found] == [
        (row.key, row.question, row.answers, row.groups) for row in expected
    ]


@pytest.mark.parametrize(
    ("task", "file", "content", "complaint"),
    [
        ("worldsense", "worldsense_qa.json", "{", "not valid JSON"),
        ("worldsense", "worldsense_qa.json", '{"a": {"task0": {"question": "?"}}}', "task0: candidates must be a list"),
        ("mlvu", "json/1_plotQA.json", '[{"video": "a.mp4", "question": "?", "candidates": ["x", "y"]}]', "'answer'"),
        (
            "mlvu", "json/4_count.json",
            '[{"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "z"}]', "none of the candidates",
        ),
        ("mvbench", "json/action_sequence.json", '[{"video": "a.mp4", "question": "?"}]', "start must be a number"),
        ("mvbench", "test.json", '{"root": {}}', "meta: there must be a JSON object"),
        ("tempcompass", "yes_no.json", '"text"', "must hold a list of rows"),
        ("videomme", "Video-MME.tsv", "index\tquestion\n1\n", "line 2: the row has another number of columns"),
        (
            "videomme", "Video-MME.tsv",
            "video\tcandidates\tquestion\tanswer\na\t['A. x', 'B. y']\t?\tC\n", "'C'; of 2 candidates",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_place(
    task: str, file: str, content: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / FOLDER_OF.get(task, "TempCompass") / file
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=complaint) as refused:
        list(TASKS[task].read(tmp_path))
    assert Path(file).name in str(refused.value)


@pytest.mark.parametrize("task", TASKS)
def test_where_nothing_is_the_error_says_what_is_looked_for(task: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Looked in .* of the hub"):
        list(TASKS[task].read(tmp_path))


def test_a_video_that_cant_be_decoded_is_refused_when_asked(official: Path, tmp_path: Path) -> None:
    row = next(iter(TASKS["videomme"].read(official / "videomme")))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    for video in (broken, tmp_path / "missing.mp4", tmp_path):
        for wrapper in ("smolvlm2", "chat"):
            with pytest.raises(VideoError):
                TASKS["videomme"].ask(
                    Row(row.key, row.question, row.answers, video=video, fields=row.fields),
                    Protocol(wrapper=wrapper),  # type: ignore[arg-type]
                )
