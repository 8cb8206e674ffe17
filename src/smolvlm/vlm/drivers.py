"""The two ways from a prepared request to its tokens: PyTorch with the plain loop, the native motor with the engine.

A driver owns its model and the lock around it; the lock is held during a step, never between two.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..config import SmolVLMConfig
from ..generation.scoring import Spelling
from ..types import FramesSeen, Inputs, SamplingParams
from .answers import Writer

if TYPE_CHECKING:
    import torch

    from ..generation.scheduler import Generation
    from ..model import SmolVLMForConditionalGeneration
    from ..processing.processor import SmolVLMProcessor
    from ..runtimes.motor import Motor

SAMPLED = 64  # values of each tensor that go into a fingerprint


@dataclass(frozen=True)
class Prepared:
    """A request as a model takes it. features: (tiles, image tokens, hidden), None without pictures."""

    input_ids: np.ndarray
    features: Any
    image_tokens: int
    frames: tuple[FramesSeen, ...]
    params: SamplingParams


class Driver(Protocol):
    """What VLM needs of a runtime. Features are arrays of the runtime's own kind."""

    @property
    def config(self) -> SmolVLMConfig: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    def fingerprint(self) -> str:
        """A short name of the weights that look at pictures, and of their dtype."""
        ...

    def encode(self, pixel_values: np.ndarray) -> Any:
        """(tiles, 3, side, side) -> (tiles, image tokens, hidden)."""
        ...

    def join(self, features: Sequence[Any]) -> Any:
        """Several features as one."""
        ...

    def write(self, prepared: Sequence[Prepared], writers: Sequence[Writer]) -> Iterator[None]:
        """Let the writers write; yields after every step."""
        ...

    def score(self, prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[float]:
        """The log probability of each choice, see generation.scoring."""
        ...


class TorchDriver:
    """Any device that PyTorch has; batches are padded on the left and keep together to the end."""

    def __init__(
        self, model: SmolVLMForConditionalGeneration, processor: SmolVLMProcessor, end_ids: frozenset[int]
    ) -> None:
        self.model = model
        self._processor = processor
        self._end_ids = end_ids
        self._lock = threading.Lock()

    @property
    def config(self) -> SmolVLMConfig:
        return self.model.config

    @property
    def device(self) -> str:
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def fingerprint(self) -> str:
        """A sample of every tensor is hashed."""
        model = self.model.model
        digest = blake2b(str(self.dtype).encode(), digest_size=8)
        for part in (model.vision_model, model.connector):
            for name, tensor in part.state_dict().items():
                sample = tensor.flatten()[:: max(1, tensor.numel() // SAMPLED)][:SAMPLED].float().cpu().numpy()
                digest.update(name.encode() + sample.tobytes())
        return digest.hexdigest()

    def encode(self, pixel_values: np.ndarray) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(pixel_values)[None].to(self.model.device)
        with self._lock, torch.inference_mode():
            return self.model.model.get_image_features(pixels)

    def join(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.cat([one.to(self.model.device) for one in features])

    def write(self, prepared: Sequence[Prepared], writers: Sequence[Writer]) -> Iterator[None]:
        from ..generation.generate import iter_steps

        steps = iter_steps(
            self.model,
            self._batch(prepared),
            [one.params for one in prepared],
            eos_token_ids=self._end_ids,
            stop_check=lambda row, token_id: writers[row].take(token_id),
        )
        while True:
            with self._lock:
                step = next(steps, None)
            if step is None:
                return
            for token in step:
                if token.finish_reason is not None:
                    writers[token.row].finish(token.finish_reason)
            yield

    def score(self, prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[float]:
        from ..generation.scoring import score_choices

        with self._lock:
            return score_choices(self.model, self._batch([prepared]), choices)

    def _batch(self, prepared: Sequence[Prepared]) -> dict[str, torch.Tensor]:
        """Requests -> one left-padded batch; each row's pictures are encoded already, one row after another."""
        import torch

        rows = [Inputs(input_ids=one.input_ids, pixel_values=None) for one in prepared]
        batch = {
            name: torch.from_numpy(array).to(self.model.device) for name, array in self._processor.collate(rows).items()
        }
        features = [one.features for one in prepared if one.features is not None]
        if features:
            batch["image_hidden_states"] = torch.cat(features)
        return batch


class NativeDriver:
    """The CPU motor behind the engine: requests of several threads are answered together, each as if it were alone."""

    def __init__(self, motor: Motor, end_ids: frozenset[int], limits: Mapping[str, int]) -> None:
        """limits: memory_bytes and other arguments of Engine."""
        from ..generation.engine import Engine

        self.motor = motor
        self._engine = Engine(motor, **limits)
        self._end_ids = end_ids
        self._lock = threading.Lock()

    @property
    def config(self) -> SmolVLMConfig:
        return self.motor.config

    @property
    def device(self) -> str:
        return self.motor.device

    @property
    def dtype(self) -> str:
        return self.motor.dtype

    def fingerprint(self) -> str:
        return self.motor.fingerprint()

    def encode(self, pixel_values: np.ndarray) -> np.ndarray:
        with self._lock:
            return self.motor.encode(pixel_values)

    def join(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(features)

    def write(self, prepared: Sequence[Prepared], writers: Sequence[Writer]) -> Iterator[None]:
        from ..generation.scheduler import Generation

        own = [
            Generation(one.input_ids, _rows(one.features), one.params, self._end_ids, writer.take)
            for one, writer in zip(prepared, writers, strict=True)
        ]
        writer_of = dict(zip(own, writers, strict=True))
        for ended in self._run(own):
            for generation in ended:
                assert generation.finish_reason is not None, "nobody else cancels it"
                writer_of[generation].finish(generation.finish_reason)
            yield

    def score(self, prepared: Prepared, choices: Sequence[Sequence[Spelling]]) -> list[float]:
        from ..generation.scoring import requests_for, scores_from

        own = requests_for(prepared.input_ids, _rows(prepared.features), choices)
        for _ in self._run(own):
            pass
        return scores_from(own, choices)

    def _run(self, own: Sequence[Generation]) -> Iterator[list[Generation]]:
        """Step until these have ended; yields, after every step, those that just did."""
        going = list(own)
        try:
            with self._lock:
                for generation in own:
                    self._engine.submit(generation)
            while going:
                with self._lock:
                    if not any(generation.ended for generation in going):  # else another thread's step ended it
                        self._engine.step()
                ended = [generation for generation in going if generation.ended]
                going = [generation for generation in going if not generation.ended]
                yield ended
        finally:
            for generation in going:
                generation.cancelled = True
            # never wait here: a forgotten stream is collected anywhere, even in this thread's own step
            if going and self._lock.acquire(blocking=False):
                self._engine.drop_ended()
                self._lock.release()


def _rows(features: np.ndarray | None) -> np.ndarray | None:
    """(tiles, image tokens, hidden) -> (all image tokens, hidden)."""
    return None if features is None else features.reshape(-1, features.shape[-1])
