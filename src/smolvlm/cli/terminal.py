"""What the terminal shows while something takes time, and how a model is loaded for a command.

Signs of progress go to stderr, and only when somebody watches it: never into a pipe or a log.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..vlm import VLM


def is_watched(options: argparse.Namespace) -> bool:
    return sys.stderr.isatty() and not options.quiet


@contextmanager
def waiting(what: str, options: argparse.Namespace) -> Iterator[None]:
    """A spinner with a word beside it, gone when the work is done."""
    if not is_watched(options):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def load_model(options: argparse.Namespace) -> VLM:
    """The model that the options name, with a progress bar for a download and a spinner for the rest."""
    quieten(options)
    from .. import hub
    from ..vlm import load

    # The download shows bars of its own, which a spinner would overwrite; so it comes first and alone.
    directory = hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    name = options.model or hub.BUNDLED
    with waiting(f"Loading {name} ...", options):
        return load(directory, device=options.device, dtype=options.dtype)


def quieten(options: argparse.Namespace) -> None:
    """Switch off bars and warnings where nobody wants them. Call before huggingface_hub is imported."""
    if not is_watched(options):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if options.quiet:
        warnings.simplefilter("ignore")
