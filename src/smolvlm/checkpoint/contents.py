"""A whole checkpoint for readers that build no modules: its tensors, held to its config, with an adapter merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config import SmolVLMConfig
from .adapters import apply_adapter
from .directory import read_index
from .quantised import quantised_mode, read_values, split_scales
from .shapes import HEAD, expected_shapes, require_shapes


class Contents:
    """tensors: name -> where it lies. scales: of those that are quantised, by their names.

    A head that is tied to the embeddings is left out, and config says when an adapter has untied it.
    Raises CheckpointError when the files don't fit the config, or the adapter doesn't fit them.
    """

    def __init__(self, directory: Path, config: SmolVLMConfig, adapter: Path | None = None) -> None:
        entries = {name: entry for name, entry in read_index(directory).items() if not name.endswith("inv_freq")}
        if config.tie_word_embeddings:
            entries.pop(HEAD, None)
        quantised_mode(config, directory)  # refuses what can't be read
        self.tensors, self.scales = split_scales(entries)
        require_shapes(expected_shapes(config), self.tensors, directory, "SmolVLMForConditionalGeneration")
        if adapter is not None:
            self.tensors = apply_adapter(adapter, config, self.tensors, self.scales)

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.tensors.values())

    def floats(self, name: str) -> np.ndarray:
        """A tensor as float32, of the model's shape."""
        return read_values(self.tensors[name], self.scales.get(name))
