"""The class that lmms-eval asks, in its chat form: messages of a task in, answers out, in the order of the requests.

Importing this imports the harness. Source: EvolvingLMMs-Lab/lmms-eval 75571cf: api/model.py, api/instance.py,
protocol.py, models/chat/huggingface.py.
"""

from __future__ import annotations

import os
from typing import NoReturn

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from rich.progress import track

from ...errors import InputError
from ...vlm import best_device, load
from ...vlm.requests import AskRequest
from .lmms_eval import request_for


class SmolVLM(lmms):
    """A loaded model behind the harness's interface. Requests of different settings share a batch."""

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        dtype: str | None = None,
        device: str | None = None,
        runtime: str = "auto",
        adapter: str | None = None,
        seed: int = 0,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
    ) -> None:
        """pretrained: directory or hub id; left out, it is the bundled model. seed: of what a task samples.

        device: each process of a run of several takes the GPU of its rank. batch_size: "auto" is max_batch_size, or 16.
        """
        super().__init__()
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        if device in (None, "cuda") and ranks > 1 and best_device() == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.vlm = load(pretrained, device=device, dtype=dtype, runtime=runtime, adapter=adapter)
        self.batch_size = (max_batch_size or 16) if batch_size == "auto" else int(batch_size or 1)
        self.device = self.vlm.device
        self.seed = seed

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers with the tokens that they took."""
        starts = range(0, len(requests), self.batch_size)
        results = []
        for start in track(starts, description="Answering", disable=self.rank != 0):
            batch = requests[start : start + self.batch_size]
            asked = [self._asked(request, start + place) for place, request in enumerate(batch)]
            for request, answer in zip(batch, self.vlm.ask_batch(asked, batch_size=self.batch_size), strict=True):
                text = answer.text.strip()
                counts = TokenCounts(input_tokens=answer.prompt_tokens, output_tokens=len(answer.token_ids))
                results.append(GenerationResult(text, counts))
                self.cache_hook.add_partial("generate_until", (request.args[0], request.args[2]), text)
        return results

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        self._refuse(requests, "asks for likelihoods")

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        self._refuse(requests, "goes several rounds")

    def _refuse(self, requests: list[Instance], what: str) -> NoReturn:
        task = requests[0].task_name if requests else "a task"
        raise InputError(
            f"{task} {what}, and this model is asked once for a text: name tasks of output_type generate_until."
        )

    def _asked(self, request: Instance, place: int) -> AskRequest:
        _, to_messages, settings, number, task, split = request.args
        messages = ChatMessages(messages=to_messages(self.task_dict[task][split][number]))
        return request_for(messages.to_hf_messages(), settings, self.seed + place)
