"""All parts of a run, opened and checked before its first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..processing.processor import SmolVLMProcessor
from .data import DataSet, Encoder, Mixture
from .data.mixture import Steps
from .evaluate import Scores, evaluate_samples, evaluate_scenes
from .objectives import Objective, Trainee, objective_of
from .optimiser import Average, Optimisers
from .parallel import Ranks
from .recipe import Recipe
from .samples import SampleMaker
from .speed import Work
from .start import make_trainee, open_processor
from .steps import DataSteps, Material, SceneSteps, fingerprint


@dataclass
class Run:
    """recipe: with its number of steps. evaluate: scores on material that isn't learned from, if the recipe has any.

    identity: what must be the same when the run goes on.
    """

    recipe: Recipe
    processor: SmolVLMProcessor
    trainee: Trainee
    optimisers: Optimisers
    average: Average
    objective: Objective
    material: Material
    evaluate: Callable[[], Scores] | None
    identity: dict[str, str]
    ranks: Ranks
    device: str
    work: Work


def open_run(recipe: Recipe, device: str, ranks: Ranks) -> Run:
    """Raises ConfigError, CheckpointError, DataError."""
    processor = open_processor(recipe)
    if recipe.data:
        encoder = Encoder(processor, max_tokens=recipe.max_tokens, look=recipe.look)
        mixture = Mixture([DataSet(source) for source in recipe.data], seed=recipe.seed)
        if recipe.epochs:
            steps = math.ceil(recipe.epochs * mixture.start_of(1) / recipe.samples_per_step)
            recipe = dataclasses.replace(recipe, steps=steps, epochs=0.0)
    identity = {"recipe": repr(recipe)}
    trainee = make_trainee(recipe, processor, device)
    pad = processor.tokenizer.pad_token_id
    evaluate: Callable[[], Scores] | None = None
    if recipe.data:
        identity["data"] = fingerprint(recipe.data, mixture.start_of(1))
        reading = Steps(mixture, encoder, recipe.samples_per_step, rank=ranks.rank, ranks=ranks.ranks)
        material: Material = DataSteps(recipe, reading, pad)
        if recipe.validation:
            unseen = Mixture([DataSet(source) for source in recipe.validation], seed=recipe.seed)

            def evaluate() -> Scores:
                return evaluate_samples(trainee, unseen, encoder, recipe, pad, device)
    else:
        maker = sample_maker(processor, trainee.model.config.vision_config.patches_per_side)
        material = SceneSteps(recipe, maker, ranks.rank, ranks.ranks)

        def evaluate() -> Scores:
            return evaluate_scenes(trainee, maker, recipe, device)

    optimisers = Optimisers(trainee.model, trainee.probes, recipe)
    average = Average(optimisers.parameters, recipe.ema)
    return Run(
        recipe, processor, trainee, optimisers, average, objective_of(trainee, recipe), material, evaluate, identity,
        ranks, device, Work(trainee.model, recompute=recipe.recompute),
    )  # fmt: skip


def sample_maker(processor: SmolVLMProcessor, patches_per_side: int) -> SampleMaker:
    """Makes samples of scenes with the processor's tokenizer and tiles."""
    return SampleMaker(processor.tokenizer, processor.image_processor, processor.image_seq_len, patches_per_side)
