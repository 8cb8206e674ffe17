"""Twins of the video benchmarks: drawn clips as real files, with questions, in the official layouts.

Always the same, from the test split. What a twin is for is told in __init__.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Any

from ...errors import InputError
from ...parquet import import_arrow
from ...scenes import COLOURS, Clip, Scene, Turn, draw, render_clip
from ..video_layouts import FOLDER, MLVU, MLVU_CHOICES, MVBENCH
from .files import write_tsv

SEED = 72  # of no other measurement
FRAMES_A_SECOND = 8
FOLDER_FPS = 3
_DIRECTIONS = tuple(f"from {way}" for way in ("left to right", "right to left", "top to bottom", "bottom to top"))
_NUMBERS = tuple(str(number) for number in range(7))
_POOLS = {"direction": _DIRECTIONS, "turns": tuple(COLOURS), "count_end": _NUMBERS, "count_start": _NUMBERS}
_ASPECTS = {"direction": "direction", "turns": "attribute_change", "count_end": "action", "count_start": "order"}
_YES_NO = ("in_video", "any_move", "any_change", "any_appear")


@dataclass(frozen=True)
class Question:
    """A question on the clip of scene `index`. options: texts, the right one among them."""

    index: int
    scene: Scene
    turn: Turn
    options: tuple[str, ...]

    @property
    def video(self) -> str:
        return f"clip{self.index:04}"

    @property
    def letter(self) -> str:
        return ascii_uppercase[self.options.index(self.turn.answer)]

    @property
    def lettered(self) -> list[str]:
        return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False)]

    @property
    def seconds(self) -> float:
        assert self.scene.clip is not None, "a video scene has a clip"
        return self.scene.clip.duration_s


def draw_twin(name: str, directory: Path, rows: int) -> Path:
    """Write the twin of a video task under the directory; the folder of the benchmark. Raises InputError for a task
    without a twin, and for fewer rows than one."""
    if name not in TWINS:
        raise InputError(f"There is no twin of {name!r}. There are: {', '.join(TWINS)}.")
    if rows < 1:
        raise InputError(f"A twin of {rows} rows is none: draw at least 1.")
    folder, write = TWINS[name]
    write(directory / folder, rows)
    return directory / folder


def _videomme(home: Path, rows: int) -> None:
    columns = []
    for number, asked in enumerate(_choices(rows, 4)):
        _write_clip(home / "video" / f"{asked.video}.mp4", asked)
        _write_subtitles(home / "subtitle" / f"{asked.video}.srt", asked)
        columns.append({
            "index": number, "video": asked.video, "video_path": f"./video/{asked.video}.mp4",
            "duration": ("short", "medium", "long")[number % 3], "domain": "Knowledge",
            "candidates": str(asked.lettered), "sub_category": "Geometry", "task_type": _task_of(asked),
            "subtitle_path": f"./subtitle/{asked.video}.srt", "question": asked.turn.question, "answer": asked.letter,
        })  # fmt: skip
    write_tsv(home / "Video-MME.tsv", columns)


def _worldsense(home: Path, rows: int) -> None:
    videos: dict[str, dict[str, Any]] = {}
    for asked in _choices(rows, 4):
        _write_clip(home / "videos" / f"{asked.video}.mp4", asked)
        _write_subtitles(home / "subtitles" / f"{asked.video}.srt", asked)
        about = videos.setdefault(asked.video, {
            "domain": "Tech & Science", "sub_category": "Physics", "audio_class": ["Event"], "duration": "<1min",
            "video_duration": asked.seconds, "video_caption": "",
        })  # fmt: skip
        tasks = sum("task" in name for name in about)
        about[f"task{tasks}"] = {
            "question": asked.turn.question, "candidates": asked.lettered, "answer": asked.letter,
            "task_domain": "Recognition", "task_type": _task_of(asked),
        }  # fmt: skip
    _write_json(home / "worldsense_qa.json", videos)


def _mlvu(home: Path, rows: int) -> None:
    """The seven lists of choices in turn, and two rows of each of the others, which no rule can grade."""
    lists: dict[str, list[dict[str, Any]]] = {f"{number}_{task}": [] for number, task in enumerate(MLVU, 1)}
    names = list(lists)
    for number, asked in enumerate(_choices(rows, 4)):
        name = names[number % MLVU_CHOICES]
        row = _mlvu_row(home, name, asked)
        row |= {"question": asked.turn.question, "answer": asked.turn.answer, "candidates": list(asked.options)}
        lists[name].append(row)
    for name in names[MLVU_CHOICES:]:
        for scene_number, asked in enumerate(islice(_choices(None, 4), 2)):
            told = _told(asked.scene)
            row = _mlvu_row(home, name, asked) | {"question": "What happens in the video?", "answer": told}
            lists[name].append(row | ({"scoring_points": [told]} if scene_number else {}))
    for name, found in lists.items():
        _write_json(home / "MLVU" / "json" / f"{name}.json", found)


def _mlvu_row(home: Path, name: str, asked: Question) -> dict[str, Any]:
    _write_clip(home / "MLVU" / "video" / name / f"{asked.video}.mp4", asked)
    return {"video": f"{asked.video}.mp4", "duration": asked.seconds, "question_type": name.partition("_")[2]}


def _mvbench(home: Path, rows: int) -> None:
    lists: dict[str, list[dict[str, Any]]] = {task: [] for task in MVBENCH}
    for number, asked in enumerate(_choices(rows, 4)):
        task = list(MVBENCH)[number % len(MVBENCH)]
        folder, bounded = MVBENCH[task]
        name = asked.video if folder == FOLDER else f"{asked.video}.mp4"
        path = home / "video" / folder / name
        if folder == FOLDER:
            _write_folder(path, asked)
        else:
            _write_clip(path, asked)
        row = {"video": name, "question": asked.turn.question, "candidates": list(asked.options)}
        bound = {"start": 0.0, "end": asked.seconds} if bounded else {}
        lists[task].append({**row, "answer": asked.turn.answer, **bound})
    for task, found in lists.items():
        _write_json(home / "json" / f"{task.lower().replace(' ', '_').replace('-', '_')}.json", found)


def _tempcompass(home: Path, rows: int) -> None:
    """The four kinds of question in turn."""
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in _FORMS}
    for number, asked in enumerate(_choices(rows, 4)):
        name = list(_FORMS)[number % len(_FORMS)]
        _write_clip(home / "videos" / f"{asked.video}.mp4", asked)
        lists[name].append({"video_id": asked.video, "dim": _ASPECTS[asked.turn.kind], **_FORMS[name](asked)})
    for name, found in lists.items():
        _write_json(home / f"{name}.json", found)


def _multi_choice(asked: Question) -> dict[str, str]:
    question = "\n".join([asked.turn.question, *asked.lettered])
    return {"question": question, "answer": f"{asked.letter}. {asked.turn.answer}"}


def _caption_matching(asked: Question) -> dict[str, str]:
    """What happens in the clip, and what happens in another one."""
    own = _told(asked.scene)
    others = (_told(draw("video", SEED, index, "test")) for index in count(asked.index + 1))
    said = [own, next(told for told in others if told != own)]
    if asked.index % 2:
        said.reverse()
    captions = [f"Caption {letter}: {text}" for letter, text in zip("AB", said, strict=True)]
    question = "\n".join(["Which caption matches the video better?", *captions])
    return {"question": question, "answer": captions[said.index(own)]}


def _captioning(asked: Question) -> dict[str, str]:
    choice = _multi_choice(asked)
    question = "Describe the video in one sentence."
    return {
        "question": question, "answer": _told(asked.scene), "mc_question": choice["question"],
        "mc_answer": choice["answer"],
    }  # fmt: skip


def _yes_no(asked: Question) -> dict[str, str]:
    more = asked.scene.ask_more
    assert more is not None, "there are more questions on a clip"
    turns = (turn for number in count() for turn in more(Random(f"yes or no {asked.index} {number}")))
    turn = next(turn for turn in turns if turn.kind in _YES_NO)
    return {"question": turn.question, "answer": turn.answer}


_FORMS: dict[str, Callable[[Question], dict[str, str]]] = {
    "multi-choice": _multi_choice,
    "caption_matching": _caption_matching,
    "captioning": _captioning,
    "yes_no": _yes_no,
}


def _cinepile(home: Path, rows: int) -> None:
    columns = []
    for number, asked in enumerate(_choices(rows, 5)):
        _write_clip(home / "videos" / f"{asked.video}.mp4", asked)
        columns.append({
            "movie_name": "Shapes", "year": 2026, "genre": "Drawing", "yt_clip_title": asked.video,
            "yt_clip_link": "", "movie_scene": "", "subtitles": f"<subtitle> {_told(asked.scene)}",
            "question": asked.turn.question, "choices": list(asked.options), "answer_key": asked.turn.answer,
            "answer_key_position": asked.options.index(asked.turn.answer),
            "question_category": ("Temporal", "Setting and\nTechnical Analysis")[number % 2],
            "hard_split": str(number % 3 == 0), "original_caption": "", "visual_reliance": True,
            "videoID": asked.video,
        })  # fmt: skip
    pyarrow, parquet = import_arrow()
    home.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(columns), home / "test-00000-of-00001.parquet")


TWINS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "cinepile": ("cinepile", _cinepile),
    "mlvu": ("MLVU", _mlvu),
    "mvbench": ("MVBench", _mvbench),
    "tempcompass": ("TempCompass", _tempcompass),
    "videomme": ("Video-MME", _videomme),
    "worldsense": ("WorldSense", _worldsense),
}


# ---- questions ------------------------------------------------------------------------------------------------------


def _choices(rows: int | None, options: int) -> Iterator[Question]:
    """Questions with that many options each, up to two on a clip. rows None: without end."""

    def found() -> Iterator[Question]:
        for index in count():
            scene = draw("video", SEED, index, "test")
            turns = [turn for turn in scene.turns if turn.kind in _POOLS and turn.answer in _POOLS[turn.kind]]
            for turn in turns[:2]:
                rng = Random(f"options {index} {turn.kind}")
                wrong = [option for option in _POOLS[turn.kind] if option != turn.answer]
                texts = [turn.answer, *rng.sample(wrong, min(options - 1, len(wrong)))]
                if len(texts) < options:
                    texts.append("nothing of these")
                rng.shuffle(texts)
                yield Question(index, scene, turn, tuple(texts))

    return islice(found(), rows)


def _told(scene: Scene) -> str:
    return next(turn.answer for turn in scene.turns if turn.kind == "happens")


def _task_of(asked: Question) -> str:
    return "Object Counting" if asked.turn.kind.startswith("count") else "Action Recognition"


# ---- files ----------------------------------------------------------------------------------------------------------


def _write_clip(path: Path, asked: Question) -> None:
    import av  # costs 40 ms

    if path.is_file():  # of another question on the same clip
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = _rendered(asked, FRAMES_A_SECOND)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND, options={"crf": "12"})
        stream.width, stream.height = clip.frames[0].size
        stream.pix_fmt = "yuv420p"
        for picture in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def _write_folder(path: Path, asked: Question) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(_rendered(asked, FOLDER_FPS).frames, 1):
        picture.save(path / f"{number:05}.jpg", quality=95)


def _rendered(asked: Question, fps: float) -> Clip:
    return render_clip(SEED, asked.index, "test", fps=fps)


def _write_subtitles(path: Path, asked: Question) -> None:
    """What happens, from beginning to end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"1\n00:00:00,000 --> 00:00:{int(asked.seconds):02},000\n{_told(asked.scene)}\n", encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
