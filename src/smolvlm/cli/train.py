"""Train a model by a recipe, from nothing or from a checkpoint; the same command goes on with a run that was stopped.

examples:
  smolvlm train recipes/nano.toml --output runs/nano
  smolvlm train recipes/nano.toml --output runs/nano --minutes 60
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Parser, number
from .terminal import is_watched

if TYPE_CHECKING:
    from ..training.loop import Progress


def add_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a TOML file; recipes/ has examples")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="where the run lives")
    parser.add_argument("--minutes", metavar="N", type=number, help="stop after this time; run again to go on")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default), cuda, mps")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that draw (default: 1)")
    parser.add_argument("--lanes", metavar="N", type=int, default=1, help="batches at a time on a CPU (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    from ..training.loop import train
    from ..training.recipe import read_recipe

    recipe = read_recipe(options.recipe)
    bar = _Bar(recipe.name, recipe.steps) if is_watched(options) else None
    with bar or nullcontext():
        checkpoint = train(
            recipe, options.output, device=options.device, minutes=options.minutes, workers=options.workers,
            lanes=options.lanes, report=bar.show if bar else None,
        )  # fmt: skip
    print(checkpoint)
    return 0


class _Bar:
    """A progress bar with loss, speed and time left, and a line for every evaluation."""

    def __init__(self, name: str, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(name, total=steps, state="")

    def __enter__(self) -> None:
        self.progress.start()

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, progress: Progress) -> None:
        state = f"loss {progress.loss:.3f}  {progress.samples / max(progress.seconds, 1e-9):.0f} samples/s"
        self.progress.update(self.task, completed=progress.step, state=state)
        if progress.scores:
            skills = {name: score for name, score in progress.scores.items() if "/" not in name}
            line = "  ".join(f"{name} {100 * score:.0f} %" for name, score in skills.items())
            self.progress.console.print(f"step {progress.step}: exactly right  {line}", highlight=False)
