"""What replies of several routes have in common: their names, their cost, the frames that were seen, logprobs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from secrets import token_hex
from typing import Any

from ..types import Answer, FramesSeen, TokenLogprob

Fields = dict[str, Any]
VERSION = metadata.version("smolvlm")


def new_id(prefix: str) -> str:
    """A name that no other reply has, such as "chatcmpl-5f..."."""
    return f"{prefix}{token_hex(16)}"


def usage(answers: Sequence[Answer]) -> Fields:
    """The cost of one request: its prompt once, and all its answers."""
    first, new = answers[0], sum(len(answer.token_ids) for answer in answers)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": new,
        "total_tokens": first.prompt_tokens + new,
        "prompt_tokens_details": {
            "cached_tokens": first.cached_tokens,
            "image_tokens": first.image_tokens,
            "text_tokens": first.prompt_tokens - first.image_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def seen(frames: Sequence[FramesSeen]) -> Fields:
    """An extension: which frames of the videos were shown to the model. Nothing without videos."""
    if not frames:
        return {}
    videos = [
        {"source": one.source, "timestamps_s": one.timestamps_s, "indices": one.indices, "duration_s": one.duration_s}
        for one in frames
    ]
    return {"smolvlm": {"frames": videos}}


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> list[Fields]:
    """Of chat completions and responses."""
    return [{**_token(one), "top_logprobs": [_token(top) for top in one.top]} for one in tokens]


def _token(one: TokenLogprob) -> Fields:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.bytes)}
