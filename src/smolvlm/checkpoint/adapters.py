"""Adapter directories in PEFT's layout, checked against a model, and merged into its weights as these are read.

adapter_config.json says what kind it is (lora.py); adapter_model.safetensors holds, for a layer NAME of the model,

    base_model.model.NAME.lora_A.weight           (rank, inputs)
    base_model.model.NAME.lora_B.weight           (outputs, rank)
    base_model.model.NAME.lora_magnitude_vector   (outputs,), DoRA only
    base_model.model.NAME.base_layer.weight       (outputs, inputs): PEFT adds the layer's own matrix for the head

and tensors of parts that were trained whole under base_model.model. and their own names. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..config import SmolVLMConfig
from ..errors import CheckpointError, InputError
from .lora import TOWERS, LoraConfig, Shape, Targets, find_targets
from .quantised import logical_shape, read_values
from .safetensors import TensorEntry, map_tensor, read_floats, read_header
from .shapes import EMBEDDINGS, HEAD, expected_shapes, require_shapes

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B, MAGNITUDE, BASE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".base_layer.weight"
FLOATS = ("F32", "BF16", "F16")
Matrix = TypeVar("Matrix", np.ndarray, "Tensor")


@dataclass(frozen=True)
class LowRank:
    """What an adapter has for one layer. a: (rank, inputs). b: (outputs, rank). magnitude: (outputs,), of DoRA.

    base: the layer's own matrix where the file has it, to be taken in place of the model's.
    """

    a: TensorEntry
    b: TensorEntry
    magnitude: TensorEntry | None
    base: TensorEntry | None
    scaling: float


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as it lies in its directory. low_rank: by layer. saved: tensors by their names in the model."""

    config: LoraConfig
    targets: Targets
    low_rank: Mapping[str, LowRank]
    saved: Mapping[str, TensorEntry]


def read_adapter(directory: Path, shapes: Mapping[str, Shape]) -> AdapterFiles:
    """An adapter directory. shapes: of all tensors of the model, the head's included.

    Raises CheckpointError, with the first names, when a tensor is missing, unexpected, misshaped or not of floats.
    """
    file = directory / WEIGHTS_NAME
    if not file.is_file():
        raise CheckpointError(_explain_no_weights(directory))
    config = LoraConfig.from_file(directory / CONFIG_NAME)
    targets = find_targets(config, shapes)
    expected = adapter_shapes(config, targets, shapes)
    found = read_header(file)
    own = {f"{PREFIX}{module}{BASE}": shapes[f"{module}.weight"] for module in targets.adapted}
    made_for = config.base_model_name_or_path
    cure = f"It was made for {made_for}: load that model." if made_for else "Is it an adapter of this very model?"
    require_shapes(
        {**expected, **{name: shape for name, shape in own.items() if name in found}}, found, directory,
        "SmolVLMForConditionalGeneration", cure,
    )  # fmt: skip
    for name, entry in found.items():
        if entry.dtype not in FLOATS:
            raise CheckpointError(f"{file}: {name!r} is stored as {entry.dtype}; {', '.join(FLOATS)} can be used.")
    low_rank = {module: _low_rank(found, module, config.scaling(module)) for module in targets.adapted}
    saved = {name.removeprefix(PREFIX): found[name] for name in expected if name.removeprefix(PREFIX) in shapes}
    return AdapterFiles(config, targets, low_rank, saved)


def read_for_requests(directory: Path, config: SmolVLMConfig) -> AdapterFiles:
    """An adapter that is to be applied beside the weights of a model with this config, as some requests ask for it.

    Raises CheckpointError as read_adapter does, InputError for DoRA.
    """
    shapes = expected_shapes(config)
    files = read_adapter(directory, {**shapes, HEAD: shapes[EMBEDDINGS]})
    if files.config.use_dora:
        raise InputError(
            f"{directory} is a DoRA adapter, which changes the lengths of all rows and so can't stand beside the "
            "weights for some requests only. Load a model with it merged: smolvlm.load(model, adapter=directory)."
        )
    return files


