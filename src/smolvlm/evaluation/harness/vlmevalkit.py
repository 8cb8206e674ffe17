"""VLMEvalKit with our models: `python -m smolvlm.evaluation.harness.vlmevalkit --data MMStar --model smolvlm ...`.

Registers our class beside the harness's own and runs its run.py, which reads the data, scores and writes the results;
options that aren't ours are its. The class is vlmevalkit_model.py's, what a message becomes vlmevalkit_messages.py's.
Source: open-compass/VLMEvalKit e8e78f0: run.py, vlmeval/config.py, vlmeval/vlm/smolvlm.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingDependencyError, SmolVLMError
from ..published import protocol_of
from ..task import Protocol
from ..wrapper import WRAPPERS
from .docvqa import write_submission

MODEL = "smolvlm"
BUNDLED = "nano"
SUBMITTED = "DocVQA_TEST"
STATUS = "status.json"
PREDICTIONS = (".xlsx", ".tsv", ".json")  # as the harness's PRED_FORMAT has them


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (sys.argv when none is given). A mistake or a failed data set ends it with a message."""
    try:
        launch(sys.argv[1:] if arguments is None else arguments)
    except SmolVLMError as error:
        sys.exit(f"smolvlm: error: {' '.join(str(error).split())}")


def launch(words: Sequence[str]) -> None:
    """Raises MissingDependencyError without the harness, InputError for options, SmolVLMError for a failed run."""
    options, theirs = _parser().parse_known_args(words)
    names = register(options.model, _settings(options))
    script = _script()
    model = ["--model", *names] if names else []
    before = sys.argv
    sys.argv = [str(script), *model, "--work-dir", str(options.work_dir), *theirs]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before
    results = Path(os.environ.get("MMEVAL_ROOT", options.work_dir))  # as run.py has it
    for name in names:
        _finish(results / name)


def register(models: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Put our models into the harness's table. Returns the names that it calls all given models by.

    models: "smolvlm" is the bundled model and "smolvlm:NAME" a checkpoint, as a directory or a hub id; others are the
    harness's. settings: of vlmevalkit_model.SmolVLM.
    """
    config = _harness("vlmeval.config")
    from .vlmevalkit_model import SmolVLM

    config.supported_VLM[MODEL] = partial(SmolVLM, None, **settings)
    names = []
    for model in models:
        kind, colon, checkpoint = model.partition(":")
        if kind != MODEL or not colon:
            names.append(model)
            continue
        if not checkpoint:
            raise InputError(f"{model!r} names no checkpoint: write {MODEL}:DIRECTORY, {MODEL}:HUB-ID, or {MODEL}.")
        # Results are kept under this name. It is all that was given, since many folders are called checkpoint-100.
        names.append(f"{MODEL}-{re.sub(r'[^A-Za-z0-9._-]', '-', checkpoint.strip('/').replace('/', '--'))}")
        config.supported_VLM[names[-1]] = partial(SmolVLM, checkpoint, **settings)
    return names


def protocol_for(checkpoint: str | None, wrapper: str | None, frame_side: int | None, tokens: int | None) -> Protocol:
    """The published tables' protocol for a checkpoint, with what is chosen otherwise."""
    if wrapper is not None and wrapper not in (*WRAPPERS, "chat"):
        raise InputError(f"There is no wrapper {wrapper!r}. The wrappers are: {', '.join(WRAPPERS)} and chat.")
    protocol = replace(protocol_of(checkpoint or BUNDLED), max_new_tokens=tokens)
    if wrapper is not None:
        protocol = replace(protocol, wrapper=wrapper)  # type: ignore[arg-type]  # checked above
    return protocol if frame_side is None else replace(protocol, frame_side=frame_side)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smolvlm.evaluation.harness.vlmevalkit",
        description="Run VLMEvalKit with smolvlm's models. All options but these are those of its run.py.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", nargs="+", default=[], metavar="NAME",
        help=f"{MODEL}: the bundled model; {MODEL}:DIRECTORY or {MODEL}:HUB-ID: a checkpoint; others are VLMEvalKit's",
    )  # fmt: skip
    parser.add_argument("--work-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where results go")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, mps; default: the best that is here")
    parser.add_argument("--dtype", metavar="NAME", help="float32, bfloat16, ...; default: what is fast and safe")
    parser.add_argument("--runtime", default="auto", metavar="NAME", help="native, torch, onnx or auto (default)")
    parser.add_argument("--adapter", metavar="NAME", help="directory or hub id of an adapter of the model")
    parser.add_argument(
        "--prompts", dest="wrapper", choices=(*WRAPPERS, "chat"),
        help="smolvlm, smolvlm2: as VLMEvalKit's classes write them; chat: the model's own template; default: what the "
        "checkpoint's published scores were measured with",
    )  # fmt: skip
    parser.add_argument("--frame-side", type=int, metavar="N", help="pixels of a video frame's longest edge")
    parser.add_argument(
        "--answer-tokens", dest="max_new_tokens", type=int, metavar="N", help="most tokens of an answer; default: 2048"
    )
    return parser


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("device", "dtype", "runtime", "adapter", "wrapper", "frame_side", "max_new_tokens")
    return {name: getattr(options, name) for name in names}


def _harness(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"VLMEvalKit can't be imported ({error}). Get it: git clone https://github.com/open-compass/VLMEvalKit, "
            "then pip install -e VLMEvalKit."
        ) from error


def _script() -> Path:
    """The harness's run.py, which lies beside its package and not in it."""
    package = Path(_harness("vlmeval").__file__).parent
    script = package.parent / "run.py"
    if not script.is_file():
        raise MissingDependencyError(
            f"VLMEvalKit's run.py isn't beside its package in {package.parent}: install a clone of it with pip install "
            "-e, not a wheel."
        )
    return script


def _finish(folder: Path) -> None:
    """Write a submission where there is one to write. Raises SmolVLMError for a data set that the harness gave up.

    It logs such failures, goes on, and ends as if all were well.
    """
    runs = sorted(folder.glob(f"*/{STATUS}"), key=lambda file: file.stat().st_mtime)
    found: dict[str, dict[str, Any]] = json.loads(runs[-1].read_text(encoding="utf-8"))["datasets"] if runs else {}
    if failed := [name for name, dataset in found.items() if not {"metrics", "skip_reason"} & dataset.keys()]:
        raise SmolVLMError(f"VLMEvalKit gave up {', '.join(failed)}: its log above tells why.")
    if SUBMITTED in found and os.environ.get("RANK", "0") == "0":
        predictions = [file for ending in PREDICTIONS for file in runs[-1].parent.glob(f"*_{SUBMITTED}{ending}")]
        for file in predictions:
            write_submission(file, file.with_name(f"{file.stem}_submission.json"))


if __name__ == "__main__":
    main()
