"""The vision tower: SigLIP with position ids for any resolution.

Source: transformers 5.23's modeling_smolvlm.py (4.55 to 5.20 compute wrong ids). Parity: tests/reference/test_model.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import Activation, SmolVLMVisionConfig
from ..errors import InputError
from .attention import attend, check_implementation
from .outputs import BaseModelOutput
from .pretrained import Pretrained
from .remade import through


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    """The function behind a config's hidden_act."""
    if not isinstance(name, str):
        return name
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": F.gelu,
        "relu": F.relu,
        "selu": F.selu,
        "silu": F.silu,
        "gelu_new": functools.partial(F.gelu, approximate="tanh"),
        "gelu_pytorch_tanh": functools.partial(F.gelu, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    }
    return functions[name]


def position_ids(mask: Tensor, side: int) -> Tensor:
    """Which of the side x side learned positions each patch takes: (tiles, rows, columns) bool -> (tiles, patches).

    A picture's real part is stretched over the whole grid of positions. Everything in fp32, whatever the model's
    dtype: half precision moves patches into the neighbouring bucket. Patches outside the mask take position 0.
    """
    boundaries = torch.arange(1 / side, 1.0, 1 / side, device=mask.device, dtype=torch.float32)
    num_rows = mask[:, :, 0].sum(dim=1)  # (tiles,), read from the first column
    num_columns = mask[:, 0, :].sum(dim=1)
    row = _buckets(num_rows, mask.shape[1], boundaries)  # (tiles, rows)
    column = _buckets(num_columns, mask.shape[2], boundaries)  # (tiles, columns)
    ids = row[:, :, None] * side + column[:, None, :]  # (tiles, rows, columns)
    return ids.masked_fill(~mask, 0).flatten(1)


def _buckets(real: Tensor, total: int, boundaries: Tensor) -> Tensor:
    step = 1.0 / real.to(torch.float32)  # (tiles,)
    index = torch.arange(total, device=real.device, dtype=torch.float32)
    coordinates = (index[None] * step[:, None]).clamp(max=1 - 1e-6)  # (tiles, total)
    return torch.bucketize(coordinates, boundaries, right=True)


class SmolVLMVisionEmbeddings(nn.Module):
    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.side = config.patches_per_side
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, pixel_values: Tensor, patch_mask: Tensor) -> Tensor:
        """(tiles, 3, height, width), (tiles, rows, columns) bool -> (tiles, patches, hidden)."""
        x = self.patch_embedding(pixel_values)  # (tiles, hidden, rows, columns)
        x = x.flatten(2).transpose(1, 2)  # (tiles, patches, hidden)
        return x + self.position_embedding(position_ids(patch_mask, self.side))


class SmolVLMVisionAttention(nn.Module):
    def __init__(self, config: SmolVLMVisionConfig, implementation: str) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.implementation = implementation
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """x: (tiles, patches, hidden). mask: bool over keys, (tiles, 1, 1, patches)."""
        split = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (
            proj(x).view(split).transpose(1, 2)  # (tiles, heads, patches, head_dim)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        out, weights = attend(
            query, key, value, mask, causal=False, implementation=self.implementation,
            dropout=self.dropout if self.training else 0.0, need_weights=need_weights,
        )  # fmt: skip
        return self.out_proj(out), weights


class SmolVLMVisionMLP(nn.Module):
    def __init__(self, config: SmolVLMVisionConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor, keep: bool = False) -> Tensor:
        """keep: of `through`."""
        return through(self.activation, (self.fc1(x),), self.fc2, keep=keep)


class SmolVLMVisionEncoderLayer(nn.Module):
    def __init__(self, config: SmolVLMVisionConfig, implementation: str) -> None:
        super().__init__()
        self.self_attn = SmolVLMVisionAttention(config, implementation)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SmolVLMVisionMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        keep = self.gradient_checkpointing  # then the whole layer is made again
        attended, weights = through(
            layer_norm(self.layer_norm1), (x, *self.layer_norm1.parameters()),
            lambda normed: self.self_attn(normed, mask, need_weights), keep=keep,
        )  # fmt: skip
        x = x + attended
        inner = through(
            layer_norm(self.layer_norm2), (x, *self.layer_norm2.parameters()),
            lambda normed: self.mlp(normed, keep), keep=keep,
        )  # fmt: skip
        return x + inner, weights


def layer_norm(norm: nn.LayerNorm) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """It as a function of its input, weight and bias, in whose dtype it is computed."""
    return lambda x, weight, bias: F.layer_norm(x.to(weight.dtype), norm.normalized_shape, weight, bias, norm.eps).to(
        x.dtype
    )


class SmolVLMVisionEncoder(nn.Module):
    def __init__(self, config: SmolVLMVisionConfig, implementation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SmolVLMVisionEncoderLayer(config, implementation) for _ in range(config.num_hidden_layers)
        )


class SmolVLMVisionTransformer(Pretrained):
    """Tiles in, patch features out.

    config: SmolVLMVisionConfig. attn_implementation: eager, sdpa (default) or flash_attention_2.
    """

    def __init__(self, config: SmolVLMVisionConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config)
        implementation = check_implementation(attn_implementation)
        self.embeddings = SmolVLMVisionEmbeddings(config)
        self.encoder = SmolVLMVisionEncoder(config, implementation)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.apply(self._init_weights)

    def forward(
        self,
        pixel_values: Tensor,
        patch_attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[object, ...]:
        """pixel_values: (tiles, 3, height, width). patch_attention_mask: (tiles, rows, columns) bool, default all True.

        hidden_states: input of the first layer, then the output of each; the last is *before* post_layernorm.
        Raises InputError when a side isn't a multiple of the patch.
        """
        mask = self._patch_mask(pixel_values, patch_attention_mask)
        x = self.embeddings(pixel_values.to(self.dtype), mask)  # (tiles, patches, hidden)
        key_mask = None
        if patch_attention_mask is not None and not bool(mask.all()):
            key_mask = mask.flatten(1)[:, None, None, :]  # (tiles, 1, 1, patches): padded patches aren't looked at
        states, attentions = [x], []
        for layer in self.encoder.layers:
            if self.gradient_checkpointing and self.training:
                x, weights = checkpoint(layer, x, key_mask, bool(output_attentions), use_reentrant=False)
            else:
                x, weights = layer(x, key_mask, bool(output_attentions))
            if output_hidden_states:  # else they would be most of the memory of a tile
                states.append(x)
            attentions.append(weights)
        output = BaseModelOutput(
            last_hidden_state=self.post_layernorm(x),
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict is not False else output.to_tuple()

    def _patch_mask(self, pixel_values: Tensor, patch_attention_mask: Tensor | None) -> Tensor:
        patch = self.embeddings.patch_size
        tiles, _, height, width = pixel_values.shape
        if patch_attention_mask is not None:
            return patch_attention_mask.bool()
        if height < patch or width < patch or height // patch > self.embeddings.side:
            raise InputError(
                f"Tiles of {height}x{width} pixels don't fit a tower made for tiles of up to "
                f"{self.embeddings.side * patch} pixels in patches of {patch}."
            )
        return torch.ones(tiles, height // patch, width // patch, dtype=torch.bool, device=pixel_values.device)
