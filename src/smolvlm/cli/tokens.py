"""Show how many tiles and tokens pictures and videos take, and what is left of the context. Nothing is run.

example:
  smolvlm tokens photo.jpg clip.mp4 --detail high --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from .arguments import Parser, add_media_options, add_model_options, look_options
from .inputs import as_blocks, check_file
from .terminal import quieten

if TYPE_CHECKING:
    from ..types import MediaTokens, TokenReport


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm tokens FILE ... [options]"
    parser.add_argument("files", nargs="+", metavar="FILE", help='pictures and videos, "-" for stdin')
    parser.add_argument("-q", "--question", metavar="TEXT", default="", help="the question, counted too")
    parser.add_argument("--system", metavar="TEXT", help="instructions ahead of it, counted too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_media_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    for file in options.files:
        check_file(file)
    quieten(options)
    from ..vlm import preview

    content = [*as_blocks(options.files, allow_url=options.allow_url), {"type": "text", "text": options.question}]
    report = preview(
        options.model,
        messages=[{"role": "user", "content": content}],
        system=options.system,
        revision=options.revision,
        local_files_only=options.offline,
        **look_options(options),
    )
    if options.json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        print_table(report)
    return 0 if report.left > 0 else 2


def print_table(report: TokenReport) -> None:
    """One line a picture or video, then the sums."""
    header = ("file", "kind", "pixels", "grid", "tiles", "tokens")
    lines = [header, *(_line(media) for media in report.media)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(_aligned(line, widths)).rstrip())
    print(
        f"\n{report.total} tokens: {report.image} of {report.tiles} tiles and {report.text} of text. "
        + _what_is_left(report)
    )


def _line(media: MediaTokens) -> tuple[str, ...]:
    grid = f"{media.rows} x {media.cols} + 1" if media.rows else "1"
    if media.kind == "video":
        grid = f"{len(media.timestamps_s)} frames"
    size = f"{media.width} x {media.height}"
    return media.source, media.kind, size, grid, str(media.tiles), str(media.tokens)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Text to the left, numbers to the right."""
    cells = [cell.ljust(width) for cell, width in zip(line[:-2], widths[:-2], strict=True)]
    return cells + [cell.rjust(width) for cell, width in zip(line[-2:], widths[-2:], strict=True)]


def _what_is_left(report: TokenReport) -> str:
    if report.left > 0:
        return f"{report.left} of {report.context} are left for the answer."
    return f"That is too much for a context of {report.context}: use fewer files, --detail low or --max-frames."
