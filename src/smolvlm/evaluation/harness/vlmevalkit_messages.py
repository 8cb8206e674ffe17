"""A message of VLMEvalKit's -> a request of ours. Its harness isn't needed for that.

A message is a list of {"type": "text", "image" or "video", "value", and perhaps "role"}. What is written around it is
wrapper.py's and video_wrapper.py's. Source: open-compass/VLMEvalKit e8e78f0: vlmeval/vlm/smolvlm.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ...media.image import open_image
from ..frames import fit_longest_edge
from ..messages import MAX_NEW_TOKENS, ask_image
from ..task import Protocol
from ..video_wrapper import Said, video_prompt

if TYPE_CHECKING:
    from ...vlm.requests import AskRequest

Part = Mapping[str, object]

# The data sets whose frames SmolVLM2's class writes into its prompt for videos; of others they are so many pictures.
VIDEO_SETS = frozenset([
    "MMBench-Video", "MLVU", "MLVU_MCQ", "MLVU_OpenEnded", "TempCompass", "TempCompass_MCQ", "TempCompass_Captioning",
    "TempCompass_YorN", "MVBench", "MVBench_MP4", "Video-MME", "LongVideoBench",
])  # fmt: skip


def request_for(message: Sequence[Part], dataset: str, protocol: Protocol) -> AskRequest:
    """The request of one message. dataset: its name in the harness.

    Raises ImageError for a picture that can't be decoded, InputError for a part that the wrapper has no place for.
    """
    if protocol.wrapper == "smolvlm2" and dataset in VIDEO_SETS:
        return _about_frames(message, dataset, protocol)
    if protocol.wrapper == "chat" and any(part["type"] == "video" for part in message):
        return _about_videos(message, protocol)
    return ask_image(message, dataset, protocol).request


def turns_of(messages: Sequence[Mapping[str, object]], protocol: Protocol) -> AskRequest:
    """Several turns [{"role", "content": message}] -> a request in the model's own template."""
    turns = [{"role": turn["role"], "content": [_block(part, protocol) for part in _parts(turn)]} for turn in messages]
    return {"messages": turns, "detail": "high", "max_new_tokens": _most_tokens(protocol)}


def _about_frames(message: Sequence[Part], dataset: str, protocol: Protocol) -> AskRequest:
    """Runs of frames, each thinned to the protocol's number and fitted to its size, one tile a frame."""
    runs = [list(run) for of_image, run in groupby(message, key=lambda part: part["type"] == "image") if of_image]
    places = [_thinned(len(run), protocol.frames) for run in runs]
    frames = [
        fit_longest_edge(open_image(run[place]["value"], quirks=True), protocol.frame_side)
        for run, kept in zip(runs, places, strict=True)
        for place in kept
    ]
    said = [_said(part) for part in message if part["type"] == "text"]
    prompt = video_prompt(said, places[0] if places else [], dataset, *places[1:])
    return {"prompt": prompt, "images": frames, "detail": "low", "max_new_tokens": _most_tokens(protocol)}


def _about_videos(message: Sequence[Part], protocol: Protocol) -> AskRequest:
    """One user turn in the model's own template, behind the system's text. What begins the answer is left out."""
    user = [_block(part, protocol) for part in message if part.get("role") in (None, "user")]
    turns: list[Mapping[str, object]] = [{"role": "user", "content": user}]
    if system := [_block(part, protocol) for part in message if part.get("role") == "system"]:
        turns.insert(0, {"role": "system", "content": system})
    return {"messages": turns, "max_new_tokens": _most_tokens(protocol)}


def _block(part: Part, protocol: Protocol) -> dict[str, object]:
    kind, value = str(part["type"]), part["value"]
    block: dict[str, object] = {"type": kind, kind: value}
    if kind == "video":
        block |= {"max_frames": protocol.frames}
        if protocol.fps is not None:
            block |= {"fps": protocol.fps}
    return block


def _said(part: Part) -> Said:
    return Said(str(part["value"]), "system" if part.get("role") == "system" else None)


def _parts(turn: Mapping[str, object]) -> Sequence[Part]:
    content = turn["content"]
    assert isinstance(content, list), "the harness turns every content into a list of parts"
    return content


def _thinned(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, most, dtype=int).tolist() if count > most else list(range(count))


def _most_tokens(protocol: Protocol) -> int:
    return protocol.max_new_tokens or MAX_NEW_TOKENS
