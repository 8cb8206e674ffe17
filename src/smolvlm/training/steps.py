"""What each step of a run learns from: a pure function of recipe and step, so a run resumes exactly from one integer.

Drawn scenes (SceneSteps) and data sets (DataSteps) give the same thing: batches. Both may be read by worker processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Protocol

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..scenes import draw
from .collate import Batch, batches_of
from .data import Encoded, Pair, Source
from .data.mixture import Learned, Step, Steps
from .recipe import Recipe, Stage
from .samples import Branch, Sample, SampleMaker

SAMPLES_PER_STEP_LIMIT = 10_000  # room for the indices of one step, so that no scene is drawn twice


@dataclass
class Made:
    """The batches of one step, of one rank; of GRPO questions instead, which the model answers first.

    read: of data sets, what was read and what was skipped.
    """

    batches: list[Batch]
    questions: list[Encoded] = field(default_factory=list)
    read: Step | None = None


class Material(Protocol):
    """Steps by number. rank, ranks: which share of each step is made."""

    def made(self, step: int) -> Made: ...


class SceneSteps:
    """Drawn scenes. Ranks share out batches: each draws all scenes of a step, which costs little."""

    def __init__(self, recipe: Recipe, maker: SampleMaker, rank: int = 0, ranks: int = 1) -> None:
        self.recipe, self.maker, self.rank, self.ranks = recipe, maker, rank, ranks

    def made(self, step: int) -> Made:
        return Made(self.batches(step)[self.rank :: self.ranks])

    def batches(self, step: int) -> list[Batch]:
        """All batches of one step, cut where tiles or tokens would be too many."""
        stage = self.recipe.stage(step)
        return list(group(self.samples(step), self.recipe, self.maker.tokenizer.pad_token_id, stage))

    def samples(self, step: int) -> list[Sample]:
        recipe, stage = self.recipe, self.recipe.stage(step)
        rng = Random(f"{recipe.name}/{recipe.seed}/{step}")
        skills, weights = list(stage.skills), list(stage.skills.values())
        samples: list[Sample] = []
        tiles = 0
        while tiles < recipe.tiles_per_step:
            skill = rng.choices(skills, weights)[0]
            index = step * SAMPLES_PER_STEP_LIMIT + len(samples)
            scene = draw(skill, recipe.seed, index, level=stage.levels.get(skill, 1.0))
            sample = self.maker.make(
                scene, rng, linear_share=recipe.linear_chats, split_share=recipe.split_pictures, rounds=stage.rounds
            )
            samples.append(replace(sample, name=f"scene {skill}/{recipe.seed}/{index}"))
            tiles += max(1, len(sample.tiles))  # text counts as a tile, or a step could last for ever
        return samples


class DataSteps:
    """Samples of data sets. steps: of this rank."""

    def __init__(self, recipe: Recipe, steps: Steps, pad_token_id: int) -> None:
        self.recipe, self.steps, self.pad_token_id = recipe, steps, pad_token_id

    def made(self, step: int) -> Made:
        read = self.steps[step]
        counted = replace(read, learned=[_without_content(one) for one in read.learned])
        if self.recipe.objective == "grpo":
            return Made([], [one for one in read.learned if isinstance(one, Encoded)], counted)
        batches = list(group([as_sample(one) for one in read.learned], self.recipe, self.pad_token_id))
        return Made(batches, [], counted)


class _Stream(IterableDataset[Made]):
    """Steps start to end. Of several workers each makes every n-th, so the loader, which asks in turn, keeps order."""

    def __init__(self, material: Material, start: int, end: int) -> None:
        self.material, self.start, self.end = material, start, end

    def __iter__(self) -> Iterator[Made]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + first, self.end, stride):
            yield self.material.made(step)


def stream(material: Material, start: int, end: int, workers: int) -> Iterable[Made]:
    """Steps start to end - 1, made in worker processes; how many changes nothing but the speed."""
    steps = _Stream(material, start, end)
    return DataLoader(steps, batch_size=None, num_workers=workers, prefetch_factor=4) if workers else steps


def group(samples: list[Sample], recipe: Recipe, pad_token_id: int, stage: Stage | None = None) -> Iterator[Batch]:
    """Batches within the recipe's limits. stage: of scenes, says how answers are weighted."""
    return batches_of(
        samples, pad_token_id, recipe.tiles_per_batch, recipe.tokens_per_batch, pack=recipe.pack,
        even_answers=stage.even_answers if stage else recipe.even_answers, emphasis=stage.emphasis if stage else {},
    )  # fmt: skip


def as_sample(learned: Learned) -> Sample:
    """A conversation as one branch; a preference as two, the better first, which share all that comes before."""
    if isinstance(learned, Encoded):
        return replace(learned.as_branches(0), name=str(learned.place))
    first = int(min(one.learned.argmax() for one in (learned.chosen, learned.rejected)))
    branches = tuple(
        Branch(tuple(one.ids[first:].tolist()), tuple(one.learned[first:].tolist()), (kind,) * one.answers)
        for kind, one in (("chosen", learned.chosen), ("rejected", learned.rejected))
    )
    assert (learned.chosen.ids[:first] == learned.rejected.ids[:first]).all(), "one question, two answers"
    tiles = learned.chosen.tiles
    labels = np.zeros((len(tiles), 0, 3), np.int16)
    return Sample("pair", tuple(learned.chosen.ids[:first].tolist()), branches, tiles, labels, str(learned.place))


def fingerprint(sources: Iterable[Source], rows: int) -> str:
    """Of data sets as they are now: which files, how large, how many rows. Another one means that data changed."""
    seen = [(repr(source), _size(Path(source.path).expanduser())) for source in sources]
    return sha256(repr((seen, rows)).encode()).hexdigest()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 for patterns and the hub, whose rows are counted."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def _without_content(one: Learned) -> Learned:
    """What is counted of it: between processes its tiles would travel twice."""
    if isinstance(one, Pair):
        return Pair(_without_content(one.chosen), _without_content(one.rejected))  # type: ignore[arg-type]
    return replace(one, tiles=one.tiles[:0])
