"""VLMEvalKit's message about a picture -> the prompt that its SmolVLM or SmolVLM2 class writes, to the byte.

Videos are video_wrapper.py's; what the message says, the tasks'. Texts and source: prompts.toml, [wrapper].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..errors import InputError
from .prompts import prompt_texts

WRAPPERS = ("smolvlm", "smolvlm2")


def written_prompt(parts: Sequence[Mapping[str, object]], dataset: str, wrapper: str) -> tuple[str, list[object]]:
    """The prompt, with `<image>` where pictures go, and the values of the pictures in their order.

    parts: {"type": "image" or "text", "value"}, as VLMEvalKit's data sets build them. dataset: its name there; an
    unknown one gets the default style. Some styles write one `<image>` however many pictures there are.
    Raises InputError for another wrapper and for a part that is neither picture nor text.
    """
    if wrapper not in WRAPPERS:
        raise InputError(f"There is no wrapper {wrapper!r}. The wrappers are: {', '.join(WRAPPERS)}.")
    texts, style = _wrapper(), _style(dataset)
    images: list[object] = []
    body = ""
    for part in parts:
        if part["type"] == "image":
            images.append(part["value"])
            body += style.get("image", "<image>").replace("{k}", str(len(images)))
        elif part["type"] == "text":
            body += _reworded(str(part["value"]), style)
        else:
            raise InputError(f"A part of a message is of type {part['type']!r}; here it must be image or text.")
    ahead = "".join(style.get("ahead", "").replace("{k}", str(k)) for k in range(1, len(images) + 1))
    before = style.get("before", "")
    if wrapper in style.get("typographic", ()):
        before = before.replace("'", "\u2019")
    prompt = texts["user"] + before + ahead + body + style.get("after", "") + texts["end"]
    answer = style.get("answer")
    if answer == "always" or (answer == "lettered" and "A." in prompt and "B." in prompt):
        prompt += texts["answer"]
    return prompt, images


def _reworded(text: str, style: Mapping[str, Any]) -> str:
    text = text.strip()
    for old, new in style.get("replace", ()):
        text = text.replace(old, new)
    if style.get("hint_last") and text.startswith("Hint:"):
        hint, _, rest = text.partition("\nQuestion:")
        question, _, choices = rest.partition("\nChoices:")
        text = f"Question:{question}\n{hint}\nChoices:{choices}"
    return text.strip()


@lru_cache(maxsize=1)
def _wrapper() -> dict[str, Any]:
    return prompt_texts("wrapper")


@lru_cache
def _style(dataset: str) -> dict[str, Any]:
    styles: dict[str, dict[str, Any]] = _wrapper()["styles"]
    return next((style for style in styles.values() if dataset in style.get("datasets", ())), styles["default"])
