"""The official files of the video benchmarks -> rows. Videos are not opened here: that one is missing shows when it is
asked about, because sets are published without some of theirs.

Sources: VLMEvalKit e8e78f0, dataset/{videomme,mlvu,mvbench,tempcompass,worldsense}.py, whose unpacked downloads these
are; lmms-eval 75571cf, tasks/cinepile. Bad files raise DataError before the first row.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..errors import DataError
from .layouts.parquet import read_parquet
from .layouts.pictures import literal_list
from .messages import lettered
from .task import Row

# In the order of the numbers that their files begin with; the last two are no multiple choice.
MLVU = (
    "plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning", "sub_scene", "summary",
)  # fmt: skip
MLVU_CHOICES = 7
# Task -> the folder of its videos, and whether a question is on a part of one. One task has folders of frames.
FOLDER = "tvqa/frames_fps3_hq"
MVBENCH = {
    "Action Sequence": ("star/Charades_v1_480", True),
    "Action Prediction": ("star/Charades_v1_480", True),
    "Action Antonym": ("ssv2_video", False),
    "Fine-grained Action": ("Moments_in_Time_Raw/videos", False),
    "Unexpected Action": ("FunQA_test/test", False),
    "Object Existence": ("clevrer/video_validation", False),
    "Object Interaction": ("star/Charades_v1_480", True),
    "Object Shuffle": ("perception/videos", False),
    "Moving Direction": ("clevrer/video_validation", False),
    "Action Localization": ("sta/sta_video", True),
    "Scene Transition": ("scene_qa/video", False),
    "Action Count": ("perception/videos", False),
    "Moving Count": ("clevrer/video_validation", False),
    "Moving Attribute": ("clevrer/video_validation", False),
    "State Change": ("perception/videos", False),
    "Fine-grained Pose": ("nturgbd", False),
    "Character Order": ("perception/videos", False),
    "Egocentric Navigation": ("vlnqa", False),
    "Episodic Reasoning": (FOLDER, True),
    "Counterfactual Inference": ("clevrer/video_validation", False),
}
TEMPCOMPASS_TSV = {
    "TempCompass_MCQ.tsv": ("multi-choice", "caption_matching"),
    "TempCompass_Captioning.tsv": ("captioning",),
    "TempCompass_YorN.tsv": ("yes_no",),
}
TEMPCOMPASS = tuple(form for forms in TEMPCOMPASS_TSV.values() for form in forms)
CINEPILE = ("test-*.parquet", "data/test-*.parquet", "v2/test-*.parquet", "v1/test-*.parquet")
_LETTERED = re.compile(r"\s*[A-Z][.):]\s*")
Placed = tuple[str, Mapping[str, Any]]  # where a row stands, and its columns


def read_videomme(directory: Path) -> Iterator[Row]:
    """Video-MME.tsv or the hub's videomme/*.parquet, beside video/ and subtitle/."""
    home = _home(directory, "Video-MME", ("Video-MME.tsv", "videomme/test-*.parquet"), "lmms-lab/Video-MME")
    table = home / "Video-MME.tsv"
    placed = _tsv(table) if table.is_file() else _parquet(home, "videomme/test-*.parquet")
    rows = []
    for number, (where, columns) in enumerate(placed):
        video = _text(columns, "video" if "video" in columns else "videoID", where)
        rows.append(
            _lettered_row(
                columns, where, str(columns.get("index", number)),
                candidates="candidates" if "candidates" in columns else "options",
                video=home / "video" / f"{video}.mp4",
                subtitles=home / "subtitle" / f"{video}.srt",
                groups=("duration", "domain", "sub_category", "task_type"),
            )
        )  # fmt: skip
    return iter(rows)


