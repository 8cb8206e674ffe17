"""The class that VLMEvalKit asks: its messages in, answers out. Importing this imports the harness.

Prompts and pictures are those of the evaluation's own tasks (messages.py, video_wrapper.py), so that both give one
answer. The harness's class changes its image processor for a video and leaves it so; here every request carries how its
own pictures are looked at.
Source: open-compass/VLMEvalKit e8e78f0: vlmeval/vlm/base.py, vlmeval/vlm/smolvlm.py, vlmeval/inference.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vlmeval.vlm.base import BaseModel

from ...vlm import load
from .vlmevalkit import protocol_for
from .vlmevalkit_messages import Part, request_for, turns_of


class SmolVLM(BaseModel):
    """A loaded model behind the harness's interface.

    VIDEO_LLM: videos come as files; else as frames, which is what the published scores were measured with.
    """

    INTERLEAVE = True

    def __init__(
        self,
        model_path: str | None = None,
        *,
        wrapper: str | None = None,
        frame_side: int | None = None,
        max_new_tokens: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        runtime: str = "auto",
        adapter: str | None = None,
    ) -> None:
        """model_path: directory or hub id; None is the bundled model. The others: see vlmevalkit.py's options."""
        super().__init__()
        self.protocol = protocol_for(model_path, wrapper, frame_side, max_new_tokens)
        self.VIDEO_LLM = self.protocol.wrapper == "chat"
        self.vlm = load(model_path, device=device, dtype=dtype, runtime=runtime, adapter=adapter)

    @property
    def is_api(self) -> bool:
        """Whether the harness asks from several threads (its --api-nproc), which the engine answers together.

        It has no such way in a run of several processes; of these it says nothing while a model is made, only later.
        """
        return int(os.environ.get("WORLD_SIZE", "1")) == 1

    def generate_inner(self, message: Sequence[Part], dataset: str | None = None) -> str:
        return self.vlm.ask(**request_for(message, dataset or "", self.protocol)).text.strip()

    def chat_inner(self, message: Sequence[Mapping[str, object]], dataset: str | None = None) -> str:
        """Several turns, in the model's own template."""
        return self.vlm.ask(**turns_of(message, self.protocol)).text.strip()
