"""A checkpoint directory: which files hold which tensor, and the JSON files beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .safetensors import TensorEntry, map_file, map_tensor, read_header

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"


def read_index(directory: Path) -> dict[str, TensorEntry]:
    """Name -> place of every tensor of a checkpoint, from model.safetensors or from the shards of its index.

    Raises CheckpointError when there are no safetensors, a shard is missing, or index and shards disagree.
    """
    if (directory / WEIGHTS_NAME).is_file():
        return read_header(directory / WEIGHTS_NAME)
    if (directory / INDEX_NAME).is_file():
        return _read_shards(directory)
    raise CheckpointError(_explain_no_weights(directory))


def map_tensors(entries: dict[str, TensorEntry]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor as a view of its file, file by file and front to back, each file mapped once."""
    mapped: np.ndarray | None = None
    mapped_file: Path | None = None
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].file.name, item[1].offset)):
        if entry.file != mapped_file:
            mapped, mapped_file = map_file(entry.file), entry.file
        yield name, map_tensor(entry, mapped)


def read_json(file: Path) -> dict[str, object]:
    """The object in a JSON file. Raises CheckpointError when it is missing, not JSON, or not an object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing.") from None
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not an object with fields.")
    return content


def write_json(file: Path, content: dict[str, object]) -> None:
    """Write an object as indented JSON. Whoever reads at the same time sees the old file or the new one."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_shards(directory: Path) -> dict[str, TensorEntry]:
    index = directory / INDEX_NAME
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map, the table of tensor names and shards.")
    entries: dict[str, TensorEntry] = {}
    for shard in dict.fromkeys(weight_map.values()):
        # An index from a stranger must not reach outside its own directory.
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(f"{index} names the shard {shard!r:.100}: a plain file name beside it is allowed.")
        if not (directory / shard).is_file():
            raise CheckpointError(f"{directory / shard} is missing, though {INDEX_NAME} names it. Download it again.")
        entries |= read_header(directory / shard)
    for name in {**weight_map, **entries}:
        found = entries[name].file.name if name in entries else None
        if found != weight_map.get(name):
            raise CheckpointError(
                f"{index} and its shards disagree: it places {name!r} in {weight_map.get(name, 'no shard')}, "
                f"and it is in {found or 'none of them'}."
            )
    return entries


def _explain_no_weights(directory: Path) -> str:
    wanted = f"{WEIGHTS_NAME} or {INDEX_NAME}"
    if not directory.is_dir():
        return f"{directory} is not a directory: a checkpoint directory with {wanted} is needed."
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern))
    if pickles:
        return (
            f"{directory} has no {wanted}, only {pickles[0]}. That is a pickle, which runs the code of whoever wrote "
            "it, and is not read. Use a checkpoint that was saved as safetensors."
        )
    names = sorted(file.name for file in directory.iterdir())
    return f"{directory} has no {wanted}. It holds {', '.join(names[:8]) or 'nothing'}."
