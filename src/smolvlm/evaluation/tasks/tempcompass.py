"""TempCompass: actions, directions, speed, order and change in 410 videos, asked in four ways; captions need a judge.

Source: VLMEvalKit e8e78f0, dataset/tempcompass.py. Texts: video_prompts.toml, [tempcompass].
"""

from __future__ import annotations

from ..scorers import (
    Judge,
    Mode,
    Score,
    tempcompass_captioning,
    tempcompass_choice,
    tempcompass_matching,
    tempcompass_yes_no,
)
from ..task import Asked, Protocol, Row, Task
from ..video_layouts import read_tempcompass
from ..video_wrapper import VIDEO, Said, ask_about, video_texts

_DATASETS = {
    "multi-choice": "TempCompass_MCQ",
    "caption_matching": "TempCompass_MCQ",
    "captioning": "TempCompass_Captioning",
    "yes_no": "TempCompass_YorN",
}


def ask(row: Row, protocol: Protocol) -> Asked:
    form = row.fields["form"]
    message = [VIDEO, Said(row.question)]
    if after := video_texts("tempcompass")[form]:
        message.append(Said(after))
    return ask_about(row, protocol, _DATASETS[form], message)


def score(prediction: str, row: Row, mode: Mode, judge: Judge | None) -> Score:
    """The same in every mode: there are no other rules than the authors', which the harness has taken over."""
    form, answer = row.fields["form"], row.answers[0]
    if form == "multi-choice":
        return tempcompass_choice(prediction, answer, judge)
    if form == "yes_no":
        return tempcompass_yes_no(prediction, answer, judge)
    if form == "caption_matching":
        return tempcompass_matching(prediction, row.question.split("\n")[1:], answer, judge)
    return tempcompass_captioning(prediction, answer, judge)


TASKS = {
    "tempcompass": Task(
        "tempcompass", "TempCompass", "video", "accuracy", read_tempcompass, ask, score, ("form", "aspect")
    )
}