def read_worldsense(directory: Path) -> Iterator[Row]:
    """worldsense_qa.json beside videos/ and subtitles/."""
    home = _home(directory, "WorldSense", ("worldsense_qa.json",), "honglyhly/WorldSense")
    table = home / "worldsense_qa.json"
    rows: list[Row] = []
    for video, about in _object(_json(table), str(table)).items():
        shared = _object(about, f"{table}, {video}")
        for name, asked in shared.items():
            if "task" not in name:
                continue
            where = f"{table}, {video}, {name}"
            rows.append(
                _lettered_row(
                    {**shared, **_object(asked, where)}, where, str(len(rows)),
                    candidates="candidates",
                    video=home / "videos" / f"{video}.mp4",
                    subtitles=home / "subtitles" / f"{video}.srt",
                    groups=("domain", "sub_category", "task_domain", "task_type"),
                )
            )  # fmt: skip
    return iter(rows)


def read_mlvu(directory: Path) -> Iterator[Row]:
    """The seven lists of multiple-choice questions: json/1_plotQA.json ... beside video/1_plotQA/ ..."""
    return iter([_choice_row(*found) for found in _mlvu(directory, 0, MLVU_CHOICES)])


def read_mlvu_generation(directory: Path, kind: str) -> Iterator[Row]:
    """One of the two lists of open questions: json/8_sub_scene.json or json/9_summary.json."""
    rows = []
    first = MLVU.index(kind)
    for key, where, columns, video, _ in _mlvu(directory, first, first + 1):
        question = _text(columns, "question", where)
        answers = tuple(columns.get("scoring_points") or ()) or (str(columns.get("answer") or ""),)
        rows.append(Row(key, question, answers, video=video))
    return iter(rows)


def read_mvbench(directory: Path) -> Iterator[Row]:
    """json/action_sequence.json ... beside video/, or test.json of the branch of cut clips (MVBench_MP4)."""
    home = _home(directory, "MVBench", ("test.json", "json/action_sequence.json"), "OpenGVLab/MVBench")
    if (home / "test.json").is_file():
        return iter([_choice_row(*found) for found in _mvbench_mp4(home)])
    rows: list[Row] = []
    for task, (folder, bounded) in MVBENCH.items():
        table = home / "json" / f"{task.lower().replace(' ', '_').replace('-', '_')}.json"
        for where, columns in _listed(table) if table.is_file() else ():
            video = home / "video" / folder / _text(columns, "video", where)
            bound = tuple(_seconds(columns, name, where) for name in ("start", "end")) if bounded else None
            rows.append(_choice_row(str(len(rows)), where, columns, video, task, bound=bound))
    return iter(rows)


def read_tempcompass(directory: Path) -> Iterator[Row]:
    """The four kinds of question: as VLMEvalKit's TSV, as .json (the hub's or the authors') or the hub's parquet."""
    marks = [mark for form in TEMPCOMPASS for mark in (f"{form}.json", f"{form}/test-*.parquet")]
    home = _home(directory, "TempCompass", (*TEMPCOMPASS_TSV, *marks), "lmms-lab/TempCompass")
    rows = []
    for form, number, where, columns in _tempcompass(home):
        question = _text(columns, "question", where)
        fields = {"form": form}
        if form == "yes_no":
            question = question.split("\n")[0]  # as the harness keeps it
        if form == "captioning":  # graded by how well a question that the model isn't asked can be answered from it
            fields["mc_question"] = _text(columns, "mc_question", where)
        answer = _text(columns, "mc_answer" if form == "captioning" else "answer", where)
        video = home / "videos" / f"{columns.get('video_id') or _text(columns, 'video', where)}.mp4"
        groups = {"form": form, "aspect": _text(columns, "dim", where)}
        rows.append(Row(f"{form}-{number}", question, (answer,), video=video, fields=fields, groups=groups))
    return iter(rows)


