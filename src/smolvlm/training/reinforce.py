"""A step of GRPO: the model answers, its answers are rewarded, and what earned more than its group becomes likelier.

Source: GRPO (arXiv 2402.03300); the loss is divided by all tokens of the step, as DAPO (2503.14476) has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import parallel
from .collate import Batch
from .data import Encoded
from .objectives import autocast, policy_loss, said_by, whole_of
from .rewards import reward_named
from .rollouts import roll_out
from .run import Run
from .steps import group
from .update import update


@dataclass(frozen=True)
class Earned:
    """reward: the mean of all answers. batches: what was learned from."""

    loss: float
    gradient: float
    reward: float
    batches: list[Batch]


def reinforce(run: Run, step: int, questions: Sequence[Encoded]) -> Earned | None:
    """Let the model answer, reward its answers, and make the better ones likelier. None without questions."""
    recipe, trainee = run.recipe, run.trainee
    assert recipe.grpo is not None, "checked by the recipe"
    reward, settings = reward_named(recipe.grpo.reward), recipe.grpo
    rollouts = [
        roll_out(trainee.model, run.processor.tokenizer, question, settings, reward, recipe.seed, step, number)
        for number, question in enumerate(questions)
    ]
    rewards = [one for rollout in rollouts for one in rollout.rewards]
    batches = list(group([one.sample for one in rollouts], recipe, run.processor.tokenizer.pad_token_id))
    whole = parallel.sum_over_ranks(sum(whole_of(batch, recipe) for batch in batches))
    if not whole:
        return None
    before: list[Tensor | None] = [None] * len(batches)
    old: list[Tensor | None] = [None] * len(batches)
    with torch.no_grad():
        if settings.kl:
            with trainee.as_before() as model:
                before = [said_by(model, batch.to(run.device)) for batch in batches]
        if settings.updates > 1:
            old = [said_by(trainee.model, batch.to(run.device)) for batch in batches]
    loss = gradient = 0.0
    for _ in range(settings.updates):
        loss = 0.0
        for batch, then, reference in zip(batches, old, before, strict=True):
            batch = batch.to(run.device)
            with autocast(trainee, batch):
                said = said_by(trainee.model, batch)
                part = policy_loss(said, said.detach() if then is None else then, reference, batch, settings) / whole
            part.backward()
            loss += float(part.detach())
        loss, gradient = update(run, step, loss, batches)
    mean = parallel.sum_over_ranks(sum(rewards)) / max(1.0, parallel.sum_over_ranks(len(rewards)))
    return Earned(loss, gradient, round(mean, 4), batches)