def adapter_shapes(config: LoraConfig, targets: Targets, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name -> shape of every tensor of an adapter's file."""
    wanted: dict[str, Shape] = {}
    for module in targets.adapted:
        outputs, inputs = shapes[f"{module}.weight"]
        rank, name = config.rank(module), f"{PREFIX}{module}"
        wanted |= {f"{name}{A}": (rank, inputs), f"{name}{B}": (outputs, rank)}
        if config.use_dora:
            wanted[f"{name}{MAGNITUDE}"] = (outputs,)
    for module in targets.saved:
        wanted |= {f"{PREFIX}{name}": shape for name, shape in shapes.items() if name.startswith(f"{module}.")}
    return wanted


def apply_adapter(
    directory: Path, config: SmolVLMConfig, entries: Mapping[str, TensorEntry], scales: Mapping[str, TensorEntry]
) -> dict[str, TensorEntry]:
    """The tensors of a whole checkpoint with an adapter merged into them, each when it is read, in float32.

    scales: of quantised tensors, by their names. A config whose head is tied to embeddings that no longer equal it is
    untied. Raises CheckpointError when the adapter doesn't fit.
    """
    shapes = expected_shapes(config)
    adapter = read_adapter(directory, {**shapes, HEAD: shapes[EMBEDDINGS]})
    merged = dict(entries)
    changed = {f"{module}.weight" for module in adapter.low_rank} | adapter.saved.keys()
    if config.tie_word_embeddings and changed & {HEAD, EMBEDDINGS}:
        config.tie_word_embeddings = False
        merged[HEAD] = entries[EMBEDDINGS]
    for module, low_rank in adapter.low_rank.items():
        name = f"{module}.weight"
        base = low_rank.base or merged[name]
        compute = partial(_merged, low_rank, base, scales.get(name))
        merged[name] = TensorEntry(base.file, base.offset, logical_shape(name, base), "F32", compute)
    return merged | dict(adapter.saved)


def merge(weight: Matrix, a: Matrix, b: Matrix, scaling: float, magnitude: Matrix | None = None) -> Matrix:
    """W + scaling B A, (outputs, inputs); with a magnitude, DoRA's, each row of it stretched to that length.

    weight: (outputs, inputs). a: (rank, inputs). b: (outputs, rank). magnitude: (outputs,). All of one type.
    """
    merged = weight + scaling * (b @ a)
    return merged if magnitude is None else merged * (magnitude / row_lengths(merged))[:, None]


def row_lengths(matrix: Matrix) -> Matrix:
    """(outputs,) from (outputs, inputs); 1 for rows of zeros, which have no direction to be stretched in."""
    lengths = (matrix * matrix).sum(1) ** 0.5
    return lengths + (lengths == 0)


def seeing_fingerprint(directory: Path | None) -> str:
    """A short name of what an adapter changes in how pictures are seen; empty for nothing, and without an adapter."""
    if directory is None:
        return ""
    seeing = tuple(f"{PREFIX}{TOWERS[tower]}." for tower in ("vision", "connector"))
    entries = {name: entry for name, entry in read_header(directory / WEIGHTS_NAME).items() if name.startswith(seeing)}
    if not entries:
        return ""
    digest = blake2b((directory / CONFIG_NAME).read_bytes(), digest_size=8)
    for name, entry in sorted(entries.items()):
        digest.update(name.encode() + np.ascontiguousarray(map_tensor(entry)).tobytes())
    return digest.hexdigest()


def _low_rank(found: Mapping[str, TensorEntry], module: str, scaling: float) -> LowRank:
    name = f"{PREFIX}{module}"
    return LowRank(found[name + A], found[name + B], found.get(name + MAGNITUDE), found.get(name + BASE), scaling)


def _merged(low_rank: LowRank, base: TensorEntry, scale: TensorEntry | None) -> np.ndarray:
    """(outputs, inputs) float32."""
    magnitude = None if low_rank.magnitude is None else read_floats(low_rank.magnitude)
    a, b = read_floats(low_rank.a), read_floats(low_rank.b)
    return merge(read_values(base, scale), a, b, low_rank.scaling, magnitude)


def _explain_no_weights(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory} is not a directory: one with {CONFIG_NAME} and {WEIGHTS_NAME} is needed."
    if (directory / "adapter_model.bin").is_file():
        return (
            f"{directory} has its adapter only as adapter_model.bin. That is a pickle, which runs the code of whoever "
            "wrote it, and is not read. Save it as safetensors with PEFT."
        )
    names = sorted(one.name for one in directory.iterdir())
    return f"{directory} is no adapter: it has no {WEIGHTS_NAME}. It holds {', '.join(names[:8]) or 'nothing'}."
