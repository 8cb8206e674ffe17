"""Frozen layers in 8 or 4 bits, for adapters to be trained on: half or a quarter of bfloat16's bytes.

    8 bits   int8, a scale for each row: value = scale * whole number from -127 to 127
    4 bits   NF4: each value is one of 16 quantiles of the normal distribution times the absmax of its block of 64;
             the absmax is kept in 8 bits, too, against the largest of its group of 256 (double quantisation)

A matrix is brought back to the dtype of its input when it is used, forward and again backward; nothing of that is kept.
Source: QLoRA (arXiv 2305.14314): codebook, block sizes, and the packing of its authors' bitsandbytes, whose codes these
are. The 8 bits of an absmax are ours: of its square root, so that one beside a far larger one keeps its precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..checkpoint.lora import HEAD_MODULE, LoraConfig, Shape, linear_layers, require_targets
from ..errors import ConfigError, InputError
from .model import SmolVLMForConditionalGeneration
from .place import on_cpu

Bits = Literal[8, 4]
BLOCK, GROUP = 64, 256  # values that share an absmax; those that share a largest one
# Brought back in one go on a CPU: what stays in its cache is done 3 to 20 times sooner (2560 x 960, bfloat16).
VALUES_AT_ONCE = 2**17
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class LowBitMatrix(nn.Module):
    """A frozen matrix (outputs, inputs). Move it as you like, but cast before: its scales are float32.

    codes: 8 bits, int8 (outputs, inputs); 4 bits, uint8 (blocks * 32,), two values each, the first in the high half.
    scale: 8 bits, (outputs, 1); 4 bits, (groups,), the largest absmax of each. absmax: 4 bits, uint8 (blocks,).
    """

    codes: Tensor
    scale: Tensor
    absmax: Tensor
    pairs: Tensor

    def __init__(self, weight: Tensor, bits: Bits) -> None:
        super().__init__()
        self.bits = bits
        self.shape: Shape = tuple(weight.shape)
        if bits == 8:
            codes, scale = encode_rows(weight)
        else:
            codes, absmax = encode_nf4(weight)
            absmax, scale = encode_absmax(absmax)
            self.register_buffer("absmax", absmax)
            self.register_buffer("pairs", nf4_pairs(weight.device), persistent=False)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(outputs, inputs), computed in float32."""
        out = torch.empty(self.shape, dtype=dtype, device=self.codes.device)
        at_once = VALUES_AT_ONCE if on_cpu(out) else -(-out.numel() // BLOCK) * BLOCK
        if self.bits == 8:
            rows = max(1, at_once // self.shape[1])
            for part, codes, scale in zip(out.split(rows), self.codes.split(rows), self.scale.split(rows), strict=True):
                part.copy_(codes * scale.float())
            return out
        absmax = decode_absmax(self.absmax, self.scale.float()).split(at_once // BLOCK)
        parts = zip(out.view(-1).split(at_once), self.codes.split(at_once // 2), absmax, strict=True)
        for part, codes, scale in parts:
            part.copy_(decode_nf4(codes, scale, self.pairs)[: len(part)])
        return out

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs), in x's dtype, or that of autocast. Only x and the bias get gradients."""
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        out: Tensor = _Product.apply(x, self, None if bias is None else bias.to(x.dtype))
        return out

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, {self.shape[1]}, bits={self.bits}"


class LowBitLinear(nn.Module):
    """A linear layer whose matrix is in low bits. bias: of the layer that it was, frozen."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: Bits) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.matrix = LowBitMatrix(weight, bits)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.matrix.product(x, self.bias)


class _Product(torch.autograd.Function):
    """x W^T + bias. A plain product would keep W for the backward pass; this one makes it again from its codes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: LowBitMatrix, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return F.linear(x, matrix.dequantised(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor | None]:
        bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return grad @ ctx.matrix.dequantised(grad.dtype), None, bias


def quantise_base(
    model: SmolVLMForConditionalGeneration, bits: int, config: LoraConfig, *, towers: bool = False
) -> tuple[str, ...]:
    """Hold the layers that an adapter of these settings is put on in 8 or 4 bits. Returns their names.

    Call it before add_adapter, on a model that is where and in what dtype it will be. towers: also all other linear
    layers that this adapter leaves frozen. The head stays as it is: it may be one with the table of embeddings.
    Raises ConfigError when a name in the config means no layer, InputError for other bits, and for a model that has an
    adapter or is in low bits already.
    """
    if bits not in (8, 4):
        raise InputError(f"bits={bits!r}: a base is held in 8 or 4 bits, or left as it is.")
    if model.adapter is not None or low_bits(model):
        what = "has an adapter already" if model.adapter is not None else "is in low bits already"
        raise InputError(f"The model {what}: load it again, hold it in {bits} bits, and add the adapter then.")
    shapes = logical_shapes(model)
    targets = require_targets(config, shapes)
    names = linear_layers(shapes) if towers else targets.adapted
    whole = tuple(f"{name}." for name in targets.saved)
    chosen = tuple(name for name in names if name != HEAD_MODULE and not f"{name}.".startswith(whole))
    if not chosen:
        raise ConfigError(f"The adapter is on the head only, which is never held in {bits} bits: leave bits out.")
    for name in chosen:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear), f"{name} is no linear layer"
        low = LowBitLinear(layer.weight.detach(), layer.bias, 8 if bits == 8 else 4)
        model.set_submodule(name, low.train(layer.training))
    return chosen


def low_bits(model: nn.Module) -> int | None:
    """In how many bits layers of a model are held; None for a plain one."""
    return next((one.bits for one in model.modules() if isinstance(one, LowBitMatrix)), None)


def num_bytes(model: nn.Module) -> int:
    """Of all parameters and buffers, each counted once whatever names it has."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def logical_shapes(model: nn.Module) -> Mapping[str, Shape]:
    """Name -> shape of every tensor of a plain model; a layer in low bits has the weight that it stands for."""
    low = {name: module for name, module in model.named_modules() if isinstance(module, LowBitMatrix)}
    shapes: dict[str, Shape] = {}
    for name, tensor in model.state_dict().items():
        matrix = name.rpartition(".")[0]
        if matrix in low:
            shapes[f"{matrix.removesuffix('matrix')}weight"] = low[matrix].shape
        else:
            shapes[name] = tuple(tensor.shape)
    return shapes


def encode_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs, inputs) -> int8 codes of that shape, and scales (outputs, 1) float32."""
    weight = weight.float()
    scale = weight.abs().amax(1, keepdim=True) / 127
    codes = (weight / _divisor(scale)).round().clamp(-127, 127)  # beyond it only where a scale is denormal
    return codes.to(torch.int8), scale


def encode_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Any shape -> uint8 codes (blocks * 32,), and absmax (blocks,) float32, of its values row after row."""
    flat = weight.float().flatten()
    values = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)  # (blocks, 64)
    absmax = values.abs().amax(1)
    codebook = torch.tensor(NF4, device=weight.device)
    nearest = torch.bucketize(values / _divisor(absmax)[:, None], (codebook[1:] + codebook[:-1]) / 2, out_int32=True)
    nearest = nearest.to(torch.uint8)  # (blocks, 64)
    return (nearest[:, ::2] << 4 | nearest[:, 1::2]).flatten(), absmax


def decode_nf4(codes: Tensor, absmax: Tensor, pairs: Tensor) -> Tensor:
    """What encode_nf4 made -> (blocks * 64,) float32. pairs: of nf4_pairs."""
    values = pairs[codes.int()]  # (blocks * 32,)
    return values.view(torch.float32).view(-1, BLOCK).mul_(absmax[:, None]).flatten()


def encode_absmax(absmax: Tensor) -> tuple[Tensor, Tensor]:
    """(blocks,) -> uint8 codes (blocks,), and the largest of each group, (groups,) float32."""
    padded = F.pad(absmax, (0, -len(absmax) % GROUP)).view(-1, GROUP)  # (groups, 256)
    largest = padded.amax(1)
    root = (padded / _divisor(largest)[:, None]).sqrt()
    return (255 * root).round().to(torch.uint8).flatten()[: len(absmax)].clone(), largest


def decode_absmax(codes: Tensor, largest: Tensor) -> Tensor:
    """(blocks,) float32."""
    return (codes.float() / 255).square() * largest.repeat_interleave(GROUP)[: len(codes)]


def _divisor(scale: Tensor) -> Tensor:
    """What is nothing but zeros is divided by 1."""
    return scale.where(scale > 0, 1)


def nf4_pairs(device: torch.device) -> Tensor:
    """(256,) int64, the bits of the two float32 that a byte stands for: one look-up for two values."""
    codebook = torch.tensor(NF4, device=device)
    return torch.stack([codebook.repeat_interleave(16), codebook.repeat(16)], dim=1).view(torch.int64).flatten()
