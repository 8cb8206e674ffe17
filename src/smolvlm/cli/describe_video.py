"""Write down what happens in a video, with times: a line for every stretch, as soon as it is known.

examples:
  smolvlm describe-video film.mp4
  smolvlm describe-video film.mp4 --json > log.jsonl
  smolvlm describe-video game.mp4 --question "Who has the ball?" --longest 5
"""

from __future__ import annotations

import argparse
import json

from .arguments import Parser, add_model_options, number
from .looking import add_look_options, check_videos, look_at
from .terminal import load_model


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm describe-video VIDEO [options]"
    parser.add_argument("video", metavar="VIDEO", help="a video file or address, or a folder of pictures")
    parser.add_argument("--question", metavar="TEXT", help="asked of each stretch; default: what happens")
    parser.add_argument("--system", metavar="TEXT", help="instructions ahead of each question")
    parser.add_argument("--longest", metavar="S", type=number, default=16.0, help="of a stretch; default: %(default)g")
    parser.add_argument("--carry", action="store_true", help="show the model its line for the stretch before, too")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    add_look_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    check_videos([options.video], options)
    vlm = load_model(options)
    from ..highlights import describe, short_clock
    from ..highlights.describe import WHAT_HAPPENS

    index = look_at(vlm, options.video, options)
    lines = describe(
        vlm, index, question=options.question or WHAT_HAPPENS, system=options.system, carry=options.carry,
        longest_s=options.longest, max_image_tokens=options.max_image_tokens,
    )  # fmt: skip
    for line in lines:
        if options.json:
            found = {"start_s": line.start_s, "end_s": line.end_s, "text": line.title}
            print(json.dumps(found, ensure_ascii=False), flush=True)
        else:
            print(f"{short_clock(line.start_s):>7} - {short_clock(line.end_s):<7}  {line.title}", flush=True)
    return 0