def read_cinepile(directory: Path) -> Iterator[Row]:
    """The hub's test-*.parquet, beside videos called by their videoID, in the folder itself or in videos/."""
    home = _home(directory, "cinepile", CINEPILE, "tomg-group-umd/cinepile")
    pattern = next(pattern for pattern in CINEPILE if any(home.glob(pattern)))
    rows = []
    for number, (where, columns) in enumerate(_parquet(home, pattern)):
        options = _options(columns, "choices", where)
        position = columns.get("answer_key_position")
        if not isinstance(position, int) or not 0 <= position < len(options):
            raise DataError(f"{where}: answer_key_position is {position!r}; there are {len(options)} choices, from 0.")
        gold = ascii_uppercase[position]
        fields = {**lettered(options), "answer": gold, "subtitles": str(columns.get("subtitles") or "")}
        groups = {
            "category": " ".join(_text(columns, "question_category", where).split()),
            "hard": str(columns.get("hard_split", "False")),
        }
        video = _with_any_suffix(home, _text(columns, "videoID", where))
        question = _text(columns, "question", where)
        rows.append(Row(str(number), question, (f"{gold}) {options[position]}",), (), video, fields, groups))
    return iter(rows)


# ---- rows -----------------------------------------------------------------------------------------------------------


def _lettered_row(
    columns: Mapping[str, Any], where: str, key: str, *, candidates: str, video: Path, subtitles: Path,
    groups: Sequence[str],
) -> Row:  # fmt: skip
    """A question whose options carry their letters: "A. A cat"."""
    options, gold = _options(columns, candidates, where), _text(columns, "answer", where)
    if gold not in ascii_uppercase[: len(options)] or len(gold) != 1:
        raise DataError(f"{where}: the answer is {gold!r}; of {len(options)} candidates it must be the letter of one.")
    fields = {
        **lettered(_LETTERED.sub("", option, count=1) for option in options),
        "candidates": options,
        "answer": gold,
        "subtitles": subtitles,
    }
    answers = (options[ascii_uppercase.index(gold)],)
    named = {name: _text(columns, name, where) for name in groups}
    return Row(key, _text(columns, "question", where), answers, video=video, fields=fields, groups=named)


def _choice_row(
    key: str, where: str, columns: Mapping[str, Any], video: Path, task: str, bound: tuple[float, ...] | None = None
) -> Row:
    """A question whose answer is the text of an option; of equal ones the last, as the harness has it."""
    options, answer = _options(columns, "candidates", where), _text(columns, "answer", where)
    places = [place for place, option in enumerate(options) if option == answer]
    if not places:
        raise DataError(f"{where}: the answer {answer!r} is none of the candidates {list(options)}. Correct the row.")
    fields = {**lettered(options), "answer": ascii_uppercase[places[-1]], "bound": bound}
    question = _text(columns, "question", where)
    return Row(key, question, (answer,), video=video, fields=fields, groups={"task": task})


def _mlvu(directory: Path, start: int, end: int) -> Iterator[tuple[str, str, Mapping[str, Any], Path, str]]:
    """(key, where, columns, video, task) of those of the lists that are there."""
    tasks = {f"{number}_{task}": task for number, task in enumerate(MLVU, 1)}
    names = list(tasks)[start:end]
    home = _home(directory, "MLVU", [f"{at}json/{name}.json" for at in ("", "MLVU/") for name in names], "MLVU/MVLU")
    if not (home / "json").is_dir():
        home /= "MLVU"  # as the hub has it
    key = 0
    for name in names:
        table = home / "json" / f"{name}.json"
        for where, columns in _listed(table) if table.is_file() else ():
            yield str(key), where, columns, home / "video" / name / _text(columns, "video", where), tasks[name]
            key += 1


def _mvbench_mp4(home: Path) -> Iterator[tuple[str, str, Mapping[str, Any], Path, str]]:
    table = home / "test.json"
    content = _object(_json(table), str(table))
    folders = _object(content.get("root"), f"{table}, root")
    key = 0
    for task, found in _object(content.get("meta"), f"{table}, meta").items():
        for number, columns in enumerate(found):
            where = f"{table}, {task}, row {number + 1}"
            columns = _object(columns, where)
            video = home / _text(folders, task, f"{table}, root") / _text(columns, "video", where)
            yield str(key), where, columns, video, task
            key += 1


