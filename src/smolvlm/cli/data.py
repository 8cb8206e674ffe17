"""Look at training data before training: what it holds, what would be learned from it, what can't be used and why.

examples:
  smolvlm data inspect notes.jsonl the_cauldron/ai2d --limit 1000
  smolvlm data preview notes.jsonl -o page.html
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Parser, UsageError, add_hub_options, add_media_options, look_options, whole_number
from .terminal import progress_bar, quieten

if TYPE_CHECKING:
    from ..training.data import DataSet, Encoder
    from ..training.data.inspect import Report, Spread

SAMPLES = {"inspect": 500, "preview": 24}  # looked at when no number is given
BAR = 40  # characters


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm data inspect PATH ... [options]\n       smolvlm data preview PATH -o page.html [options]"
    parser.add_argument("what", choices=("inspect", "preview"), help="inspect: numbers; preview: a page to look at")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="json, jsonl, parquet, tar (WebDataset) or txt file, a folder, a pattern, or hub:owner/name[/config]",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="preview: the page; required")
    parser.add_argument(
        "--format", metavar="NAME", default="", help="of the rows; told by their columns when not given"
    )
    parser.add_argument(
        "--media-root", metavar="DIR", default="", help="folder that pictures and videos are named from"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, help="samples to look at, evenly spread; 0 is all (default: 500, preview: 24)"
    )
    parser.add_argument("--max-tokens", metavar="N", type=whole_number, help="most tokens of a sample")
    parser.add_argument("--json", action="store_true", help="inspect: a JSON list instead of tables")
    add_media_options(parser)
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", help="whose tokens and tiles: directory or hub id; default: nano")
    add_hub_options(group)


def run(options: argparse.Namespace) -> int:
    if options.what == "preview" and options.output is None:
        raise UsageError("`smolvlm data preview` needs -o FILE, the page to write")
    if options.limit is not None and options.limit < 0:
        raise UsageError(f"--limit {options.limit} can't be used: 0 is all samples, else give how many")
    quieten(options)
    from ..training.data import DataSet, Source

    sets = [DataSet(Source(path, options.format, 1.0, options.media_root)) for path in options.paths]
    return (_inspect if options.what == "inspect" else _preview)(options, sets, _encoder(options))


def _encoder(options: argparse.Namespace) -> Encoder:
    from ..processing.processor import SmolVLMProcessor
    from ..processing.request import Look
    from ..training.data import Encoder

    processor = SmolVLMProcessor.from_pretrained(
        options.model, revision=options.revision, local_files_only=options.offline
    )
    return Encoder(processor, max_tokens=options.max_tokens, look=Look(**look_options(options)))


def _limit(options: argparse.Namespace) -> int | None:
    """None is all samples."""
    return SAMPLES[options.what] if options.limit is None else options.limit or None


# ---- inspect --------------------------------------------------------------------------------------------------------


def _inspect(options: argparse.Namespace, sets: list[DataSet], encoder: Encoder) -> int:
    from ..training.data.inspect import inspect

    reports = []
    for one in sets:
        with progress_bar(f"Reading {one.source.path}", options, unit="samples") as progress:
            reports.append(inspect(one, encoder, _limit(options), progress))
    if options.json:
        print(json.dumps([_as_json(report) for report in reports], ensure_ascii=False))
        return 0
    for number, report in enumerate(reports):
        print("\n" * (number > 0) + _describe(report))
    return 0


def _as_json(report: Report) -> dict[str, object]:
    skipped = [{**asdict(one.place), "kind": one.kind, "reason": one.reason} for one in report.skipped]
    bins = [{"tokens": bound, "samples": count} for bound, count in report.histogram]
    return {**asdict(report), "histogram": bins, "skipped": skipped}


def _describe(report: Report) -> str:
    """What a report says, for people."""
    lines = [
        report.path,
        f"  {report.rows:,} rows in {_plural(report.files, 'file')}"
        + (f"; {report.looked_at:,} looked at, evenly spread" if report.looked_at < report.rows else ""),
        f"  format {', '.join(f'{name} ({count:,})' for name, count in report.formats.items()) or 'unknown'}; "
        f"{_plural(report.pictures, 'picture')}, {_plural(report.videos, 'video')}",
    ]
    if report.left_out:
        shown = ", ".join(report.left_out[:3]) + (" ..." if len(report.left_out) > 3 else "")
        lines.append(f"  left out, for they are kept for tests: {shown}")
    if report.histogram:
        lines += ["", *_table(report), "", *_histogram(report)]
    return "\n".join([*lines, "", *_skips(report)])


def _table(report: Report) -> list[str]:
    rows: list[tuple[str, Spread]] = [("tokens", report.tokens), ("learned", report.learned), ("tiles", report.tiles)]
    lines = [
        f"  {'of a sample':<12}" + "".join(f"{name:>10}" for name in ("least", "median", "95 %", "most", "in all"))
    ]
    for name, spread in rows:
        numbers = (spread.least, spread.median, spread.p95, spread.most, spread.total)
        lines.append(f"  {name:<12}" + "".join(f"{number:>10,}" for number in numbers))
    return lines


def _histogram(report: Report) -> list[str]:
    most = max(count for _, count in report.histogram)
    lines = ["  tokens    samples"]
    for bound, count in report.histogram:
        bar = "█" * max(round(BAR * count / most), count > 0)
        lines.append(f"  ≤ {bound:<6,}{count:>9,}  {bar}".rstrip())
    return lines


def _skips(report: Report) -> list[str]:
    from ..training.data.mixture import LISTED

    shrunk = [f"  {_plural(report.shrunk, 'sample')} would get fewer tiles, to fit"] if report.shrunk else []
    if not report.skipped:
        return [*shrunk, "  every sample can be used" if report.looked_at == report.rows else "  none would be skipped"]
    share = len(report.skipped) / report.looked_at
    lines = [*shrunk, f"  {_plural(len(report.skipped), 'sample')} would be skipped ({share:.1%})"]
    lines += [f"    {one}" for one in report.skipped[:LISTED]]
    rest = len(report.skipped) - LISTED
    return [*lines, *([f"    and {rest:,} more; --json lists all"] if rest > 0 else [])]


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


# ---- preview --------------------------------------------------------------------------------------------------------


def _preview(options: argparse.Namespace, sets: list[DataSet], encoder: Encoder) -> int:
    from ..training.data.inspect import look, spread_out
    from ..training.data.page import write_page

    if len(sets) > 1:
        raise UsageError("`smolvlm data preview` takes one PATH: make a page for each")
    (data_set,) = sets
    chosen = spread_out(len(data_set), _limit(options))
    samples = (one for _, one in look(data_set, encoder, chosen))
    facts = f"{len(chosen):,} of {len(data_set):,} samples, at most {encoder.max_tokens:,} tokens each"
    page = write_page(options.paths[0], facts, samples, encoder.parts)
    options.output.write_text(page, encoding="utf-8", errors="replace")
    print(options.output)
    return 0
