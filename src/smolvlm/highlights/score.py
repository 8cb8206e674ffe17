"""How sure a model is that a window shows what was asked for: the probability of yes, read from its logits.

Nothing is generated and no text is searched. What the yes is an answer to is a template, which a caller may replace:
released models were taught instructions, and answer DOES_IT_SHOW; the bundled nano knows its own questions only, such
as "Does anything appear?", which may be given as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..vlm import VLM
from .index import Index
from .look import Progress
from .windows import Window

DOES_IT_SHOW = "Does this clip show: {criteria}? yes or no"
MATCHES_ONE = (  # for a list of examples; the published question, without its request for a justification
    "Given these highlight examples:\n{criteria}\n\nDoes this video contain a moment that matches the core action of "
    "one of the highlights? Answer with:\n'yes' or 'no'"
)
FRAMES_AT_ONCE = 16  # shown for one window, unless the checkpoint or the caller says less
FEWEST_FRAMES = 4  # of one or two frames nano says of three windows in four that something moves, of four it doesn't
DOUBTFUL_MASS = 0.5  # below it the model would rather say something else: it doesn't know the question


@dataclass(frozen=True)
class Scores:
    """yes[i]: of window i, the highest of all questions. label_mass: how much of the probability lay on yes and no."""

    yes: tuple[float, ...]
    label_mass: float


def question_for(criterion: str, template: str | None = None) -> str:
    """What is asked about each window. A criterion that is a question is asked as it is, unless there is a template.

    template: has {criteria} in the place of the criterion, or is the whole question.
    """
    criterion = criterion.strip()
    if not criterion:
        raise InputError("The criteria are empty. Say what counts, e.g. 'a goal is scored'.")
    if template is not None:
        return template.replace("{criteria}", criterion)
    if "\n" in criterion:
        return MATCHES_ONE.replace("{criteria}", criterion)
    return criterion if criterion.endswith("?") else DOES_IT_SHOW.replace("{criteria}", criterion.rstrip(". "))


def most_frames(vlm: VLM, max_image_tokens: int | None = None) -> int:
    """How many frames one window may show: the checkpoint's limit and the caller's budget of image tokens."""
    own = min(FRAMES_AT_ONCE, getattr(vlm.processor.video_processor, "num_frames", None) or FRAMES_AT_ONCE)
    if max_image_tokens is None:
        return own
    each = vlm.config.image_seq_len
    if max_image_tokens < each:
        raise InputError(f"max_image_tokens={max_image_tokens} is less than one frame takes in this model: {each}.")
    return min(own, max_image_tokens // each)


def score_windows(
    vlm: VLM,
    index: Index,
    windows: Sequence[Window],
    questions: Sequence[str],
    *,
    system: str | None = None,
    max_image_tokens: int | None = None,
    on_progress: Progress | None = None,
) -> Scores:
    """Ask every question about every window; one forward each, from features that were encoded already.

    Windows that show the same frames, as those of a slide do that stands for minutes, are asked about once. Blank ones
    aren't asked about: of nothing, models say anything. Their score is 0.
    """
    most = most_frames(vlm, max_image_tokens)
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    found = []
    for done, window in enumerate(windows, 1):
        places = tuple(map(int, index.choose(window.from_s, window.to_s, most)))
        if places not in known and index.is_blank(np.array(places)):
            known[places] = 0.0, math.nan
        elif places not in known:
            shown = index.features(vlm, np.array(places), fewest=min(FEWEST_FRAMES, most))
            decisions = [vlm.decide(question, features=shown, system=system) for question in questions]
            yes = max(decision.probabilities["yes"] for decision in decisions)
            known[places] = yes, max(decision.label_mass for decision in decisions)
        found.append(known[places])
        if on_progress is not None:
            on_progress(done, len(windows))
    scores, masses = zip(*found, strict=True)
    asked = [mass for mass in masses if not math.isnan(mass)]
    return Scores(scores, float(np.mean(asked)) if asked else 1.0)