def _tempcompass(home: Path) -> Iterator[tuple[str, int, str, Mapping[str, Any]]]:
    """(kind of question, number in it, where, columns)."""
    for name, forms in TEMPCOMPASS_TSV.items():
        if (home / name).is_file():
            placed = list(_tsv(home / name))
            for form in forms:
                of_form = [(where, columns) for where, columns in placed if columns.get("task_type") == form]
                for number, (where, columns) in enumerate(of_form):
                    lines = literal_list(str(columns.get("candidates", ""))) or []
                    question = "\n".join([_text(columns, "question", where), *lines])
                    yield form, number, where, {**columns, "question": question}
            continue
        for form in forms:
            table = home / f"{form}.json"
            found = _listed(table) if table.is_file() else _parquet(home, f"{form}/test-*.parquet")
            for number, (where, columns) in enumerate(found):
                yield form, number, where, columns


# ---- files ----------------------------------------------------------------------------------------------------------


def _home(directory: Path, folder: str, marks: Sequence[str], origin: str) -> Path:
    """The folder of a benchmark: the one of its name, or the directory itself."""
    for home in (directory / folder, directory):
        if any(next(home.glob(mark), None) for mark in marks):
            return home
    raise DataError(
        f"There is no {folder} under {directory}. Looked in {folder}/ and in the directory itself for "
        f"{', '.join(marks)}. Unpack the data set {origin} of the hub there, or name another directory."
    )


def _tsv(path: Path) -> Iterator[Placed]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", strict=True)
        try:
            for columns in table:
                where = f"{path}, line {table.line_num}"
                if None in columns or None in columns.values():
                    raise DataError(f"{where}: the row has another number of columns than the first line.")
                yield where, columns
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}, line {table.line_num}: {error}. Write it again, as tab-separated UTF-8."
            ) from error


def _parquet(home: Path, pattern: str) -> Iterator[Placed]:
    for record in read_parquet(sorted(home.glob(pattern)), home):
        yield record.where, record.columns


def _listed(path: Path) -> Iterator[Placed]:
    """Rows of a JSON list; or of the authors' TempCompass, {video: {aspect: [row, ...]}}."""
    content = _json(path)
    if isinstance(content, dict):
        content = [
            {"video_id": video, "dim": aspect, **_object(row, f"{path}, {video}")}
            for video, aspects in content.items()
            for aspect, rows in _object(aspects, f"{path}, {video}").items()
            for row in rows
        ]
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of rows; it holds a {type(content).__name__}.")
    for number, row in enumerate(content, 1):
        where = f"{path}, row {number}"
        yield where, _object(row, where)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}. Get the file again.") from error


def _with_any_suffix(home: Path, name: str) -> Path:
    places = [folder / f"{name}{suffix}" for folder in (home, home / "videos") for suffix in (".mp4", ".MP4", ".mkv")]
    return next((place for place in places if place.is_file()), places[0])


# ---- columns --------------------------------------------------------------------------------------------------------


def _object(found: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise DataError(f"{where}: there must be a JSON object here; there is {type(found).__name__}.")
    return found


def _text(columns: Mapping[str, Any], name: str, where: str) -> str:
    if columns.get(name) is None:
        raise DataError(f"{where}: the column {name!r} is missing. The row has: {', '.join(map(str, columns))}.")
    return str(columns[name])


def _options(columns: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = columns.get(name)
    options: Iterable[Any] | None = literal_list(found) if isinstance(found, str) else found
    if not isinstance(options, list) or not 2 <= len(options) <= len(ascii_uppercase):
        raise DataError(f"{where}: {name} must be a list of at least two options; it is {found!r}.")
    return tuple(str(option) for option in options)


def _seconds(columns: Mapping[str, Any], name: str, where: str) -> float:
    try:
        return float(columns[name])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {name} must be a number of seconds; it is {columns.get(name)!r}.") from error
