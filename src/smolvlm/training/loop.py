"""The training loop, to be read from top to bottom. No callbacks, no inheritance.

One step: read or draw samples, forward and backward batch by batch, one update. Everything a step does is a function of
the recipe and its number, so a run that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch

from . import checkpoints, parallel, sharding
from .collate import Batch
from .data.mixture import Tally
from .evaluate import Scores
from .objectives import whole_of
from .parallel import Ranks
from .recipe import Recipe
from .reinforce import reinforce
from .run import Run, objective_of, open_run
from .selection import combined
from .speed import product_rate
from .steps import Made, stream
from .update import Lanes, backward, side_by_side_lanes, update


@dataclass(frozen=True)
class Metrics:
    """What the caller is told after every step, and a line of metrics.jsonl.

    step: how many are done. loss: of this step. gradient: its norm before clipping. samples, tokens: read for it, by
    all ranks. skipped: samples that couldn't be used, since the start. seconds: this step's. limit_share: of the
    operations that this machine could do in that time. reward: of GRPO, the mean. scores: name -> score, when just
    evaluated.
    """

    step: int
    steps: int
    loss: float
    gradient: float
    rate: float
    samples: int
    tokens: int
    skipped: int
    seconds: float
    limit_share: float
    reward: float | None = None
    scores: Scores | None = None


@dataclass
class Learned:
    """What one step did."""

    loss: float = 0.0
    gradient: float = 0.0
    samples: int = 0
    tokens: int = 0
    operations: float = 0.0
    reward: float | None = None


def train(
    recipe: Recipe,
    output: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    workers: int = 1,
    lanes: int = 1,
    opened: Callable[[Run], None] | None = None,
    report: Callable[[Metrics], None] | None = None,
    score: Callable[[Path], Scores] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Run or go on with a recipe; returns the directory of the finished (or, when stopped, current) checkpoint.

    output gets state.pt (to resume from), metrics.jsonl (a line a step), checkpoint/ (weights, or an adapter's files),
    best/ (the checkpoint with the best scores) and skipped.txt (samples that couldn't be used). minutes, stop: end
    early, after a step; the same call goes on. workers: processes that read. lanes: batches that go through the model
    side by side, the CPU's threads divided among them: for small models faster than all threads on one batch, and
    steady beside other work. opened: told once everything is open. score: of a checkpoint directory, beside the
    recipe's own evaluation. Raises ConfigError, DataError, InputError for a device that isn't here; CheckpointError
    when output holds another run; TrainingError when it can't go on.
    """
    with parallel.ranks(device) as ranks:
        run = open_run(recipe, ranks)
        recipe = run.recipe
        if opened is not None:
            opened(run)
        output.mkdir(parents=True, exist_ok=True)
        progress = checkpoints.Progress()
        if (output / checkpoints.STATE).exists():
            progress = checkpoints.load_state(output, run.identity, run.trainee, run.optimisers, run.average)
        tally = Tally(recipe.bad_share)
        writer = _Writer(output, ranks, progress.step)
        rate = product_rate(run.device, run.trainee.compute) * ranks.ranks
        began = last = time.monotonic()
        steps = stream(run.material, progress.step, recipe.steps, workers)
        with side_by_side_lanes(lanes) as side_by_side:
            for step, made in enumerate(steps, start=progress.step):
                if made.read is not None:
                    tally.add(made.read)
                    writer.skipped(step, made)
                learned = learn(run, step, made, side_by_side)
                progress.step = done = step + 1
                progress.skipped += len(made.read.skipped) if made.read else 0
                late = minutes is not None and time.monotonic() - began > 60 * minutes
                ended = parallel.any_rank(late or (stop is not None and stop()))
                finished = done == recipe.steps
                scores = None
                if finished or done % recipe.evaluate_every == 0:
                    scores = _evaluate(run, output, progress, score)
                now = time.monotonic()
                writer.step(_metrics(recipe, progress, learned, now - last, rate, scores), report)
                last = now
                if finished or ended or done % recipe.save_every == 0:
                    save(run, output, progress)
                if finished or ended:
                    break
    return output / checkpoints.LATEST


