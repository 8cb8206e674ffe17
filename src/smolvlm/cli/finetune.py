"""Teach a model with your own pictures, videos and answers.

examples:
  smolvlm finetune --data notes.jsonl --output runs/notes
  smolvlm finetune --data photos/ --method lora --model HuggingFaceTB/SmolVLM2-256M-Video-Instruct --output runs/photos
  smolvlm ask 1.jpg "What is it?" --adapter runs/photos/checkpoint --model HuggingFaceTB/SmolVLM2-256M-Video-Instruct

A line of notes.jsonl is a conversation; files are named from the folder that it is in:
{"messages": [{"role": "user", "content": [{"type": "image", "path": "a.jpg"}, {"type": "text", "text": "Who is it?"}]},
              {"role": "assistant", "content": [{"type": "text", "text": "It is Mia."}]}]}
The recipe is chosen from the data and this machine, shown, and kept as recipe.toml in the output, for `smolvlm train`.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import Parser, whole_number
from .terminal import is_watched
from .train import add_run_options, run_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..training.data import DataSet

RECIPE = "recipe.toml"
LOOKED_AT = 16  # samples of each data set, to see what they show


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm finetune --data PATH ... --output DIR [options] [key=value ...]"
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="of the recipe, instead of what is chosen")
    parser.add_argument(
        "--data", metavar="PATH", nargs="+", required=True,
        help="json, jsonl, parquet, tar or txt file, folder, pattern, or hub:owner/name; `smolvlm data` looks at it",
    )  # fmt: skip
    parser.add_argument("--validation", metavar="PATH", nargs="+", default=[], help="samples that are not learned")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="where the run lives")
    parser.add_argument("--model", metavar="NAME", default="nano", help="directory or hub id; default: nano")
    parser.add_argument(
        "--method", choices=("full", "lora", "qlora"),
        help="all weights; an adapter; an adapter on weights of 4 bits. Default: what fits in memory",
    )  # fmt: skip
    parser.add_argument(
        "--steps", metavar="N", type=whole_number, help="updates; default: a few times through the data"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the recipe and its memory, and stop")
    add_run_options(parser)


def run(options: argparse.Namespace) -> int:
    from ..training.recipe import build_recipe, read_recipe

    file = options.output / RECIPE
    if not file.exists() or options.dry_run:
        text = _choose(options)
        build_recipe(tomllib.loads(text), file)  # refused before anything is written
    else:
        text = file.read_text(encoding="utf-8")  # a run that goes on
    if is_watched(options) or options.dry_run:
        _show(text, options)
    if options.dry_run:
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    run_recipe(read_recipe(file), options)
    return 0


def _choose(options: argparse.Namespace) -> str:
    from .. import hub
    from ..config import SmolVLMConfig
    from ..runtimes.machine import available_memory
    from ..training.choose import as_toml, choose_method, finetuning
    from ..training.data import DataSet, Source
    from ..training.recipe import change
    from ..vlm.memory import stored_tensors

    paths = [_absolute(path) for path in options.data]
    sets = [DataSet(Source(path)) for path in paths]
    directory = hub.resolve(options.model)
    config = SmolVLMConfig.from_file(directory / "config.json")
    parameters = sum(math.prod(entry.shape) for entry in stored_tensors(directory, config).values())
    method = options.method or choose_method(parameters, available_memory())
    values: dict[str, Any] = finetuning(
        paths, sum(map(len, sets)), options.model, parameters, method, steps=options.steps, videos=_show_videos(sets),
        validation=[_absolute(path) for path in options.validation], device=options.device,
    )  # fmt: skip
    for one in options.changes:
        change(values, one)
    return as_toml(values)


def _show_videos(sets: Sequence[DataSet]) -> bool:
    """Whether most of some first samples do; those that can't be used say nothing."""
    found = []
    for one in sets:
        for index in range(min(LOOKED_AT, len(one))):
            with suppress(InputError):
                found.append(any(block["type"] == "video" for block in one.sample(index).media))
    return 2 * sum(found) > len(found)


def _show(text: str, options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.syntax import Syntax

    from ..training.plan import plan
    from ..training.recipe import build_recipe

    console = Console(stderr=not options.dry_run)
    console.print(Syntax(text, "toml", background_color="default"))
    needed = plan(build_recipe(tomllib.loads(text), options.output / RECIPE), options.device)
    console.print(
        f"{needed.trained:,} of {needed.parameters:,} parameters are trained, in about {needed.total / 1e9:.2f} GB",
        highlight=False,
    )


def _absolute(path: str) -> str:
    """The recipe lives in the output's folder and says where data are, wherever it is called from."""
    return path if path.startswith(("hub:", "scenes:")) else str(Path(path).expanduser().absolute())
