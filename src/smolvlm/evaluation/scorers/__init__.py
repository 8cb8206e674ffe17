"""Scorers of vision-language benchmarks: pure functions from an answer and its references to a Score.

mode says whose rule counts: "vlmevalkit" (the published SmolVLM numbers come from it), "official" (the benchmark's own
code), "strict" (ours: the rule without the accidents of either). A scorer without the argument has one rule for all.
Nothing is drawn at random unless a generator is handed in, and nobody is asked unless a judge is.
"""

from .choice import leading_letter, multiple_choice
from .mathvista import mathvista
from .open_answer import mmmu_open
from .score import Judge, Mode, Score, Status
from .tempcompass import tempcompass_captioning, tempcompass_choice, tempcompass_matching, tempcompass_yes_no
from .text import anls, containment, exact_match, relaxed_accuracy
from .video import cinepile, mlvu, mvbench, videomme
from .vqa import normalise_answer, textvqa_accuracy, vqa_accuracy

__all__ = [
    "Judge",
    "Mode",
    "Score",
    "Status",
    "anls",
    "cinepile",
    "containment",
    "exact_match",
    "leading_letter",
    "mathvista",
    "mlvu",
    "mmmu_open",
    "multiple_choice",
    "mvbench",
    "normalise_answer",
    "relaxed_accuracy",
    "tempcompass_captioning",
    "tempcompass_choice",
    "tempcompass_matching",
    "tempcompass_yes_no",
    "textvqa_accuracy",
    "videomme",
    "vqa_accuracy",
]