def learn(run: Run, step: int, made: Made, side_by_side: Lanes | None = None) -> Learned:
    """One update. Raises TrainingError, naming the samples, when the loss or its gradient is no number."""
    torch.manual_seed(Random(f"{run.recipe.seed}/{step}/{run.ranks.rank}").getrandbits(63))  # dropout: of the step
    if run.recipe.objective == "grpo":
        earned = reinforce(run, step, made.questions)
        if earned is None:
            return Learned()
        return Learned(earned.loss, earned.gradient, *_counts(run, earned.batches), earned.reward)
    whole = parallel.sum_over_ranks(sum(whole_of(batch, run.recipe) for batch in made.batches))
    if not whole:
        return Learned()  # not one sample of this step could be used
    batches = sharding.alike(made.batches, run.trainee.model.config) if run.recipe.shard else made.batches
    whole /= run.recipe.sequence_ranks  # ranks that share sequences have counted them all
    parameters, probe_weight = run.optimisers.parameters, run.recipe.probe(step)
    with objective_of(run) as objective:
        loss = backward(objective, parameters, batches, whole, probe_weight, run.device, side_by_side)
    loss, gradient = update(run, step, loss, made.batches)
    return Learned(loss, gradient, *_counts(run, made.batches))


def save(run: Run, output: Path, progress: checkpoints.Progress) -> None:
    """State and checkpoint: all ranks gather them, rank 0 writes."""
    writes = run.ranks.rank == 0
    checkpoints.save_state(output, run.identity, progress, run.trainee, run.optimisers, run.average, writes=writes)
    _export(run, output, progress.step)
    parallel.barrier()


def _metrics(
    recipe: Recipe, progress: checkpoints.Progress, learned: Learned, seconds: float, rate: float, scores: Scores | None
) -> Metrics:
    """rate: operations a second that the machine does at most."""
    return Metrics(
        progress.step, recipe.steps, round(learned.loss, 4), round(learned.gradient, 3),
        recipe.learning_rate * recipe.rate(progress.step - 1), learned.samples, learned.tokens, progress.skipped,
        round(seconds, 3), round(learned.operations / rate / seconds, 4), learned.reward, scores,
    )  # fmt: skip


def _evaluate(
    run: Run, output: Path, progress: checkpoints.Progress, score: Callable[[Path], Scores] | None
) -> Scores | None:
    """Scores of the averaged weights; the best checkpoint so far is kept."""
    scores: Scores = {}
    with run.average.in_place():
        if run.evaluate is not None:
            run.trainee.model.eval()
            scores |= sharding.within(run.trainee.model, run.evaluate)
            run.trainee.model.train()
    checkpoint = _export(run, output, progress.step) if scores or score else output
    if run.ranks.rank == 0 and (scores or score):
        if score is not None:
            scores |= score(checkpoint)
        together = round(combined(scores, run.recipe.selection), 6)
        if all(together > one["combined"] for one in progress.scores):
            checkpoints.keep_best(output)
        progress.scores.append({"step": progress.step, "scores": scores, "combined": together})
        text = json.dumps(progress.scores, indent=1) + "\n"
        (output / checkpoints.SCORES).write_text(text, encoding="utf-8")
    parallel.barrier()
    return scores or None


def _export(run: Run, output: Path, step: int) -> Path:
    with run.average.in_place():
        return checkpoints.export(
            run.trainee.model, run.processor, output, step, run.recipe.keep_last, writes=run.ranks.rank == 0
        )


def _counts(run: Run, batches: Sequence[Batch]) -> tuple[int, int, float]:
    """(samples, tokens, operations) of a step, of all ranks."""
    samples, tokens = sum(len(batch.names) for batch in batches), sum(batch.tokens for batch in batches)
    tiles, answers = sum(len(batch.tiles) for batch in batches), sum(len(batch.target) for batch in batches)
    counted = (samples, tokens, run.work.of_step(tokens, tiles, answers))
    # ranks that share sequences read the same samples
    all_samples, all_tokens, operations = (parallel.sum_over_ranks(one) / run.recipe.sequence_ranks for one in counted)
    return int(all_samples), int(all_tokens), operations


class _Writer:
    """metrics.jsonl and skipped.txt, which rank 0 writes."""

    def __init__(self, output: Path, ranks: Ranks, start: int) -> None:
        self.output, self.writes = output, ranks.rank == 0
        self.metrics = output / "metrics.jsonl"
        if self.writes:
            _forget(self.metrics, start)

    def step(self, metrics: Metrics, report: Callable[[Metrics], None] | None) -> None:
        if self.writes:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")
        if report is not None:
            report(metrics)

    def skipped(self, step: int, made: Made) -> None:
        if made.read is not None and made.read.skipped:
            with (self.output / "skipped.txt").open("a", encoding="utf-8") as file:
                file.writelines(f"step {step + 1}: {one}\n" for one in made.read.skipped)


def _forget(path: Path, start: int) -> None:
    """Drop the lines of steps that will be run again, and a last line that a kill cut in two."""
    if path.exists():
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        path.write_text("".join(line for line in whole if json.loads(line)["step"] <= start), encoding="utf-8")
