"""What is made small: cross-entropy of answers, DPO's and IPO's preference losses, GRPO's policy loss.

Every loss is this batch's share of the step's: a sum divided by what all batches, of all ranks, hold together. So
neither how a step is cut into batches nor where they run changes a gradient.
Source: DPO (arXiv 2305.18290), IPO (2310.12036), GRPO (2402.03300); DPO is held against TRL in
tests/reference/test_objectives.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor

from ..model import SmolVLMForConditionalGeneration
from ..model.place import on_cpu
from .collate import Batch
from .halves import weights_in_half
from .probes import Probes
from .recipe import Preference, Recipe, Reinforcement

LOGITS_AT_ONCE = 2**25  # numbers in memory together: of 680 targets of a vocabulary of 49,000, 64 MB in bfloat16
FLOATS_AT_ONCE = 2**20  # of them in float32, on a CPU: what stays in its cache


@dataclass
class Trainee:
    """What a run trains. reference: the model before, where preferences or rewards are compared with it and there is
    no adapter to switch off. probes: of drawn scenes only. compute: dtype of the products."""

    model: SmolVLMForConditionalGeneration
    compute: torch.dtype
    probes: Probes | None = None
    reference: SmolVLMForConditionalGeneration | None = None

    @contextmanager
    def as_before(self) -> Iterator[SmolVLMForConditionalGeneration]:
        """The model before the run, without dropout."""
        if self.reference is not None:
            yield self.reference
            return
        assert self.model.adapter is not None, "a run that compares has an adapter or a reference"
        training = self.model.training
        with self.model.adapter.disabled():
            try:
                yield self.model.eval()
            finally:
                self.model.train(training)


Objective = Callable[[Batch, float, float], Tensor]  # (batch, whole of the step, probes' weight) -> loss


def whole_of(batch: Batch, recipe: Recipe) -> float:
    """What a batch adds to the number that the step's loss is divided by: weights of targets, or pairs."""
    if recipe.objective == "dpo":
        return batch.talks / 2
    return float(batch.weight.sum()) if recipe.objective == "sft" else float(len(batch.target))


def loss_of(trainee: Trainee, recipe: Recipe) -> Objective:
    """The recipe's loss of one batch, in the dtype that it computes in."""

    def compute(batch: Batch, whole: float, probe_weight: float) -> Tensor:
        with autocast(trainee, batch), _products_in_half(trainee, batch, recipe):
            if recipe.objective == "dpo":
                return preference_loss(trainee, batch, recipe.dpo) / whole
            return answer_loss(trainee, batch, whole, probe_weight)

    return compute


def _products_in_half(trainee: Trainee, batch: Batch, recipe: Recipe) -> AbstractContextManager[None]:
    """Casts all weights at once, where that saves launches and nothing makes or moves weights later."""
    later = recipe.recompute or recipe.shard or trainee.model.adapter is not None or on_cpu(batch.input_ids)
    return nullcontext() if later or trainee.compute != torch.bfloat16 else weights_in_half(trainee.model)


def autocast(trainee: Trainee, batch: Batch) -> torch.autocast:
    """Inside, products are of the dtype that the run computes in."""
    device = batch.input_ids.device.type
    return torch.autocast(device, torch.bfloat16, enabled=trainee.compute == torch.bfloat16)


def answer_loss(trainee: Trainee, batch: Batch, whole: float, probe_weight: float = 0.0) -> Tensor:
    """Weighted cross-entropy of the answers' tokens, plus the probes'. whole: the step's weights together."""
    hidden, patches = hidden_states(trainee.model, batch)
    losses = -log_likelihoods(trainee.model, hidden, batch.target)
    loss = (losses * batch.weight).sum() / whole
    if probe_weight and trainee.probes is not None and patches is not None:
        loss = loss + probe_weight * batch.weight.sum() / whole * trainee.probes(patches, batch.patch_labels)
    return loss


def preference_loss(trainee: Trainee, batch: Batch, settings: Preference) -> Tensor:
    """Sum over pairs. The batch's branches are the better and the worse answer in turn."""
    with torch.no_grad(), trainee.as_before() as before:
        reference = batch.per_talk(said_by(before, batch))  # (talks,)
    said = batch.per_talk(said_by(trainee.model, batch))
    margin = said - reference
    loss = pair_losses(margin[0::2] - margin[1::2], settings).sum()
    if settings.sft:
        tokens = batch.per_talk(torch.ones_like(batch.weight))  # (talks,)
        loss = loss - settings.sft * (said[0::2] / tokens[0::2]).sum()
    return loss


