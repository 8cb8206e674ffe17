"""Video-MME: 900 videos of three lengths, 2 700 questions with four options; also with subtitles of the frames shown.

Source: VLMEvalKit e8e78f0, dataset/videomme.py. Texts: video_prompts.toml, [videomme].
"""

from __future__ import annotations

from collections.abc import Callable

from ..messages import options_of
from ..scorers import Judge, Mode, Score
from ..scorers import videomme as score_letter
from ..subtitles import subtitles_of
from ..task import Asked, Protocol, Row, Task
from ..video_layouts import read_videomme
from ..video_wrapper import VIDEO, Said, ask_about, video_texts


def asker(dataset: str, ahead: str, subtitled: bool) -> Callable[[Row, Protocol], Asked]:
    """How a set of this style asks. ahead: what is said before the frames."""

    def ask(row: Row, protocol: Protocol) -> Asked:
        texts = video_texts("videomme")
        said = texts["frames"]
        if subtitled:
            said = texts["frames_subtitled"].format(subtitles=subtitles_of(row, protocol))
        options = "\n".join(row.fields["candidates"])
        question = texts["question"].format(question=row.question, options=options)
        return ask_about(row, protocol, dataset, [Said(ahead), VIDEO, Said(said), Said(question)])

    return ask


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return score_letter(prediction, options_of(row), row.fields["answer"], mode, judge=judge)


_GROUPS = ("duration", "domain", "sub_category", "task_type")
TASKS = {
    name: Task(name, title, "video", "accuracy", read_videomme, asker("Video-MME", "", subtitled), score, _GROUPS)
    for name, title, subtitled in (
        ("videomme", "Video-MME", False),
        ("videomme-subtitles", "Video-MME with subtitles", True),
    )
}
