"""Weights, gradients and optimiser state shared out over ranks, for models that no card holds with all of these.

FSDP2 does the sharing: a block's weights are gathered while it computes, its gradients added up as soon as it has them.
A loop on a sharded model differs in four places: `within` goes around what calls the model, `alike` around a step's
batches, `clip_gradients` clips, and `whole` makes what is saved. All of them do the obvious where
nothing is shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..config import SmolVLMConfig
from ..model import SmolVLMForConditionalGeneration
from . import parallel
from .collate import PADDING, Batch

Given = ParamSpec("Given")
Result = TypeVar("Result")
WITHIN = "run_within"  # the method of a sharded model that counts as its forward pass


def shard(model: SmolVLMForConditionalGeneration) -> None:
    """Share out every block of both towers, and what is left as one more. Make optimisers after it.

    The model is where it will be, with the same weights on all ranks. Frozen weights are shared out too; the base
    under an adapter is held whole by the adapter besides, so this is for training of weights themselves.
    AdamW steps as in one process. So does Muon but for its rounding: it multiplies in bfloat16, in another order here.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for part in (*model.model.vision_model.encoder.layers, *model.model.text_model.layers, model):
        # resharded after the forward pass, the rest too: gathered weights would be stale after the next update
        fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # summed: the loss is divided by what all ranks hold together
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
            part.unshard()  # once now: where an evaluation makes room for whole weights, training can't write to them
            part.reshard()
    setattr(model, WITHIN, _call)
    register_fsdp_forward_method(model, WITHIN)


def _call(work: Callable[..., Result], *given: Any) -> Result:
    return work(*given)


def within(model: nn.Module, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
    """work(...), which may call any part of the model: a loss before its backward pass, or an evaluation.

    On a sharded model all ranks do it together, and call the same blocks in the same order.
    """
    run = getattr(model, WITHIN, None)
    return work(*given, **named) if run is None else cast(Result, run(lambda: work(*given, **named)))


def alike(batches: Sequence[Batch], config: SmolVLMConfig) -> list[Batch]:
    """As many batches on every rank, and those of one number with or without pictures on all, as sharded models need.

    What is added holds no target, so it changes no loss and no gradient.
    """
    if parallel.alone():
        return list(batches)
    made = []
    for number in range(int(parallel.most_over_ranks(len(batches)))):
        batch = batches[number] if number < len(batches) else _without_targets(config)
        pictured = parallel.any_rank(len(batch.tiles) > 0)
        made.append(_with_picture(batch, config) if pictured and not len(batch.tiles) else batch)
    return made


def _without_targets(config: SmolVLMConfig) -> Batch:
    """One row of one token."""
    side = config.vision_config.image_size
    nothing, one = torch.zeros(0, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int16)
    return Batch(
        input_ids=_filler(config, 1, 1), position_ids=one.long(), sample=one, branch=one.clone(),
        tiles=torch.zeros(0, side, side, 3, dtype=torch.uint8),
        patch_labels=torch.zeros(0, config.vision_config.patches_per_side**2, 3, dtype=torch.int16),
        place=nothing, target=nothing, turn=nothing, talk=nothing, weight=torch.zeros(0),
        skill_kinds=[], talks=0, names=[],
    )  # fmt: skip


def _with_picture(batch: Batch, config: SmolVLMConfig) -> Batch:
    """One more row, with the tokens of one black tile."""
    rows, tokens = batch.input_ids.shape
    length = max(tokens, config.image_seq_len)
    empty = _without_targets(config)
    ids = _filler(config, rows + 1, length)
    ids[:rows, :tokens], ids[rows, : config.image_seq_len] = batch.input_ids, config.image_token_id
    positions, sample, branch = (
        torch.full((rows + 1, length), value, dtype=old.dtype)
        for old, value in ((batch.position_ids, 0), (batch.sample, PADDING), (batch.branch, 0))
    )
    positions[:rows, :tokens], sample[:rows, :tokens] = batch.position_ids, batch.sample
    branch[:rows, :tokens] = batch.branch
    row, column = batch.place // tokens, batch.place % tokens
    return replace(
        batch, input_ids=ids, position_ids=positions, sample=sample, branch=branch, place=row * length + column,
        tiles=empty.tiles.new_zeros(1, *empty.tiles.shape[1:]),
        patch_labels=empty.patch_labels.new_full((1, *empty.patch_labels.shape[1:]), -1),
    )  # fmt: skip


def _filler(config: SmolVLMConfig, rows: int, tokens: int) -> Tensor:
    """(rows, tokens) of any token but the image's."""
    return torch.full((rows, tokens), int(config.image_token_id == 0))


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], limit: float) -> float:
    """Shrink gradients to this norm together, as clip_grad_norm_ does, also where they are shared out over ranks.

    Returns the norm before.
    """
    if parallel.alone():
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    from torch.distributed.tensor import DTensor

    found = [one.grad for one in parameters if one.grad is not None]
    own = [one.to_local() for one in found if isinstance(one, DTensor)]
    same = [one for one in found if not isinstance(one, DTensor)]
    if not own:
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    shared = parallel.sum_over_ranks(float(sum(_squares(one) for one in own)))
    norm = float(shared + sum(_squares(one) for one in same)) ** 0.5
    share = limit / (norm + 1e-6)
    if not share >= 1:  # a norm that is no number goes into the gradients, as there
        for one in (*own, *same):
            one.mul_(share)
    return norm


def _squares(gradient: Tensor) -> float:
    return float(gradient.double().square().sum())


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Whole weights by name, on the CPU of rank 0; empty on the others. All ranks call it. Alone, the model's own."""
    if parallel.alone():
        return dict(model.state_dict())
    kept = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)
        if dist.get_rank() == 0:
            kept[name] = full
    return kept


def whole(held: Any) -> Any:
    """The same dicts and lists with whole tensors on the CPU in place of shared out ones. All ranks call it.

    What isn't shared out is not copied: write it to a file before the next step.
    """
    if isinstance(held, Mapping):
        return {key: whole(value) for key, value in held.items()}
    if isinstance(held, list | tuple):
        return type(held)(whole(value) for value in held)
    if isinstance(held, Tensor) and not parallel.alone():
        from torch.distributed.tensor import DTensor

        return held.full_tensor().detach().cpu() if isinstance(held, DTensor) else held
    return held


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every rank has, as `like` is held: this rank's share of it where that one is shared out."""
    if parallel.alone():
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take up a state that `whole` made of optimiser.state_dict()."""
    parameters: Iterable[Tensor] = (one for group in optimiser.param_groups for one in group["params"])
    taken = {
        number: {
            name: share_of(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
            for name, value in state["state"][number].items()
        }
        for number, parameter in enumerate(parameters)
        if number in state["state"]
    }
    optimiser.load_state_dict({**state, "state": taken})
