"""LoRA and DoRA on a model: added, trained, switched off and on, merged into the weights, and saved as PEFT saves them.

What the settings mean is checkpoint/lora.py's, files and the arithmetic of merging checkpoint/adapters.py's,
bases in 8 or 4 bits lowbit.py's.
Source: LoRA (arXiv 2106.09685), DoRA (2402.09353), rsLoRA (2312.03732); parity with PEFT in
tests/reference/test_adapters.py.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import write_json
from ..checkpoint.adapters import (
    CONFIG_NAME,
    MAGNITUDE,
    PREFIX,
    WEIGHTS_NAME,
    A,
    AdapterFiles,
    B,
    merge,
    read_adapter,
    row_lengths,
)
from ..checkpoint.lora import LoraConfig, Targets, require_targets
from ..checkpoint.safetensors import TensorEntry, read_floats
from ..checkpoint.writer import write_file
from ..errors import InputError
from .lowbit import LowBitLinear, LowBitMatrix, logical_shapes, low_bits
from .model import SmolVLMForConditionalGeneration
from .weights import outgoing


class LoraLinear(nn.Linear):
    """A linear layer and its adapter. weight and bias are the base's own, so the model's other keys stay as they are.

    lora_A: (rank, inputs). lora_B: (outputs, rank). magnitude: (outputs,), of DoRA.
    matrix: in place of weight, where the base is held in low bits.
    """

    def __init__(self, base: nn.Linear | LowBitLinear, config: LoraConfig, name: str, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # not Linear's, which would make another matrix
        self.in_features, self.out_features = base.in_features, base.out_features
        self.matrix: LowBitMatrix | None = None
        if isinstance(base, LowBitLinear):
            self.matrix, device = base.matrix, base.matrix.codes.device
        else:
            self.weight, device = base.weight, base.weight.device
        self.bias = base.bias  # type: ignore[assignment]  # None, too, as in any linear layer
        self.scaling, self.dropout, self.enabled = config.scaling(name), config.lora_dropout, True
        rank = config.rank(name)
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, dtype=dtype, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=dtype, device=device))
        self.magnitude = None
        if config.use_dora:
            self.magnitude = nn.Parameter(row_lengths(self.base_weight()).to(dtype))
        if config.init_lora_weights == "gaussian":
            nn.init.normal_(self.lora_A, std=1 / rank)
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in the base's dtype; the adapter computes in its own, or in autocast's."""
        dtype, device = self.lora_A.dtype, x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x = x.to(dtype)  # once for both: a product casts for itself, and a cast to A's dtype would be undone
        if self.matrix is None:
            plain = F.linear(x, self.weight, self.bias)
        else:
            plain = self.matrix.product(x, self.bias)
        if not self.enabled:
            return plain
        inner = F.dropout(x.to(dtype), self.dropout, self.training)
        added = F.linear(F.linear(inner, self.lora_A), self.lora_B)  # (..., outputs)
        if self.scaling != 1:
            added = added * self.scaling
        if self.magnitude is not None:
            if self.dropout and self.training:
                straight = self._straight(inner)  # of what dropout left, as the reference
            else:
                straight = plain if self.bias is None else plain - self.bias
            stretch = self.magnitude / self._lengths()  # (outputs,)
            added = (stretch - 1) * straight + stretch * added
        return (plain + added).to(plain.dtype)

    def _straight(self, inner: Tensor) -> Tensor:
        """The base's own without its bias, in the adapter's dtype."""
        return F.linear(inner, self.weight.to(inner.dtype)) if self.matrix is None else self.matrix.product(inner)

    @torch.no_grad()
    def base_weight(self) -> Tensor:
        """(outputs, inputs) float32, of the base."""
        return self.weight.detach().float() if self.matrix is None else self.matrix.dequantised()

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """(outputs,): of the merged rows. A constant to the gradient, as DoRA's section 4.3 has it."""
        with torch.autocast(self.lora_A.device.type, enabled=False):
            merged = merge(self.base_weight(), self.lora_A.float(), self.lora_B.float(), self.scaling)
            return row_lengths(merged)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """(outputs, inputs), computed in float32, in the base's dtype."""
        magnitude = None if self.magnitude is None else self.magnitude.float()
        merged = merge(self.base_weight(), self.lora_A.float(), self.lora_B.float(), self.scaling, magnitude)
        return merged.to(self.weight.dtype)

    def replace_base(self, weight: Tensor) -> None:
        """Take another matrix (outputs, inputs), held as the one before."""
        if self.matrix is None:
            own = weight.to(device=self.weight.device, dtype=self.weight.dtype)
            if not torch.equal(own, self.weight):  # else no memory for what is there
                self.weight = nn.Parameter(own, requires_grad=False)
        else:
            self.matrix = LowBitMatrix(weight.to(self.matrix.codes.device), self.matrix.bits)

    def tensors(self) -> dict[str, nn.Parameter]:
        """What the adapter adds, by the ends of PEFT's names."""
        own = {A: self.lora_A, B: self.lora_B}
        return own if self.magnitude is None else {**own, MAGNITUDE: self.magnitude}


