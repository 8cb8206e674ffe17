"""Which samples make up a step: a pure function of (recipe, step), so a run resumes exactly from one integer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from torch.utils.data import IterableDataset, get_worker_info

from ..scenes import draw
from .collate import Batch, collate
from .recipe import Recipe, Stage
from .samples import Sample, SampleMaker

SAMPLES_PER_STEP_LIMIT = 10_000  # room for the indices of one step, so that no scene is drawn twice


class Mixture(IterableDataset[list[Batch]]):
    """Steps from `start` to the end of the recipe; each is a list of batches.

    With several workers each makes every n-th step, so that the loader, which asks them in turn, keeps the order.
    """

    def __init__(self, recipe: Recipe, maker: SampleMaker, start: int = 0) -> None:
        self.recipe = recipe
        self.maker = maker
        self.start = start

    def __iter__(self) -> Iterator[list[Batch]]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + first, self.recipe.steps, stride):
            yield self.batches(step)

    def batches(self, step: int) -> list[Batch]:
        """All batches of one step, cut where tiles or tokens would be too many; alike lengths together."""
        samples = sorted(self.samples(step), key=lambda sample: (sample.length, len(sample.tiles)))
        return list(group(samples, self.recipe, self.maker.tokenizer.pad_token_id, self.recipe.stage(step)))

    def samples(self, step: int) -> list[Sample]:
        recipe, stage = self.recipe, self.recipe.stage(step)
        rng = Random(f"{recipe.name}/{recipe.seed}/{step}")
        skills, weights = list(stage.skills), list(stage.skills.values())
        samples: list[Sample] = []
        tiles = 0
        while tiles < recipe.tiles_per_step:
            skill = rng.choices(skills, weights)[0]
            scene = draw(
                skill, recipe.seed, step * SAMPLES_PER_STEP_LIMIT + len(samples),
                level=stage.levels.get(skill, 1.0),
            )  # fmt: skip
            sample = self.maker.make(
                scene, rng, linear_share=recipe.linear_chats, split_share=recipe.split_pictures, rounds=stage.rounds
            )
            samples.append(sample)
            tiles += max(1, len(sample.tiles))  # text counts as a tile, or a step could last for ever
        return samples


def group(samples: list[Sample], recipe: Recipe, pad_token_id: int, stage: Stage | None = None) -> Iterator[Batch]:
    """Cut a sorted list into batches within tiles_per_batch and tokens_per_batch (at least one sample each).

    stage: how answers are weighted; without one, all tokens count the same.
    """
    weighting = (stage.even_answers, stage.emphasis) if stage else ()
    members: list[Sample] = []
    for sample in samples:
        tiles = sum(len(member.tiles) for member in members) + len(sample.tiles)
        tokens = max([member.length for member in members] + [sample.length]) * (len(members) + 1)
        if members and (tiles > recipe.tiles_per_batch or tokens > recipe.tokens_per_batch):
            yield collate(members, pad_token_id, *weighting)
            members = []
        members.append(sample)
    if members:
        yield collate(members, pad_token_id, *weighting)
