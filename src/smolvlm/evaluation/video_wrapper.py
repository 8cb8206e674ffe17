"""A message about a video -> a request: as VLMEvalKit's SmolVLM and SmolVLM2 classes write it, or as a plain chat.

SmolVLM2 has a prompt for videos, which the published scores were measured with. SmolVLM, and SmolVLM2 for sets that it
doesn't know (WorldSense), take a video for that many pictures and write wrapper.py's prompt.
Source: VLMEvalKit e8e78f0, vlmeval/vlm/smolvlm.py. Texts: video_prompts.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from string import ascii_uppercase
from typing import Any, Literal

from ..media.video import open_video
from ..vlm.requests import AskRequest
from .frames import Rule, Shown, show
from .messages import MAX_NEW_TOKENS
from .task import Asked, Protocol, Row
from .wrapper import written_prompt


@dataclass(frozen=True)
class Said:
    """A text of a message. Without a role it is the user's; "assistant" begins the answer."""

    text: str
    role: Literal["system", "assistant"] | None = None


VIDEO = object()  # where the frames go in a message
Message = Sequence[Said | object]


def ask_about(
    row: Row, protocol: Protocol, dataset: str, message: Message, rule: Rule = "even",
    bound: tuple[float, float] | None = None,
) -> Asked:  # fmt: skip
    """Put a message about the row's video. dataset: its name in VLMEvalKit. rule, bound: see frames.choose.

    Raises VideoError for a video that can't be opened or decoded.
    """
    assert row.video is not None, "a row of a video benchmark has a video"
    tokens = protocol.max_new_tokens or MAX_NEW_TOKENS
    if protocol.wrapper == "chat":
        return ask_in_chat(row, protocol, message, rule, bound, tokens)
    shown = show(row.video, protocol, rule, bound)
    if protocol.wrapper == "smolvlm":
        prompt, _ = written_prompt(_with_pictures(message, shown), dataset, protocol.wrapper)
    else:
        prompt = video_prompt(message, shown.places, dataset)
    detail: Literal["high", "low"] = "high" if protocol.wrapper == "smolvlm" else "low"
    return written(prompt, shown, detail, tokens)


def written(prompt: str, shown: Shown, detail: Literal["high", "low"], max_new_tokens: int) -> Asked:
    """A written prompt and its frames as a request."""
    request = AskRequest(prompt=prompt, images=list(shown.pictures), detail=detail, max_new_tokens=max_new_tokens)
    return Asked(request, prompt, shown.seconds)


def video_prompt(message: Message, places: Sequence[int], dataset: str, *more: Sequence[int]) -> str:
    """SmolVLM2's prompt for a video, one `<image>` a frame. places: what it takes for the frames' seconds.

    more: the same of further runs of frames, where a message has texts between frames; they all go ahead of its texts.
    """
    texts = video_texts("wrapper")
    said = [part for part in message if isinstance(part, Said)]
    system = [part.text for part in said if part.role == "system"] or [texts["default_system"]]
    frames = []
    for run in filter(None, (places, *more)):
        frames += [texts["frame"].format(clock=f"{place // 60:02}:{place % 60:02}") for place in run]
        frames.append(texts["frames_end"])
    asked = [part.text.strip() for part in said if part.role != "system"]
    prompt = " ".join([
        texts["system"], system[0], texts["system_end"], texts["user"], texts["opening"], *frames,
        *asked, texts["end"],
    ])  # fmt: skip
    for rewording in texts["rewordings"]:
        if dataset in rewording["datasets"] and rewording.get("when", "") in prompt:
            for old, new in rewording["replace"]:
                prompt = prompt.replace(old, new)
    return prompt


def ask_in_chat(
    row: Row, protocol: Protocol, message: Message, rule: Rule, bound: tuple[float, float] | None, max_new_tokens: int
) -> Asked:
    """One user turn in the model's own template, the video with its times as trained.

    A whole file at a frame rate takes the model's own road, which chooses the frames itself; else we choose them.
    """
    assert row.video is not None, "a row of a video benchmark has a video"
    if protocol.fps is not None and bound is None and row.video.is_file():
        open_video(row.video)  # so that a damaged one shows here
        block: dict[str, object] = {"video": str(row.video), "fps": protocol.fps, "max_frames": protocol.frames}
        seconds: tuple[float, ...] = ()
    else:
        shown = show(row.video, protocol, rule, bound)
        block, seconds = {"video": list(shown.pictures), "timestamps_s": list(shown.seconds)}, shown.seconds
    content: list[dict[str, object]] = []
    for part in message:
        if not isinstance(part, Said):
            content.append({"type": "video", **block})
        elif part.role is None and part.text.strip():
            content.append({"type": "text", "text": part.text})
    messages: list[Mapping[str, object]] = [{"role": "user", "content": content}]
    system = [part.text for part in message if isinstance(part, Said) and part.role == "system"]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system[0]}]})
    prompt = "".join([*system, *(str(part.get("text", "<video>")) for part in content)])
    return Asked(AskRequest(messages=messages, max_new_tokens=max_new_tokens), prompt, seconds)


@lru_cache
def video_texts(section: str) -> Mapping[str, Any]:
    """A table of video_prompts.toml."""
    content = files(__package__).joinpath("video_prompts.toml").read_text(encoding="utf-8")
    texts: dict[str, Any] = tomllib.loads(content)[section]
    return texts


def option_lines(options: Sequence[str]) -> str:
    """Options on lines of their own: (A) left."""
    return "\n".join(f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def _with_pictures(message: Message, shown: Shown) -> list[Mapping[str, object]]:
    parts: list[Mapping[str, object]] = []
    for part in message:
        if isinstance(part, Said):
            parts.append({"type": "text", "value": part.text})
        else:
            parts += [{"type": "image", "value": picture} for picture in shown.pictures]
    return parts
