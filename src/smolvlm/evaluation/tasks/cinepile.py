"""CinePile (test): five options on scenes of films, with their subtitles; five categories, and a hard split.

Asked as the family's first release was: up to 50 frames, one a second, cropped to a square and left unsplit, behind
"Answer briefly.". Source: lmms-eval 75571cf, tasks/cinepile. Texts: video_prompts.toml, [cinepile].
"""

from __future__ import annotations

from ..frames import show
from ..messages import options_of
from ..scorers import Judge, Mode, Score
from ..scorers import cinepile as score_answer
from ..task import Asked, Protocol, Row, Task
from ..video_layouts import read_cinepile
from ..video_wrapper import VIDEO, Said, ask_in_chat, video_texts, written

_MAX_NEW_TOKENS = 16


def question_of(row: Row) -> str:
    """lmms-eval's text of a question."""
    texts = video_texts("cinepile")
    options = [f"- {letter}) {option}" for letter, option in zip("ABCDE", options_of(row), strict=False)]
    said = texts["before"] + texts["subtitles"].format(subtitles=row.fields["subtitles"])
    return said + texts["question"].format(question=row.question, options="\n".join(options)) + "\n" + texts["after"]


def ask(row: Row, protocol: Protocol) -> Asked:
    tokens = protocol.max_new_tokens or _MAX_NEW_TOKENS
    text = question_of(row)
    if protocol.wrapper == "chat":
        return ask_in_chat(row, protocol, [VIDEO, Said(text)], "steps", None, tokens)
    assert row.video is not None, "a row of a video benchmark has a video"
    shown = show(row.video, protocol, "steps")
    prompt = video_texts("cinepile")["prompt"].format(frames="<image>" * len(shown.pictures), text=text)
    return written(prompt, shown, "low", tokens)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return score_answer(prediction, options_of(row), row.fields["answer"], mode)


TASK = Task("cinepile", "CinePile", "video", "accuracy", read_cinepile, ask, score, ("category", "hard"))
