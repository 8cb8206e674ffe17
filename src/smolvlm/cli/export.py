"""Write a checkpoint as ONNX graphs that transformers.js loads, and prove that they compute the same.

examples:
  smolvlm export onnx HuggingFaceTB/SmolVLM2-500M-Video-Instruct -o smolvlm-500m --dtype q4 --dtype fp16
  smolvlm export verify smolvlm-500m
  smolvlm export verify nano --runtime native --dtype int8
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .arguments import Parser, UsageError, add_hub_options
from .terminal import progress_bar, quieten, waiting

if TYPE_CHECKING:
    from ..export import Report


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm export onnx MODEL -o DIR [options]\n       smolvlm export verify DIR [options]"
    parser.add_argument("what", choices=("onnx", "verify"), help="onnx: write an export; verify: compare it")
    parser.add_argument(
        "model", metavar="MODEL", help="a checkpoint directory, a hub id, or nano; verify: an export, too"
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="onnx: the new directory")
    parser.add_argument(
        "--dtype",
        metavar="NAME",
        action="append",
        default=[],
        help="onnx: fp32 (default), fp16, q8, q4, q4f16; may repeat. verify: of the runtime; default: all there are",
    )
    parser.add_argument("--model", metavar="NAME", dest="original", help="verify: the checkpoint to compare with")
    parser.add_argument(
        "--runtime",
        choices=("graphs", "onnx", "native", "torch"),
        help="verify: what is compared. graphs (default for exports): the graphs as transformers.js feeds them",
    )
    parser.add_argument("--json", action="store_true", help="verify: a JSON list instead of tables")
    add_hub_options(parser)


def run(options: argparse.Namespace) -> int:
    quieten(options)
    return _write(options) if options.what == "onnx" else _verify(options)


def _write(options: argparse.Namespace) -> int:
    from .. import hub
    from ..export import export_onnx

    if options.output is None:
        raise UsageError("`smolvlm export onnx` needs -o DIR, the new directory")
    source = hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    name = None if Path(options.model).expanduser().is_dir() else options.model  # paths are nobody else's business
    with progress_bar(f"Writing {options.output}", options) as progress:
        export_onnx(source, options.output, options.dtype or ["fp32"], name=name, progress=progress)
    for file in sorted((options.output / "onnx").iterdir()):
        print(f"{file.stat().st_size / 1e6:10,.1f} MB  {file.relative_to(options.output)}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from .. import hub
    from ..export import verify

    if len(options.dtype) > 1:
        raise UsageError("`smolvlm export verify` takes one --dtype, or none for all that are there")
    directory = hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    original = hub.resolve(_original(options, directory), local_files_only=options.offline)
    with waiting("Comparing ...", options):
        reports = verify(directory, original, runtime=options.runtime, dtype=next(iter(options.dtype), None))
    if options.json:
        print(json.dumps([_as_json(report) for report in reports], ensure_ascii=False))
    else:
        for report in reports:
            _show(report)
    if not all(report.passed for report in reports):
        print("smolvlm: the results differ by more than the stated bounds", file=sys.stderr)
        return 1
    return 0


def _original(options: argparse.Namespace, directory: Path) -> str:
    """The checkpoint to compare with: named, or noted in the export; a checkpoint is its own."""
    from ..checkpoint import read_json
    from ..export.layout import ORIGINAL
    from ..runtimes.onnx import is_export

    if options.original is not None:
        return str(options.original)
    if not is_export(directory):
        return str(directory)
    noted = read_json(directory / "config.json").get(ORIGINAL)
    if not isinstance(noted, str):
        raise InputError(f"{directory} doesn't say what it was exported from: name the checkpoint with --model.")
    return noted


def _as_json(report: Report) -> dict[str, object]:
    stages = [
        {
            "stage": stage.name,
            "max_error": stage.max_error,
            "mean_error": stage.mean_error,
            "largest": stage.largest,
            "bound": stage.bound,
            "passed": stage.passed,
        }
        for stage in report.stages
    ]
    texts = [asdict(text) for text in report.texts]
    whole = {"runtime": report.runtime, "dtype": report.dtype, "passed": report.passed, "stages": stages}
    return {**whole, "agreed": report.agreed, "positions": report.positions, "texts": texts}


def _show(report: Report) -> None:
    print(f"{report.runtime} {report.dtype}, compared with the PyTorch model in float32\n")
    print(f"{'stage':<22}{'largest value':>14}{'max error':>12}{'mean error':>12}{'bound':>12}")
    for stage in report.stages:
        numbers = (stage.max_error, stage.mean_error, stage.bound)
        print(
            f"{stage.name:<22}{stage.largest:>14.3f}" + "".join(f"{number:>12.2g}" for number in numbers),
            "ok" if stage.passed else "TOO FAR",
        )
    print(f"\nThe same likeliest token at {report.agreed} of {report.positions} places.")
    same = [text for text in report.texts if text.differs_at is None]
    print(f"The same answer to {len(same)} of {len(report.texts)} questions about drawn pictures.")
    for text in report.texts:
        if text.differs_at is not None:
            print(f"  {text.question}\n    PyTorch: {text.expected!r}\n    here:    {text.found!r}")
            print(f"    They part at token {text.differs_at + 1}, where two tokens are {text.gap:.2g} apart.")
    print("passed\n" if report.passed else "FAILED\n")
