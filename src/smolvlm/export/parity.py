"""How far a runtime is from the PyTorch model in float32: stage by stage, on pictures that are drawn here.

The text model is fed with the reference's features and tokens, so that an error shows where it arises; only in the
last stage, the answers, everything is the runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .. import scenes
from ..config import SmolVLMConfig
from ..errors import ConfigError, InputError, MissingDependencyError
from ..processing.processor import SmolVLMProcessor
from ..runtimes.graphs import CURE
from ..runtimes.motor import Slot, Span
from ..runtimes.onnx import DTYPES, OnnxMotor, holds, is_export
from ..types import Inputs

if TYPE_CHECKING:
    from ..runtimes.torch import TorchMotor

RUNTIMES = ("graphs", "onnx", "native", "torch")
DRAWN = (("scene", 0), ("chart", 0), ("read", 1), ("pair", 0))  # skill and index of what is asked about
SEED = 2026
NEW_TOKENS = 24
# Largest error allowed, as a share of the reference's largest value in that stage: several times what was measured on
# nano and on random weights.
BOUNDS = {
    "float32": 1e-4, "bfloat16": 0.05, "float16": 0.01, "int8": 0.1, "int8-vision": 0.1, "int4": 0.5,
    "int4-float16": 0.5,
}  # fmt: skip


class Reader(Protocol):
    """What is compared: the part of a motor that looks and reads."""

    config: SmolVLMConfig

    def encode(self, pixel_values: np.ndarray) -> Any: ...
    def open(self, tokens: int) -> Slot: ...
    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray: ...


@runtime_checkable
class Looker(Protocol):
    """A reader that also shows what comes between the vision tower and the connector."""

    def look(self, pixel_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass
class Stage:
    """Errors of one stage over all drawn pictures. largest: the reference's largest value; bound: for max_error."""

    name: str
    share: float
    largest: float = 0.0
    max_error: float = 0.0
    total: float = 0.0
    count: int = 0

    @property
    def mean_error(self) -> float:
        return self.total / max(1, self.count)

    @property
    def bound(self) -> float:
        return self.share * self.largest

    @property
    def passed(self) -> bool:
        return self.max_error <= self.bound  # NaN fails

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        if not expected.size:
            return
        error = np.abs(found - expected)
        self.largest = max(self.largest, float(np.abs(expected).max()))
        self.max_error = float(np.max([self.max_error, error.max()]))
        self.total += float(error.sum(dtype=np.float64))
        self.count += error.size


@dataclass(frozen=True)
class Text:
    """What both answer about one picture. differs_at: the first token that differs; gap: how far apart the reference's
    two likeliest tokens are there. Errors within a stage's bound can tip gaps of up to twice the bound.
    """

    question: str
    expected: str
    found: str
    differs_at: int | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Report:
    """agreed of positions: where the likeliest next token is the same, after the same tokens."""

    runtime: str
    dtype: str
    stages: tuple[Stage, ...]
    agreed: int
    positions: int
    texts: tuple[Text, ...]

    @property
    def passed(self) -> bool:
        return all(stage.passed for stage in self.stages)


def verify(directory: Path, original: Path, *, runtime: str | None = None, dtype: str | None = None) -> list[Report]:
    """Compare a runtime on a directory with the PyTorch model of another. One report a dtype.

    directory: an export or a checkpoint. runtime: of RUNTIMES; by default the graphs of an export, as transformers.js
    feeds them, and native on a checkpoint. dtype: a name of that runtime; by default all that an export holds.
    Raises ConfigError, InputError, CheckpointError, MissingDependencyError.
    """
    from ..model import SmolVLMForConditionalGeneration
    from ..runtimes.torch import TorchMotor

    runtime = runtime or ("graphs" if is_export(directory) else "native")
    dtypes = [dtype] if dtype else dtypes_of(directory, runtime)
    unknown = [one for one in dtypes if one not in BOUNDS]
    if runtime not in RUNTIMES or unknown:
        raise ConfigError(
            f"runtime={runtime!r} in {', '.join(dtypes)} is not known; use one of {', '.join(RUNTIMES)} and a dtype "
            f"of {', '.join(BOUNDS)}."
        )
    if is_export(original):
        raise InputError(f"{original} is an export and can't be compared with: name the checkpoint it was made from.")
    processor = SmolVLMProcessor.from_pretrained(original)
    reference = TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(original))
    return [compare(reference, open_reader(directory, runtime, one), processor, runtime, one) for one in dtypes]


def dtypes_of(directory: Path, runtime: str) -> list[str]:
    """What is verified when no dtype is asked for."""
    if is_export(directory) and runtime in ("graphs", "onnx"):
        return [name for name in DTYPES if holds(directory, name)]
    return ["float32"]


