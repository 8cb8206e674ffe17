"""Show how many tiles and tokens pictures and videos take, and what is left of the context. Nothing is run.

examples:
  smolvlm tokens photo.jpg clip.mp4 --detail high --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct
  smolvlm tokens photo.jpg --memory --dtype int8
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from .arguments import Parser, add_media_options, add_model_options, look_options, whole_number
from .inputs import as_blocks, check_file
from .terminal import quieten

if TYPE_CHECKING:
    from ..types import MediaTokens, MemoryReport, TokenReport
    from ..vlm.requests import MediaOptions


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm tokens FILE ... [options]"
    parser.add_argument("files", nargs="+", metavar="FILE", help='pictures and videos, "-" for stdin')
    parser.add_argument("-q", "--question", metavar="TEXT", default="", help="the question, counted too")
    parser.add_argument("--system", metavar="TEXT", help="instructions ahead of it, counted too")
    parser.add_argument("--memory", action="store_true", help="also the memory that an answer on the CPU will take")
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=whole_number, default=256, help="of that answer; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_media_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    for file in options.files:
        check_file(file, folder=True)
    quieten(options)
    from ..vlm import preview, preview_memory

    content = [*as_blocks(options.files, allow_url=options.allow_url), {"type": "text", "text": options.question}]
    request: MediaOptions = {
        **look_options(options),
        "messages": [{"role": "user", "content": content}],
        "system": options.system,
    }
    memory = None
    if options.memory:
        memory = preview_memory(
            options.model, runtime=options.runtime, device=options.device, dtype=options.dtype,
            max_new_tokens=options.max_new_tokens, revision=options.revision, local_files_only=options.offline,
            **request,
        )  # fmt: skip
        report = memory.request
    else:
        report = preview(options.model, revision=options.revision, local_files_only=options.offline, **request)
    if options.json:
        print(json.dumps(as_json(report, memory), ensure_ascii=False))
    else:
        print_table(report)
        if memory is not None:
            print_memory(memory)
    return 0 if report.left > 0 and (memory is None or memory.fits) else 2


def as_json(report: TokenReport, memory: MemoryReport | None) -> dict[str, object]:
    """The fields of the reports; those of memory, in bytes, under "memory"."""
    if memory is None:
        return asdict(report)
    parts = {name: value for name, value in asdict(memory).items() if name != "request"}
    return {**asdict(report), "memory": {**parts, "fits": memory.fits}}


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


def print_memory(memory: MemoryReport) -> None:
    """One line a part, then the most at one time."""
    parts = (
        ("program and libraries", memory.program),
        (f"weights, {memory.dtype}", memory.weights),
        ("pixels, until seen", memory.pictures),
        ("work on tiles", memory.vision),
        ("work on the prompt", memory.reading),
        ("keys and values", memory.tokens),
        ("features, with cache", memory.features),
        ("most at one time", memory.peak),
    )
    print(f"\n{'memory':<22}{'MB':>7}")
    for name, size in parts:
        print(f"{name:<22}{size / 1e6:>7,.0f}")
    free = f"{memory.available / 1e6:,.0f} MB are free"
    if memory.fits:
        print(f"\nIt fits: {free}. Runtime: {memory.runtime}.")
    else:
        print(f"\nIt doesn't fit: {free}. Use a smaller --dtype or --model, --detail low, or fewer files.")


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