def pair_losses(advantage: Tensor, settings: Preference) -> Tensor:
    """(pairs,). advantage: by how much the log-likelihood of the better answer has risen more than the worse one's."""
    if settings.kind == "ipo":
        return (advantage - 1 / (2 * settings.beta)) ** 2
    scaled, smoothing = settings.beta * advantage, settings.label_smoothing
    return -F.logsigmoid(scaled) * (1 - smoothing) - F.logsigmoid(-scaled) * smoothing


@torch.no_grad()
def preferred(trainee: Trainee, batch: Batch) -> Tensor:
    """(pairs,) bool: whether the better answer's likelihood has risen more than the worse one's."""
    with trainee.as_before() as before:
        reference = batch.per_talk(said_by(before, batch))
    margin = batch.per_talk(said_by(trainee.model, batch)) - reference
    return margin[0::2] > margin[1::2]


def policy_loss(said: Tensor, old: Tensor, before: Tensor | None, batch: Batch, settings: Reinforcement) -> Tensor:
    """Sum over the answers' tokens. batch.weight: the advantage of each token's answer.

    said: (targets,) log-likelihoods now; old: when the answers were given; before: of the model that the run started
    from, needed for kl.
    """
    ratio = (said - old).exp()
    clipped = ratio.clamp(1 - settings.clip_ratio, 1 + settings.clip_ratio)
    loss = -torch.minimum(ratio * batch.weight, clipped * batch.weight)
    if settings.kl and before is not None:
        away = before - said
        loss = loss + settings.kl * (away.exp() - away - 1)  # never negative, and in the mean the KL divergence
    return loss.sum()


def said_by(model: SmolVLMForConditionalGeneration, batch: Batch) -> Tensor:
    """(targets,) float32: log-likelihood of each token of the answers."""
    return log_likelihoods(model, hidden_states(model, batch)[0], batch.target)


def hidden_states(model: SmolVLMForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """(targets, hidden) at the places that predict an answer's token, and the patches' features."""
    patches = features = None
    if len(batch.tiles):
        patches = model.model.vision_model(batch.pixel_values().to(model.dtype)).last_hidden_state
        features = model.model.connector(patches)  # (tiles, image tokens, text hidden)
    hidden = model.model(
        batch.input_ids,
        attention_mask=batch.attention_mask(),
        position_ids=batch.position_ids,
        image_hidden_states=features,
        use_cache=False,
    ).last_hidden_state  # (rows, tokens, hidden)
    return hidden.flatten(0, 1)[batch.place], patches


def logits_of(model: SmolVLMForConditionalGeneration, batch: Batch) -> Tensor:
    """(targets, vocabulary) at the places that predict an answer's token."""
    return model.lm_head(hidden_states(model, batch)[0])


def log_likelihoods(model: SmolVLMForConditionalGeneration, hidden: Tensor, target: Tensor) -> Tensor:
    """(targets,) float32 of (targets, hidden). Logits are never all in memory when there are many."""
    few = max(1, LOGITS_AT_ONCE // model.config.text_config.vocab_size)
    if len(hidden) <= few:
        return _log_likelihoods(model, hidden, target)
    parts = zip(hidden.split(few), target.split(few), strict=True)
    return torch.cat(
        [torch.utils.checkpoint.checkpoint(_log_likelihoods, model, *part, use_reentrant=False) for part in parts]
    )


def _log_likelihoods(model: SmolVLMForConditionalGeneration, hidden: Tensor, target: Tensor) -> Tensor:
    likelihoods: Tensor = TargetLikelihood.apply(model.lm_head(hidden), target)
    return likelihoods


class TargetLikelihood(torch.autograd.Function):
    """log softmax(logits) at the target, a number a row, computed in float32.

    Keeps the logits alone and goes through them a few rows at a time: cross_entropy makes three copies of all of them
    in float32, whose writing and reading takes as long as the products around it.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        """logits: (targets, vocabulary). target: (targets,) int64. Returns (targets,) float32."""
        whole = torch.cat([few.float().logsumexp(-1) for few in logits.split(_rows_at_once(logits))])
        ctx.save_for_backward(logits, target, whole)
        return logits.gather(1, target[:, None]).squeeze(1).float() - whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, target, whole = ctx.saved_tensors
        found, rows = torch.empty_like(logits), _rows_at_once(logits)
        for made, few, *of_rows in zip(*(x.split(rows) for x in (found, logits, target, whole, gradient)), strict=True):
            at, sums, came = (x[:, None] for x in of_rows)
            change = (few.float() - sums).exp_().neg_()  # (rows, vocabulary)
            made.copy_(change.scatter_add_(1, at, torch.ones_like(sums)).mul_(came))
        return found, None


def _rows_at_once(logits: Tensor) -> int:
    return max(1, (FLOATS_AT_ONCE if on_cpu(logits) else LOGITS_AT_ONCE) // logits.shape[1])
