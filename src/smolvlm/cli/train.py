"""Train a model by a recipe, from nothing or from a checkpoint; the same command goes on with a run that was stopped.

examples:
  smolvlm train recipes/nano.toml --output runs/nano
  smolvlm train recipes/nano.toml --output runs/nano --minutes 60
  smolvlm train my.toml --output runs/my learning_rate=5e-5 adapter.r=16
  torchrun --nproc-per-node 8 -m smolvlm train my.toml --output runs/my

key=value changes a line of the recipe, table.key=value one of a table. Ctrl-C saves after the step, and again at once
ends.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from .arguments import Parser, UsageError, data_directory, number, task_names, whole_number
from .terminal import is_watched

if TYPE_CHECKING:
    from ..training.loop import Metrics
    from ..training.recipe import Recipe
    from ..training.run import Run
    from .scoring import Score

PLOT = "run.png"
GIGA = 1e9


def add_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a TOML file; recipes/ has examples")
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="instead of what the recipe says")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="where the run lives; required but for --plan")
    parser.add_argument("--plan", action="store_true", help="tell the memory that the run takes, and start nothing")
    add_run_options(parser)


def add_run_options(parser: Parser) -> None:
    """What any run is told: of its machine, not of what is learned."""
    parser.add_argument("--minutes", metavar="N", type=number, help="stop after this time; run again to go on")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default), cuda, mps")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that read (default: 1)")
    parser.add_argument("--lanes", metavar="N", type=int, default=1, help="batches at a time on a CPU (default: 1)")
    parser.add_argument(
        "--score", metavar="N", type=whole_number,
        help="at each evaluation ask the checkpoint N drawn questions of each skill, too; the best one is kept",
    )  # fmt: skip
    parser.add_argument(
        "--score-tasks", metavar="NAME,...", type=task_names,
        help="score: the first N samples of these tasks of `smolvlm eval` instead",
    )  # fmt: skip
    parser.add_argument("--score-data", metavar="DIR", type=Path, help="score: where they are, as --data of eval")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    from ..training.recipe import read_recipe

    recipe = read_recipe(options.recipe, options.changes)
    if options.plan:
        show_plan(recipe, options.device)
        return 0
    if options.output is None:
        raise UsageError("`smolvlm train` needs -o DIR, where the run lives; or --plan")
    run_recipe(recipe, options)
    return 0


def show_plan(recipe: Recipe, device: str) -> None:
    """Where the bytes of a run go, and the batch that fits in this machine's free memory."""
    from ..runtimes.machine import available_memory
    from ..training.plan import largest_batch, plan

    needed = plan(recipe, device)
    print(f"{needed.trained:,} of {needed.parameters:,} parameters are trained\n")
    what = f"one step of {needed.tiles} tiles and {needed.tokens:,} tokens at once"
    rows = (
        ("weights", needed.weights), ("optimiser", needed.optimiser), ("averaged weights", needed.average),
        (what, needed.step), ("the program itself", needed.program), ("together", needed.total),
    )  # fmt: skip
    for name, size in rows:
        print(f"{name:<{max(len(one) for one, _ in rows)}}  {size / GIGA:8.2f} GB")
    free = available_memory() if device == "cpu" else None
    if free is None:
        return
    if needed.total <= free:
        print(f"\nIt fits: {free / GIGA:.1f} GB are free here.")
        return
    fits = largest_batch(recipe, free, device)
    cure = "Use an adapter, bits = 4 or recompute = true, or a smaller model."
    if fits is not None:
        cure = f"With tiles_per_batch={fits.tiles_per_batch} tokens_per_batch={fits.tokens_per_batch} it does."
    print(f"\nIt doesn't fit: {free / GIGA:.1f} GB are free here. {cure}")


def run_recipe(recipe: Recipe, options: argparse.Namespace) -> Path:
    """Train with a bar, and show at the end what became of it."""
    from ..training.loop import train

    bar = _Bar(recipe.name) if is_watched(options) else None
    score = _score(recipe, options)
    with bar or nullcontext(), ctrl_c() as pressed:
        checkpoint = train(
            recipe, options.output, device=options.device, minutes=options.minutes, workers=options.workers,
            lanes=options.lanes, score=score, stop=pressed,
            opened=bar.say if bar else None, report=bar.show if bar else None,
        )  # fmt: skip
    _show_run(recipe.name, options)
    print(checkpoint)
    return checkpoint


def _score(recipe: Recipe, options: argparse.Namespace) -> Score | None:
    from .scoring import scene_scores, task_scores

    if options.score_tasks:
        if not options.score:
            raise UsageError("--score-tasks needs --score N, the number of samples of each task")
        return task_scores(options.score_tasks, options.score, data_directory(options.score_data), recipe.start)
    return scene_scores(options.score, recipe.start) if options.score else None


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C is only noted, once; the second is the usual one. Gives a function that tells."""
    pressed: list[bool] = []

    def note(number: int, frame: object) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: nothing is pressed there
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _show_run(name: str, options: argparse.Namespace) -> None:
    """The table of scores, and the plot, of a person's run."""
    from ..training.selection import plot, table

    if not is_watched(options):
        return
    from rich.console import Console

    console = Console(stderr=True)
    output = options.output
    history = json.loads((output / "scores.json").read_text()) if (output / "scores.json").exists() else []
    if history:
        console.print(table(history), highlight=False)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    try:
        plot(lines, history, output / PLOT, name)
        console.print(f"plot: {output / PLOT}", highlight=False)
    except MissingDependencyError as error:
        console.print(str(error), highlight=False)


class _Bar:
    """A progress bar with loss, speed and time left, and a line for every evaluation."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(name, total=None, state="")

    def __enter__(self) -> None:
        self.progress.start()

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, run: Run) -> None:
        """What is trained: each kind of layer that has an adapter, or how much of the model."""
        model = run.trainee.model
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        whole = f"{trained:,} of {sum(one.numel() for one in model.parameters()):,} parameters are trained"
        self.progress.console.print(f"{model.adapter}" if model.adapter is not None else whole, highlight=False)

    def show(self, metrics: Metrics) -> None:
        speed = metrics.tokens / max(metrics.seconds, 1e-9)
        state = f"loss {metrics.loss:.3f}  {speed:,.0f} tokens/s  {metrics.limit_share:.0%} of limit"
        state += f"  reward {metrics.reward:.2f}" if metrics.reward is not None else ""
        state += f"  {metrics.skipped} skipped" if metrics.skipped else ""
        self.progress.update(self.task, completed=metrics.step, total=metrics.steps, state=state)
        if metrics.scores:
            shown = {name: score for name, score in metrics.scores.items() if "/" not in name}
            line = "  ".join(f"{name} {score:.3f}" for name, score in shown.items())
            self.progress.console.print(f"step {metrics.step}: {line}", highlight=False)
