"""The text model: a Llama decoder over embeddings. Knows nothing of pictures.

Source: transformers' modeling_llama.py; parity in tests/reference/test_model.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import SmolVLMConfig, SmolVLMTextConfig
from ..errors import InputError
from .attention import Attention, attend
from .cache import KVCache
from .place import fused_rms_norm, on_cpu
from .remade import product_dtype, through
from .vision import activation

Rotary = tuple[Tensor, Tensor]


class SmolVLMRMSNorm(nn.Module):
    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.of(x, self.weight)

    def of(self, x: Tensor, weight: Tensor) -> Tensor:
        """fp32 inside; cast back *before* the weight, as Llama does.

        Where a GPU learns it is one kernel, which rounds once; here every step of it is a launch, and one back.
        """
        if torch.is_grad_enabled() and x.dtype == weight.dtype and not on_cpu(x):
            return fused_rms_norm(x, weight, self.eps)
        normed = x.float()
        normed = normed * torch.rsqrt(normed.square().mean(-1, keepdim=True) + self.eps)
        return (weight * normed.to(x.dtype)).to(x.dtype)  # a weight that is trained in fp32 gives no wider a result


def rotary(position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotary:
    """cos and sin of (batch, tokens) positions, each (batch, 1, tokens, head_dim), computed in fp32."""
    exponents = torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32) / head_dim
    inverse_frequencies = 1.0 / theta**exponents  # (head_dim / 2,)
    angles = position_ids[:, None, :, None].float() * inverse_frequencies  # (batch, 1, tokens, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, tokens, head_dim) by its positions; the halves of head_dim are the pairs (NeoX order)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class SmolVLMTextAttention(nn.Module):
    def __init__(self, config: SmolVLMTextConfig, layer: int, implementation: str) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_size
        self.dropout = config.attention_dropout
        self.implementation: str | Attention = implementation
        queries, keys = config.num_attention_heads * self.head_dim, config.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.attention_bias)

    def forward(
        self, x: Tensor, turn: Rotary, mask: Tensor | None, causal: bool, cache: KVCache | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """x: (batch, new tokens, hidden)."""
        split = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_proj(x).view(split).transpose(1, 2), *turn)  # (batch, heads, new, head_dim)
        key = rotate(self.k_proj(x).view(split).transpose(1, 2), *turn)  # (batch, kv_heads, new, head_dim)
        value = self.v_proj(x).view(split).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)  # (batch, kv_heads, past + new, head_dim)
        out, weights = attend(
            query, key, value, mask, causal=causal, implementation=self.implementation,
            dropout=self.dropout if self.training else 0.0, need_weights=need_weights,
        )  # fmt: skip
        return self.o_proj(out), weights


class SmolVLMTextMLP(nn.Module):
    def __init__(self, config: SmolVLMTextConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor, keep: bool = False) -> Tensor:
        """keep: of `through`."""
        wide = self.gate_proj(x), self.up_proj(x)
        return through(lambda gate, up: self.activation(gate) * up, wide, self.down_proj, keep=keep)


class SmolVLMTextLayer(nn.Module):
    def __init__(self, config: SmolVLMTextConfig, layer: int, implementation: str) -> None:
        super().__init__()
        self.self_attn = SmolVLMTextAttention(config, layer, implementation)
        self.mlp = SmolVLMTextMLP(config)
        self.input_layernorm = SmolVLMRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = SmolVLMRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False

    def forward(
        self, x: Tensor, turn: Rotary, mask: Tensor | None, causal: bool, cache: KVCache | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        keep = self.gradient_checkpointing  # then the whole layer is made again
        attended, weights = through(
            self.input_layernorm.of, (x, self.input_layernorm.weight),
            lambda normed: self.self_attn(normed, turn, mask, causal, cache, need_weights), keep=keep,
        )  # fmt: skip
        x = x + attended
        inner = through(
            self.post_attention_layernorm.of, (x, self.post_attention_layernorm.weight),
            lambda normed: self.mlp(normed, keep), keep=keep,
        )  # fmt: skip
        return x + inner, weights


class SmolVLMTextModel(nn.Module):
    """Embeddings in, hidden states out."""

    def __init__(self, config: SmolVLMConfig, implementation: str) -> None:
        super().__init__()
        text = config.text_config
        self.config = text
        # a pad id outside the vocabulary (seen in published configs) can't be a row of the table
        pad = text.pad_token_id if text.pad_token_id is not None and text.pad_token_id < text.vocab_size else None
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size, padding_idx=pad)
        self.layers = nn.ModuleList(
            SmolVLMTextLayer(text, index, implementation) for index in range(text.num_hidden_layers)
        )
        self.norm = SmolVLMRMSNorm(text.hidden_size, text.rms_norm_eps)
        self.gradient_checkpointing = False

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: KVCache | None,
        output_attentions: bool,
        output_hidden_states: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """x: (batch, new tokens, hidden). attention_mask: as `attention_pattern` takes it.

        Returns the normed last hidden state, all hidden states and all attention weights (None when not asked for).
        """
        past = cache.length if cache is not None else 0
        mask, causal = attention_pattern(attention_mask, x.shape[0], x.shape[1], past, x.device)
        if mask is not None and torch.is_grad_enabled() and not output_attentions and not on_cpu(x):
            mask = added(mask, product_dtype(x))  # else each layer makes its own, and keeps it for the backward pass
        turn = rotary(position_ids, self.config.head_size, self.config.rope_theta, x.dtype)
        states, attentions = [], []
        for layer in self.layers:
            if output_hidden_states:  # else they would be most of the memory of a long prompt
                states.append(x)
            if self.gradient_checkpointing and self.training and cache is None:
                x, weights = checkpoint(layer, x, turn, mask, causal, None, output_attentions, use_reentrant=False)
            else:
                x, weights = layer(x, turn, mask, causal, cache, output_attentions)
            attentions.append(weights)
        if cache is not None:
            cache.advance(x.shape[1])
        x = self.norm(x)
        hidden_states = (*states, x) if output_hidden_states else None
        return x, hidden_states, tuple(attentions) if output_attentions else None


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to scores: 0 or -inf."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def attention_pattern(
    attention_mask: Tensor | None, batch: int, new: int, past: int, device: torch.device
) -> tuple[Tensor | None, bool]:
    """(mask, causal) for `attend`: no mask where plain causal attention or a single query needs none.

    attention_mask: (batch, past + new), nonzero = real token; bool (batch or 1, 1, new, past + new); or None.
    mask: bool (batch, 1, new, past + new): causal and key padding, but every token sees itself, so that the rows of
    padding stay finite. A mask that already has these four dimensions is taken as it is: it may hold any pattern.
    """
    if attention_mask is not None and attention_mask.dim() == 4:
        if attention_mask.dtype != torch.bool or attention_mask.shape[2:] != (new, past + new):
            raise InputError(
                f"A 4-D attention_mask must be bool and end in {(new, past + new)} (new tokens, all tokens); "
                f"this one is {attention_mask.dtype} of shape {tuple(attention_mask.shape)}."
            )
        return attention_mask, False
    if attention_mask is not None and attention_mask.shape != (batch, past + new):
        raise InputError(
            f"attention_mask has the shape {tuple(attention_mask.shape)}, but {batch} samples with {past} cached and "
            f"{new} new tokens need {(batch, past + new)}."
        )
    padded = attention_mask is not None and not bool(attention_mask.all())
    if not padded and (new == 1 or past == 0):
        return None, new > 1
    causal = torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)  # (new, past + new)
    if not padded or attention_mask is None:
        return causal[None, None], False
    own = torch.eye(new, past + new, dtype=torch.bool, device=device) if past == 0 else None
    mask = causal[None, None] & attention_mask.bool()[:, None, None, :]
    return (mask if own is None else mask | own), False
