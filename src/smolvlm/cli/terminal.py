"""What the terminal shows while something takes time, and how a model is loaded for a command.

Signs of progress go to stderr, and only when somebody watches it: never into a pipe or a log.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..vlm import VLM


def is_watched(options: argparse.Namespace) -> bool:
    return sys.stderr.isatty() and not options.quiet


@contextmanager
def waiting(what: str, options: argparse.Namespace) -> Iterator[None]:
    """A spinner with words beside it, gone when the work is done."""
    if not is_watched(options):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def progress_bar(
    what: str, options: argparse.Namespace, *, unit: Literal["bytes", "samples"] = "bytes"
) -> Iterator[Callable[[int, int], None] | None]:
    """A function that takes (units done, units in all) and draws a bar with the time left, gone at the end.

    None when nobody watches.
    """
    if not is_watched(options):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )  # fmt: skip

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def load_model(options: argparse.Namespace, cache_bytes: int | None = None) -> VLM:
    """The model that the options name, with a progress bar for the download and one for reading it."""
    quieten(options)
    from .. import hub
    from ..vlm import load

    # The download shows bars of its own, which ours would overwrite; so it comes first and alone.
    hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    if options.adapter is not None:
        hub.resolve_adapter(options.adapter, local_files_only=options.offline)
    with progress_bar(f"Loading {options.model or hub.BUNDLED}", options) as progress:
        return load(
            options.model,
            device=options.device,
            dtype=options.dtype,
            revision=options.revision,
            local_files_only=True,
            progress=progress,
            runtime=options.runtime,
            adapter=options.adapter,
            cache_bytes=cache_bytes,
        )


def quieten(options: argparse.Namespace) -> None:
    """Switch off bars and warnings where nobody wants them. Call before huggingface_hub is imported."""
    if not is_watched(options):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if options.quiet:
        warnings.simplefilter("ignore")
