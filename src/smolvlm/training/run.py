"""All parts of a run, opened and checked before its first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from ..processing.processor import SmolVLMProcessor
from . import parallel, sharding
from .collate import Batch
from .data import DataSet, Encoder, Mixture
from .data.mixture import Steps
from .evaluate import Scores, evaluate_samples, evaluate_scenes
from .objectives import Objective, Trainee, autocast, loss_of
from .optimiser import Average, Optimisers
from .parallel import Ranks
from .recipe import Recipe
from .samples import SampleMaker
from .sequence import sequence_group, sequence_parallel
from .speed import Work
from .start import make_trainee, open_processor
from .steps import DataSteps, Material, SceneSteps, fingerprint


@dataclass
class Run:
    """recipe: with its number of steps. evaluate: scores on material that isn't learned from, if the recipe has any.

    identity: what must be the same when the run goes on. group: of the ranks that share sequences, if any do.
    """

    recipe: Recipe
    processor: SmolVLMProcessor
    trainee: Trainee
    optimisers: Optimisers
    average: Average
    material: Material
    evaluate: Callable[[], Scores] | None
    identity: dict[str, str]
    ranks: Ranks
    device: str
    work: Work
    group: dist.ProcessGroup | None = None


def open_run(recipe: Recipe, ranks: Ranks) -> Run:
    """Raises ConfigError, CheckpointError, DataError."""
    device, reading, group = ranks.device, ranks, None
    if recipe.sequence_ranks > 1:
        group, reading = sequence_group(ranks, recipe.sequence_ranks)
    processor = open_processor(recipe)
    if recipe.data:
        encoder = Encoder(processor, max_tokens=recipe.max_tokens, look=recipe.look)
        mixture = Mixture([DataSet(source) for source in recipe.data], seed=recipe.seed)
        if recipe.epochs:
            steps = math.ceil(recipe.epochs * mixture.start_of(1) / recipe.samples_per_step)
            recipe = dataclasses.replace(recipe, steps=steps, epochs=0.0)
    identity = {"recipe": repr(recipe)}
    trainee = make_trainee(recipe, processor, device)
    work = Work(trainee.model, recompute=recipe.recompute)
    parallel.same_weights(trainee.model)
    if recipe.shard and not parallel.alone():
        sharding.shard(trainee.model)
    pad = processor.tokenizer.pad_token_id
    evaluate: Callable[[], Scores] | None = None
    if recipe.data:
        identity["data"] = fingerprint(recipe.data, mixture.start_of(1))
        steps_of_rank = Steps(mixture, encoder, recipe.samples_per_step, rank=reading.rank, ranks=reading.ranks)
        material: Material = DataSteps(recipe, steps_of_rank, pad)
        if recipe.validation:
            unseen = Mixture([DataSet(source) for source in recipe.validation], seed=recipe.seed)

            def evaluate() -> Scores:
                return evaluate_samples(trainee, unseen, encoder, recipe, pad, device)
    else:
        maker = sample_maker(processor, trainee.model.config.vision_config.patches_per_side)
        material = SceneSteps(recipe, maker, reading.rank, reading.ranks)

        def evaluate() -> Scores:
            return evaluate_scenes(trainee, maker, recipe, device)

    optimisers = Optimisers(trainee.model, trainee.probes, recipe)
    average = Average(optimisers.parameters, recipe.ema)
    return Run(
        recipe, processor, trainee, optimisers, average, material, evaluate, identity,
        ranks, device, work, group,
    )  # fmt: skip


@contextmanager
def objective_of(run: Run) -> Iterator[Objective]:
    """The recipe's loss of one batch, for one step. Backward passes belong inside."""
    model, loss = run.trainee.model, loss_of(run.trainee, run.recipe)
    if run.group is None:
        yield lambda batch, whole, probe_weight: sharding.within(model, loss, batch, whole, probe_weight)
        return
    with sequence_parallel(model, run.group) as shared:

        def compute(batch: Batch, whole: float, probe_weight: float) -> Tensor:
            with autocast(run.trainee, batch):
                return sharding.within(model, shared.answer_loss, batch, whole)

        yield compute


def sample_maker(processor: SmolVLMProcessor, patches_per_side: int) -> SampleMaker:
    """Makes samples of scenes with the processor's tokenizer and tiles."""
    return SampleMaker(processor.tokenizer, processor.image_processor, processor.image_seq_len, patches_per_side)
