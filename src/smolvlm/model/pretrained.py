"""What all three models share: weight initialisation, device and dtype, gradient checkpointing, loading and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from ..config import SmolVLMConfig, SmolVLMVisionConfig

if TYPE_CHECKING:
    from .adapters import Adapter


class Pretrained(nn.Module):
    """A module with a config that can be read from and written to a checkpoint directory.

    adapter: the one that is on it, see model/adapters.py.
    """

    adapter: Adapter | None = None

    def __init__(self, config: SmolVLMConfig | SmolVLMVisionConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: object) -> Self:
        """Load from a directory or hub id, in eval mode.

        Options: dtype (or torch_dtype), device_map, attn_implementation (or _attn_implementation), revision,
        local_files_only, token, cache_dir, adapter. Raises ModelNotFoundError, CheckpointError, ConfigError.
        """
        from .weights import load_pretrained

        return load_pretrained(cls, name_or_path, **options)  # type: ignore[arg-type]

    def save_pretrained(self, directory: str | Path, **options: object) -> None:
        """Write config.json and safetensors that this package and transformers load. Option: max_shard_size."""
        from .weights import save_pretrained

        save_pretrained(self, directory, **options)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def gradient_checkpointing_enable(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations (training mode only)."""
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, on: bool) -> None:
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = on  # type: ignore[assignment]

    def _init_weights(self, module: nn.Module) -> None:
        """normal(0, initializer_range) for matrices and embeddings, zero biases and pad row; norms start at one."""
        text = self.config.text_config if isinstance(self.config, SmolVLMConfig) else self.config
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=text.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=text.initializer_range)
            if module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()
