"""What command lines are made of: the parser, and the options that several commands share. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

if TYPE_CHECKING:
    from ..vlm.requests import AskOptions, LookOptions


DATA_VARIABLE, DATA = "LMUData", "~/LMUData"


class UsageError(Exception):
    """Something was typed that can't be used."""


class Parser(argparse.ArgumentParser):
    """argparse, whose errors become one line of ours, and whose options can't be abbreviated."""

    def __init__(self, *, prog: str, description: str | None, usage: str | None = None, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def add_model_options(parser: Parser) -> None:
    """--model, where it comes from, where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="directory or hub id, e.g. HuggingFaceTB/SmolVLM2-500M-Video-Instruct for photographs; "
        "default: the bundled nano, which knows drawn material only",
    )
    group.add_argument("--adapter", metavar="NAME", help="directory or hub id of a LoRA or DoRA adapter of this model")
    add_hub_options(group)
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, mps; default: the best that is here")
    group.add_argument(
        "--dtype",
        metavar="NAME",
        help="float32, bfloat16, float16; native and onnx: int8, int4, too; default: what is fast and safe",
    )
    group.add_argument(
        "--runtime",
        choices=("auto", "native", "torch", "onnx"),
        default="auto",
        help="native: the CPU kernels; torch: any device; onnx: ONNX Runtime; auto (default): native where it can run "
        "the model, onnx for an export",
    )


def add_hub_options(group: argparse._ActionsContainer) -> None:
    """Where a model comes from, and --quiet."""
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of the model on the hub")
    group.add_argument("--offline", action="store_true", help="use what is in the cache, touch no network")
    group.add_argument("--quiet", action="store_true", help="no progress, no warnings")


def add_media_options(parser: Parser) -> argparse._ArgumentGroup:
    """How closely pictures and videos are looked at. Returns their group."""
    group = parser.add_argument_group("pictures and videos")
    group.add_argument(
        "--detail",
        choices=("low", "auto", "high"),
        default="auto",
        help="low: one tile a picture; auto: as many tiles as it has pixels for; high: as the released models do",
    )
    group.add_argument("--max-image-tokens", metavar="N", type=whole_number, help="most tokens one picture may take")
    group.add_argument("--fps", metavar="N", type=number, help="frames a second to look at in a video")
    group.add_argument("--max-frames", metavar="N", type=whole_number, help="most frames of a video")
    group.add_argument("--allow-url", action="store_true", help="fetch http(s) addresses, public hosts only")
    return group


def look_options(options: argparse.Namespace) -> LookOptions:
    """The keyword arguments that the options of add_media_options stand for."""
    return {
        "detail": options.detail,
        "max_image_tokens": options.max_image_tokens,
        "fps": options.fps,
        "max_frames": options.max_frames,
        "allow_url": options.allow_url,
    }


def add_answer_options(parser: Parser) -> None:
    """How the answer is chosen."""
    group = parser.add_argument_group("answer")
    group.add_argument("--system", metavar="TEXT", help="instructions ahead of the conversation")
    group.add_argument("--max-new-tokens", metavar="N", type=whole_number, default=256, help="default: %(default)s")
    group.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0 (default): always the likeliest")
    group.add_argument("--top-p", metavar="P", type=float, default=1.0, help="default: 1, off")
    group.add_argument("--seed", metavar="N", type=int, help="makes answers at a temperature repeatable")
    group.add_argument("--stop", metavar="TEXT", action="append", default=[], help="end the answer here; may repeat")


def add_rule_options(parser: Parser) -> None:
    """What the answer must be."""
    group = parser.add_argument_group("what the answer must be, one of")
    group.add_argument("--schema", metavar="FILE", type=Path, help="JSON that fits the JSON Schema in this file")
    group.add_argument("--regex", metavar="TEXT", help="a text that matches this regular expression")
    group.add_argument("--choice", metavar="TEXT", action="append", help="this text, or another --choice")


def rule_options(options: argparse.Namespace) -> AskOptions:
    """The keyword arguments that the options of add_rule_options stand for, none when none is given."""
    try:
        schema = None if options.schema is None else options.schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--schema {options.schema} can't be read: {error}") from error
    given = {"schema": schema, "regex": options.regex, "choices": options.choice}
    return cast("AskOptions", {name: value for name, value in given.items() if value is not None})


def data_directory(given: Path | None) -> Path:
    """Where data sets of benchmarks are: VLMEvalKit's place, when none is given, so that its files are found."""
    return given or Path(os.environ.get(DATA_VARIABLE) or DATA).expanduser()


def task_names(text: str) -> list[str]:
    """Names of tasks with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise argparse.ArgumentTypeError(f"{doubled[0]} is named twice")
    return names


def whole_number(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: it must be at least 1")
    return value


def whole_limit(text: str) -> int:
    """A whole number; 0 is no limit."""
    return 0 if text == "0" else whole_number(text)


def limit(text: str) -> float:
    """A number; 0 is no limit."""
    return 0.0 if text == "0" else number(text)


def number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} can't be used: it must be above 0")
    return value
