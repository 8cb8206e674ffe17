"""Video data sets whose notes are no conversation (scenes, times, scores) -> questions of ours and their answers.

The questions are worded here, once for each kind of note. What is left out, the docstring of a format says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import DataError
from ...processing.chat import Message
from .conversations import DESCRIBE
from .placing import video
from .sample import Row, Sample, answer, as_list, make_sample, question

SCORES = (
    "visual quality", "temporal consistency", "dynamic degree", "text-to-video alignment", "factual consistency",
)  # fmt: skip
SCORES_BEGIN = "Score the video from 1 to 4 in"
WHOLE = "-1"  # ShareGPT4Video's number for the caption of the whole video


def from_sharegpt4video(row: Row) -> Sample:
    """ShareGPT4Video: `video_path`, `captions: [{idx, content}]`, `timestamp: [..]` of the key frames. idx "-1" is the
    whole video, told first; the others are asked for by the time of their key frame ("0-1" by that of the later)."""
    told = {str(caption["idx"]): caption["content"] for caption in as_list(row["captions"])}
    times = as_list(row.get("timestamp"))
    turns: list[tuple[str, Any]] = [(DESCRIBE["video"], told.pop(WHOLE))] if WHOLE in told else []
    for number, content in told.items():
        frame = int(number.split("-")[-1])
        when = f"at {times[frame]}" if frame < len(times) else f"in key frame {frame}"
        turns.append((f"What is shown {when}?", content))
    return make_sample(row, _talk(video(row["video_path"]), turns))


def from_vript(row: Row) -> Sample:
    """Vript: one file a video, `meta: {video_id, ..}` and `data: {clip id: {caption: {scene_title, shot_type,
    camera_movement, content}}}`. The video is `video_id`.mp4; its scenes make one script. What was said over it
    (`voiceover`) can't be seen and is left out."""
    scenes = []
    for number, clip in enumerate(row["data"].values(), 1):
        notes = clip["caption"]
        lines = [f"{name}: {notes[key]}" for key, name in _SCENE.items() if notes.get(key)]
        scenes.append("\n".join([f"Scene {number}", *lines]))
    film = video(f"{row['meta']['video_id']}.mp4")
    return make_sample(row, _talk(film, [("Write the script of the video, scene by scene.", "\n\n".join(scenes))]))


_SCENE = {"scene_title": "Title", "shot_type": "Shot", "camera_movement": "Camera", "content": "Content"}


def from_moviechat(row: Row) -> Sample:
    """MovieChat-1K: one file a video, `info: {video_path, fps}`, `caption`, `global: [{question, answer}]` on the whole
    and `breakpoint: [{question, answer, time}]` on a moment, whose time is the number of a frame."""
    info = row["info"]
    turns = [(DESCRIBE["video"], row["caption"])] if row.get("caption") else []
    turns += [(one["question"], one["answer"]) for one in as_list(row.get("global"))]
    for one in as_list(row.get("breakpoint")):
        turns.append((f"At {_clock(float(one['time']) / float(info['fps']))}: {one['question']}", one["answer"]))
    return make_sample(row, _talk(video(info["video_path"]), turns))


def from_finevideo(row: Row) -> Sample:
    """FineVideo: `mp4` (the file itself), `json: {content_metadata: {description, qAndA, scenes: [{title, activities:
    [{description, timestamp}], ..}]}}`. First the description, then its questions, then each scene's activities; cast,
    moods, storylines and all that is heard are left out."""
    notes = row["json"]["content_metadata"]
    turns = [(DESCRIBE["video"], notes["description"])] if notes.get("description") else []
    turns += [(one["question"], one["answer"]) for one in as_list(notes.get("qAndA"))]
    for number, scene in enumerate(as_list(notes.get("scenes")), 1):
        doings = [_activity(one) for one in as_list(scene.get("activities"))]
        if doings:
            name = f" ({scene['title']})" if scene.get("title") else ""
            turns.append((f"What happens in scene {number}{name}?", "\n".join(doings)))
    return make_sample(row, _talk(video(row["mp4"]), turns))


def from_videofeedback(row: Row) -> Sample:
    """VideoFeedback: `images` (frames, taken as one a second, for no rate is published) or `video link`, `text prompt`
    as the caption, and five scores of 1 to 4, asked for together. Its own `conversations` say the scores again."""
    frames = [_in_its_folder(one) for one in as_list(row.get("images"))]
    film = video(frames if frames else row["video link"])
    turns = [("Caption the video.", row["text prompt"])]
    scores = {name: row.get(name) for name in SCORES if row.get(name) is not None}
    if scores:
        turns.append((f"{SCORES_BEGIN} {', '.join(scores)}.", "\n".join(f"{k}: {v}" for k, v in scores.items())))
    return make_sample(row, _talk(film, turns))


def _in_its_folder(frame: Any) -> Any:
    """p110367_22.jpg lies in p110367/, as the archives of frames have it (TIGER-AI-Lab/Mantis reads them so)."""
    if not isinstance(frame, str) or "/" in frame or "_" not in frame:
        return frame
    return f"{frame.split('_')[0]}/{frame}"


def _talk(film: Mapping[str, Any], turns: list[tuple[str, Any]]) -> list[Message]:
    if not turns:
        raise DataError("The row says nothing of its video.")
    messages: list[Message] = []
    for asked, said in turns:
        messages += [question(asked, *([] if messages else [film])), answer(said)]
    return messages


def _activity(one: Mapping[str, Any]) -> str:
    """FineVideo writes times as texts (00:01:02.345); they are kept as written."""
    time = one.get("timestamp") or {}
    start, end = time.get("start_timestamp"), time.get("end_timestamp")
    return f"{start} - {end}: {one['description']}" if start and end else str(one["description"])


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
