"""MVBench: 20 kinds of questions on short clips, 200 each; some on a part of a video, one kind on folders of frames.

The harness keeps frames by the video's name, so that a second question on another part of it is shown the frames of the
first; here each has its own. Source: VLMEvalKit e8e78f0, dataset/mvbench.py. Texts: video_prompts.toml, [mvbench].
"""

from __future__ import annotations

from ..messages import options_of
from ..scorers import Judge, Mode, Score
from ..scorers import mvbench as score_letter
from ..task import Asked, Protocol, Row, Task
from ..video_layouts import read_mvbench
from ..video_wrapper import VIDEO, Said, ask_about, option_lines, video_texts


def ask(row: Row, protocol: Protocol) -> Asked:
    texts = video_texts("mvbench")
    question = texts["question"].format(question=row.question, options=option_lines(options_of(row))).rstrip()
    said = [Said(question), Said(texts["after"]), Said(texts["answer"], "assistant")]
    message = [Said(texts["system"], "system"), VIDEO, *said]
    return ask_about(row, protocol, "MVBench", message, "segments", row.fields["bound"])


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    return score_letter(prediction, options_of(row), row.fields["answer"], mode, judge=judge)


TASK = Task("mvbench", "MVBench", "video", "accuracy", read_mvbench, ask, score, ("task",))