def open_reader(directory: Path, runtime: str, dtype: str) -> Reader:
    if runtime == "graphs":
        if not is_export(directory):
            raise InputError(f"{directory} holds no exported graphs: make them with `smolvlm export onnx`.")
        try:
            from .portable import PortableGraphs
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"Graphs are verified with the packages onnx and onnxruntime: {CURE}."
            ) from error
        return PortableGraphs(directory, dtype)
    if runtime == "onnx":
        return OnnxMotor(directory, dtype)
    if runtime == "native":
        from ..runtimes.native import NativeMotor

        return NativeMotor(directory, dtype)
    from ..model import SmolVLMForConditionalGeneration
    from ..runtimes.torch import TorchMotor

    return TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=dtype))


# ---- comparing ----


def compare(reference: TorchMotor, reader: Reader, processor: SmolVLMProcessor, runtime: str, dtype: str) -> Report:
    """Let both look at every drawn picture and answer a question about it."""
    stages: dict[str, Stage] = {}
    ends = {processor.tokenizer.end_of_utterance_token_id, processor.tokenizer.eos_token_id}
    agreed = positions = 0
    texts: list[Text] = []

    def add(name: str, found: np.ndarray, expected: np.ndarray) -> None:
        stages.setdefault(name, Stage(name, BOUNDS[dtype])).add(found, expected)

    for question, inputs in drawn(processor):
        assert inputs.pixel_values is not None, "all of them have pictures"
        ids, count = inputs.input_ids, len(inputs.input_ids)
        given, own = _look(reference, reader, inputs.pixel_values, add)
        expected, tokens = _write(reference, ids, given, ends)
        found, _ = _write(reader, ids, given, ends, tokens)
        add("prefill logits", found[:count], expected[:count])
        add("decode logits", found[count:], expected[count:])
        agreed += int((found.argmax(1) == expected.argmax(1)).sum())
        positions += len(found)
        found, own_tokens = _write(reader, ids, own, ends)
        differs = next((at for at, token in enumerate(tokens) if own_tokens[at] != token), None)
        after_same = slice(count - 1, None if differs is None else count + differs)  # rows after the same tokens
        add("answers, all its own", found[after_same], expected[after_same])
        gap = None if differs is None else float(np.diff(np.sort(expected[count - 1 + differs])[-2:])[0])
        said, own_said = (processor.tokenizer.decode(one) for one in (tokens, own_tokens))
        texts.append(Text(question, said, own_said, differs, gap))
    return Report(runtime, dtype, tuple(stages.values()), agreed, positions, tuple(texts))


def drawn(processor: SmolVLMProcessor) -> list[tuple[str, Inputs]]:
    """Questions about drawn pictures, one tile a picture, as a model reads them."""
    found = []
    for skill, index in DRAWN:
        scene = scenes.draw(skill, SEED, index, "test")
        content: list[dict[str, object]] = [{"type": "image", "image": picture} for picture in scene.pictures]
        content.append({"type": "text", "text": scene.turns[0].question})
        inputs = processor.prepare([{"role": "user", "content": content}], detail="low")
        found.append((scene.turns[0].question, inputs))
    return found


def _look(
    reference: TorchMotor, reader: Reader, pixels: np.ndarray, add: Callable[[str, np.ndarray, np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the pictures, (image tokens, hidden): the reference's and the reader's own."""
    expected = _array(reference.encode(pixels))
    if isinstance(reader, Looker):
        patches, found = reader.look(pixels)
        add("vision", patches, _patches(reference, pixels))
        add("vision and connector", found, expected)
    else:
        found = _array(reader.encode(pixels))
        add("vision and connector", found, expected)
    width = expected.shape[-1]
    return expected.reshape(-1, width), found.reshape(-1, width)


def _patches(reference: TorchMotor, pixels: np.ndarray) -> np.ndarray:
    """What the tower hands to the connector, (tiles, patches, hidden)."""
    import torch

    with torch.inference_mode():
        return _array(reference.model.model.vision_model(torch.from_numpy(pixels)).last_hidden_state)


def _write(
    reader: Reader, ids: np.ndarray, pictures: np.ndarray, ends: Collection[object], tokens: Sequence[int] = ()
) -> tuple[np.ndarray, list[int]]:
    """Read a prompt and then the given tokens, or without any the likeliest. Returns the logits of all and the tokens.

    The logits of the last token's successor are not computed: (prompt + tokens - 1, vocabulary).
    """
    slot = reader.open(len(ids) + NEW_TOKENS)
    rows = [reader.forward([Span(slot, ids, pictures)], range(len(ids)))]
    written: list[int] = []
    while True:
        written.append(tokens[len(written)] if tokens else int(rows[-1][-1].argmax()))
        if len(written) == (len(tokens) or NEW_TOKENS) or written[-1] in ends:
            return np.concatenate(rows), written
        rows.append(reader.forward([Span(slot, np.array(written[-1:]))], [0]))


def _array(features: Any) -> np.ndarray:
    """numpy float32 of a motor's own kind of arrays."""
    return features if isinstance(features, np.ndarray) else features.float().cpu().numpy()
