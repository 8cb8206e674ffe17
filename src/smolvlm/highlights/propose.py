"""What counts as a highlight of a video, when nobody says: the model describes the whole of it, then lists moments.

The prompts are those of the published SmolVLM2 highlight demo. There both answers are sampled; here they are the
likeliest ones, so that the same video gives the same criteria, and they are handed back to be read and edited.

A model that doesn't follow instructions writes no list that it could judge by. Whether it can is asked, not assumed: of
some windows it must want to say yes or no. If it doesn't, it is asked what any video can be asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..vlm import VLM
from .index import Index
from .score import DOUBTFUL_MASS, question_for, score_windows
from .windows import cut_windows

DESCRIBE_SYSTEM = (
    "You are a helpful assistant that can understand videos. Describe what type of video this is and what's happening "
    "in it."
)
DESCRIBE = (
    "What type of video is this and what's happening in it? Be specific about the content type and general activities "
    "you observe."
)
EDITOR = (
    "You are a highlight editor. List archetypal dramatic moments that would make compelling highlights if they appear "
    "in the video. Each moment should be specific enough to be recognizable but generic enough to potentially exist in "
    "other videos of this type.",
    "List potential highlight moments to look for in this video:",
)
ASSISTANT = (
    "You are a helpful visual-language assistant that can understand videos and edit. You are tasked helping the user "
    "to create highlight reels for videos. Highlights should be rare and important events in the video in question.",
    "List dramatic moments that would make compelling highlights if they appear in the video. Each moment should be "
    "specific enough to be recognizable but generic enough to potentially exist in any video of this type:",
)
OF_ANY_VIDEO = ("Does anything happen?",)
WHOLE_FRAMES = 64  # of a whole video, as in the demo
DESCRIPTION_TOKENS, LIST_TOKENS = 512, 256
TRIED = 8  # windows that a list is tried on, spread over the video


@dataclass(frozen=True)
class Proposal:
    """The model's description of a video, what it would take for its highlights, and what is looked for.

    moments: its list. label_mass: of the windows that were asked about it, how much of the probability lay on yes and
    no. criteria: the list; where label_mass is too low for it to mean anything, what any video can be asked about.
    """

    description: str
    moments: str
    label_mass: float
    criteria: tuple[str, ...]

    @property
    def is_own(self) -> bool:
        """Whether the criteria are what the model listed."""
        return self.criteria == (self.moments,)


def propose_criteria(vlm: VLM, index: Index, *, max_image_tokens: int | None = None) -> Proposal:
    """Describe the whole video from frames spread over it, and ask for moments of such videos (the demo's second set).

    The demo judges by two lists and keeps the one by which less of the video is a highlight; the second asks for rare
    events and is the one it mostly keeps.
    """
    most = getattr(vlm.processor.video_processor, "num_frames", None) or WHOLE_FRAMES
    if max_image_tokens is not None:
        most = max(1, min(most, max_image_tokens // vlm.config.image_seq_len))
    whole = index.features(vlm, index.choose(0.0, index.duration_s + 1, min(most, WHOLE_FRAMES)), clip=False)
    description = vlm.ask(DESCRIBE, features=whole, system=DESCRIBE_SYSTEM, max_new_tokens=DESCRIPTION_TOKENS).text
    moments = list_moments(vlm, description, ASSISTANT)
    mass = _tried(vlm, index, moments, max_image_tokens) if moments else 0.0
    return Proposal(description, moments, mass, (moments,) if mass >= DOUBTFUL_MASS else OF_ANY_VIDEO)


def list_moments(
    vlm: VLM, description: str, prompts: tuple[str, str], *, temperature: float = 0.0, seed: int = 0
) -> str:
    """Moments to look for in a video of this description. prompts: (system, request), EDITOR or ASSISTANT."""
    system, request = prompts
    asked = f"Here is a description of a video:\n\n{description}\n\n{request}"
    return vlm.ask(asked, system=system, max_new_tokens=LIST_TOKENS, temperature=temperature, seed=seed).text.strip()


def _tried(vlm: VLM, index: Index, moments: str, max_image_tokens: int | None) -> float:
    """The label mass of some windows that are asked about the list."""
    windows = cut_windows(index.track, index.cuts, index.duration_s)
    some = windows[:: -(-len(windows) // TRIED)]
    return score_windows(vlm, index, some, [question_for(moments)], max_image_tokens=max_image_tokens).label_mass