class Adapter:
    """An adapter on a model, from add_adapter or load_adapter; also `model.adapter`. Printed, it lists what it is on.

    model: what it is on. targets: whole names of the layers with an adapter, and of the parts that are trained whole.
    A model is moved and cast before it gets an adapter.
    """

    def __init__(
        self, model: SmolVLMForConditionalGeneration, config: LoraConfig, targets: Targets, dtype: torch.dtype
    ) -> None:
        """Use add_adapter or load_adapter."""
        if model.adapter is not None:
            raise InputError("The model has an adapter already: call model.adapter.remove() or .merge() first.")
        for name in targets.saved:
            if low_bits(model.get_submodule(name)):
                raise InputError(
                    f"{name} is held in low bits and can't be trained whole: give quantise_base the settings of this "
                    "adapter, and it leaves that part as it is."
                )
        self.config, self.targets = config, targets
        self.model = model
        every = dict(model.named_parameters(remove_duplicate=False))
        self._learned = {name for name, parameter in every.items() if parameter.requires_grad}
        model.requires_grad_(False)
        self._originals = {name: model.get_submodule(name) for name in (*targets.adapted, *targets.saved)}
        self._layers: dict[str, LoraLinear] = {}
        for name in targets.adapted:
            base = self._originals[name]
            assert isinstance(base, nn.Linear | LowBitLinear), f"{name} is no linear layer"
            self._layers[name] = LoraLinear(base, config, name, dtype)
        self._parts = {name: _trainable_copy(self._originals[name], dtype) for name in targets.saved}
        self._put({**self._layers, **self._parts})
        model.adapter = self

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: of all adapted layers, and of parts that are trained whole."""
        added = [parameter for layer in self._layers.values() for parameter in layer.tensors().values()]
        return added + [parameter for part in self._parts.values() for parameter in part.parameters()]

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def enable(self) -> None:
        """The model answers with the adapter, as it does from the start."""
        self._switch(True)

    def disable(self) -> None:
        """The model answers as it did before it had an adapter."""
        self._switch(False)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """`with adapter.disabled():` the model is what it was before, as preference training compares with."""
        self.disable()
        try:
            yield
        finally:
            self.enable()

    def remove(self) -> None:
        """Leave the model as it was before."""
        self._require_on_model()
        self._put({name: module.to(self.model.device) for name, module in self._originals.items()})
        self._leave()

    def merge(self) -> None:
        """Put the adapter into new weights of the model, computed in float32 and rounded to the model's dtype.

        The model is a plain one then, and can be saved. A head that was one with the embeddings is parted from them
        when either was changed. Raises InputError on a base in low bits, whose weights it would round with it.
        """
        self._require_on_model()
        bits = low_bits(self.model)
        if bits is not None:
            raise InputError(
                f"The base of this adapter is held in {bits} bits; merging would round the adapter, too. Save it with "
                "adapter.save(directory), and merge it into full weights: smolvlm.load(model, adapter=directory) or, "
                "on a model that is not in low bits, load_adapter(model, directory).merge()."
            )
        for name, layer in self._layers.items():
            self._originals[name].weight = nn.Parameter(layer.merged_weight())
        for name, part in self._parts.items():
            dtypes = {key: tensor.dtype for key, tensor in self._originals[name].state_dict().items()}
            learned = {key: tensor.detach().to(dtypes[key]) for key, tensor in part.state_dict().items()}
            self._originals[name].load_state_dict(learned, assign=True)
        self._put(self._originals)
        if self.model.lm_head.weight is not self.model.get_input_embeddings().weight:
            self.model.config.tie_word_embeddings = False
        self._leave()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by the names of PEFT's files."""
        added = {f"{name}{end}": one for name, layer in self._layers.items() for end, one in layer.tensors().items()}
        whole = {f"{name}.{key}": one for name, part in self._parts.items() for key, one in part.state_dict().items()}
        return {f"{PREFIX}{name}": tensor.detach() for name, tensor in {**added, **whole}.items()}

    def save(self, directory: str | Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, as PEFT, load_adapter and smolvlm.load read them."""
        directory = Path(directory).expanduser()
        tensors = {name: outgoing(name, tensor) for name, tensor in self.state_dict().items()}
        write_file(directory / WEIGHTS_NAME, tensors)
        write_json(directory / CONFIG_NAME, self.config.to_json(self.targets.adapted, self.targets.saved))

    def __str__(self) -> str:
        """One line a kind of layer, with how many there are, and their sum."""
        kinds = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in self.targets.adapted)
        lines = [f"{count:4d}  {kind}" for kind, count in kinds.items()]
        lines += [f"   1  {name} (whole)" for name in self.targets.saved]
        kind = "DoRA" if self.config.use_dora else "LoRA"
        lines.append(f"{kind} on {len(self.targets.adapted)} layers, {self.num_parameters:,} parameters")
        return "\n".join(lines)

    def _switch(self, on: bool) -> None:
        self._require_on_model()
        for layer in self._layers.values():
            layer.enabled = on
        device = self.model.device
        self._put(self._parts if on else {name: self._originals[name].to(device) for name in self._parts})

    def _put(self, modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            module.train(self.model.get_submodule(name).training)  # what is out of the model isn't told
            self.model.set_submodule(name, module)

    def _leave(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._learned)
        self.model.adapter = None

    def _require_on_model(self) -> None:
        if self.model.adapter is not self:
            raise InputError("This adapter is no longer on its model: it was merged or removed.")

    def _fill(self, files: AdapterFiles) -> None:
        """Take the values of an adapter's files, which were read for this model."""
        values = {f"{PREFIX}{name}": entry for name, entry in files.saved.items()}
        for name, low_rank in files.low_rank.items():
            ends = {A: low_rank.a, B: low_rank.b, MAGNITUDE: low_rank.magnitude}
            values |= {f"{PREFIX}{name}{end}": entry for end, entry in ends.items() if entry is not None}
            if low_rank.base is not None:
                self._layers[name].replace_base(_read(low_rank.base))
        for name, tensor in self.state_dict().items():
            tensor.copy_(_read(values[name]))


def add_adapter(
    model: SmolVLMForConditionalGeneration, config: LoraConfig, *, dtype: torch.dtype = torch.float32
) -> Adapter:
    """Put a new adapter on a model, whose own weights are frozen. It changes no answer before it is trained.

    dtype: of what is trained. A has random values, from torch's generator.
    Raises ConfigError when a name in the config means no layer of the model, InputError when it has an adapter.
    """
    return Adapter(model, config, require_targets(config, logical_shapes(model)), dtype)


def load_adapter(
    model: SmolVLMForConditionalGeneration,
    directory: str | Path,
    *,
    trainable: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Adapter:
    """Put a saved adapter on a model, unmerged. trainable: to train it further.

    Raises CheckpointError, listing the first differences, when it doesn't fit the model; InputError when the model has
    an adapter.
    """
    files = read_adapter(Path(directory).expanduser(), logical_shapes(model))
    adapter = Adapter(model, files.config, files.targets, dtype)
    adapter._fill(files)
    for parameter in adapter.parameters():
        parameter.requires_grad_(trainable)
    return adapter


def twin(model: SmolVLMForConditionalGeneration) -> SmolVLMForConditionalGeneration:
    """The same model in modules of its own, which share its tensors: for an adapter that the first one doesn't get."""
    shared = {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in model.parameters()}
    return copy.deepcopy(model, shared)  # its memo: what is there already isn't copied


def _read(entry: TensorEntry) -> Tensor:
    return torch.from_numpy(read_floats(entry))


def _trainable_copy(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A part of a model to be trained whole, in its own dtype; between its layers values keep the model's."""
    new = {id(one): nn.Parameter(one.detach().to(dtype, copy=True)) for one in part.parameters()}
    trained = copy.deepcopy(part, new)  # its memo: what is there already isn't copied
    outer = next(part.parameters()).dtype
    if outer != dtype:
        for leaf in trained.modules():
            if next(leaf.children(), None) is None and next(leaf.parameters(), None) is not None:
                leaf.register_forward_pre_hook(_inputs_as_weights)
                leaf.register_forward_hook(partial(_output_as, outer))
    return trained


def _inputs_as_weights(leaf: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(leaf.parameters()).dtype
    return tuple(one.to(dtype) if one.is_floating_point() else one for one in inputs)


def _output_as(dtype: torch.dtype, leaf: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(dtype)
