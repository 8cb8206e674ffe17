"""Write a checkpoint with the text model's weights in 8 or 4 bits: a smaller file that the native runtime loads sooner.

examples:
  smolvlm quantize HuggingFaceTB/SmolVLM2-500M-Video-Instruct -o smolvlm-500m-int8
  smolvlm quantize nano -o nano-int4 --mode int4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Parser
from .terminal import progress_bar, quieten


def add_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a checkpoint directory, a hub id, or nano")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the new checkpoint")
    parser.add_argument("--mode", choices=("int8", "int4"), default="int8", help="int8 (default) or int4")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="use what is in the cache, touch no network")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    quieten(options)
    from .. import hub
    from ..checkpoint import read_index
    from ..runtimes.quantise import quantise

    source = hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    with progress_bar(f"Writing {options.output}", options) as progress:
        quantise(source, options.output, options.mode, progress=progress)
    before, after = (sum(entry.num_bytes for entry in read_index(one).values()) for one in (source, options.output))
    print(f"{options.output}: {after / 1e6:,.1f} MB of weights, {before / 1e6:,.1f} MB before.")
    return 0
