"""WorldSense: 1 662 videos, 3 172 questions with four options; without the sound, which the family can't hear.

VLMEvalKit's SmolVLM2 shows this set as single pictures, each in many tiles; the published numbers can't come from that,
so the wrapper "smolvlm2" writes its prompt for videos here, and "smolvlm" what both classes do.
Source: VLMEvalKit e8e78f0, dataset/worldsense.py. Texts: video_prompts.toml, [worldsense] and [videomme].
"""

from __future__ import annotations

from ..task import Task
from ..video_layouts import read_worldsense
from ..video_wrapper import video_texts
from .videomme import asker, score

_GROUPS = ("domain", "sub_category", "task_domain", "task_type")
TASKS = {
    name: Task(
        name, title, "video", "accuracy", read_worldsense,
        asker("WorldSense", video_texts("worldsense")["system"], subtitled), score, _GROUPS,
    )
    for name, title, subtitled in (
        ("worldsense", "WorldSense", False),
        ("worldsense-subtitles", "WorldSense with subtitles", True),
    )
}  # fmt: skip
