"""How good is what is being trained, on material that it doesn't learn from? Drawn scenes, or samples held back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

import torch

from ..scenes import draw
from .collate import Batch
from .data import Encoder, Mixture
from .data.mixture import read
from .data.sample import Skipped
from .objectives import Trainee, hidden_states, log_likelihoods, logits_of, preferred
from .recipe import Recipe
from .samples import SampleMaker
from .steps import as_sample, group

Scores = dict[str, float]


@torch.inference_mode()
def evaluate_scenes(trainee: Trainee, maker: SampleMaker, recipe: Recipe, device: str) -> Scores:
    """Share of validation turns answered exactly right, per skill and per "skill/kind", as hard as the last stage.

    Every token of the answer must be the most likely one after the right ones before it: the same as greedy decoding
    giving the exact answer, at the cost of one forward pass.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    last = recipe.stages[-1]
    for skill in last.skills:
        level = last.levels.get(skill, 1.0)
        scenes = (draw(skill, recipe.seed, index, "validation", level=level) for index in range(recipe.evaluate_scenes))
        samples = [maker.make(scene, Random(0)) for scene in scenes]
        for batch in group(samples, recipe, maker.tokenizer.pad_token_id):
            for (name, kind), ok in zip(batch.skill_kinds, _right_turns(trainee, batch.to(device)), strict=True):
                right[name].append(ok)
                right[f"{name}/{kind}"].append(ok)
    return {name: round(sum(turns) / len(turns), 4) for name, turns in right.items()}


@torch.inference_mode()
def evaluate_samples(
    trainee: Trainee, mixture: Mixture, encoder: Encoder, recipe: Recipe, pad_token_id: int, device: str
) -> Scores:
    """On the first samples of held-out data. sft: "exact", the share of answers of which every token is the most likely
    one, and "loss" a token. dpo: "preferred", the share of pairs whose better answer has become the likelier one."""
    count = min(recipe.evaluate_samples, mixture.start_of(1))
    found = (read(mixture, encoder, position) for position in range(count))
    samples = [as_sample(one) for one in found if not isinstance(one, Skipped)]
    batches: Iterator[Batch] = group(samples, recipe, pad_token_id)
    if recipe.objective == "dpo":
        won = [bool(one) for batch in batches for one in preferred(trainee, batch.to(device))]
        return {"preferred": round(sum(won) / len(won), 4)}
    right: list[bool] = []
    loss, targets = 0.0, 0
    for batch in batches:
        batch = batch.to(device)
        right += _right_turns(trainee, batch)
        hidden, _ = hidden_states(trainee.model, batch)
        loss -= float(log_likelihoods(trainee.model, hidden, batch.target).sum())
        targets += len(batch.target)
    return {"exact": round(sum(right) / len(right), 4), "loss": round(loss / targets, 4)}


def _right_turns(trainee: Trainee, batch: Batch) -> list[bool]:
    hits = logits_of(trainee.model, batch).argmax(-1) == batch.target  # (targets,)
    turns = torch.ones(len(batch.skill_kinds), dtype=torch.bool, device=hits.device)
    turns[batch.turn[~hits]] = False
    return turns.tolist()
