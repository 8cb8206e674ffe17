"""What lmms-eval finds of us: `lmms-eval --model smolvlm --model_args pretrained=NAME --tasks ...` after pip install.

The entry point lmms_eval.models of pyproject.toml names `manifest`; the class is lmms_eval_model.py's. What the
harness's generation settings mean to us is here, too.
Source: EvolvingLMMs-Lab/lmms-eval 75571cf: models/registry_v2.py, models/chat/huggingface.py, docs/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

    from ...vlm.requests import AskRequest

MODEL = "smolvlm"
CLASS = "smolvlm.evaluation.harness.lmms_eval_model.SmolVLM"
SAMPLING = ("temperature", "top_p", "top_k")
BOUNDS = {"video_start", "video_end"}  # seconds, in a block of the harness
PLAIN = {"temperature": 1.0}  # what do_sample alone means in transformers


def manifest() -> ModelManifest:
    """Called by lmms-eval, so that it is there."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL, chat_class_path=CLASS)


def request_for(turns: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], seed: int) -> AskRequest:
    """Messages and generation_kwargs of a task -> a request; pictures cut as the released models cut them.

    settings: until (texts that end an answer), max_new_tokens, repetition_penalty, do_sample, temperature, top_p,
    top_k; others are for other models. Without do_sample, a temperature above 0 asks for sampling. seed: of what is
    sampled. Raises InputError for several beams, and for a part of a video.
    """
    if (beams := settings.get("num_beams")) not in (None, 1):
        raise InputError(f"num_beams={beams}: this model writes one answer at a time. Set it to 1.")
    if any(BOUNDS & block.keys() for turn in turns for block in turn["content"]):
        raise InputError("The task asks about a part of a video, and only whole ones are shown: cut its videos first.")
    request: dict[str, Any] = {"messages": list(turns), "detail": "high"}
    for name in ("max_new_tokens", "repetition_penalty"):
        if settings.get(name) is not None:
            request[name] = settings[name]
    if settings.get("until"):
        request["stop"] = settings["until"]
    temperature = settings.get("temperature")
    if settings.get("do_sample", bool(temperature)):
        asked = {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
        request |= PLAIN | asked | {"seed": seed}
    return request  # type: ignore[return-value]  # built by name
