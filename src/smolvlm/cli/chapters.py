"""Cut a video into chapters with titles, at cuts: shots that look alike stay together.

examples:
  smolvlm chapters lecture.mp4                             a list for the description of a video on YouTube
  smolvlm chapters lecture.mp4 --format webvtt -o lecture.vtt
  smolvlm chapters film.mp4 --format json --shortest 60
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Parser, add_model_options, number
from .inputs import check_output
from .looking import add_look_options, check_videos, look_at
from .terminal import load_model, progress_bar

if TYPE_CHECKING:
    from ..highlights import Segment


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm chapters VIDEO [options]"
    parser.add_argument("video", metavar="VIDEO", help="a video file or address, or a folder of pictures")
    parser.add_argument("--format", choices=("youtube", "webvtt", "json"), default="youtube", help="default: youtube")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="instead of standard output")
    parser.add_argument(
        "--shortest", metavar="S", type=number, help="of a chapter; default: 10, or a twentieth of the video"
    )
    parser.add_argument("--question", metavar="TEXT", help="whose answer is the title; default: what happens")
    add_look_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    check_videos([options.video], options)
    if options.output is not None:
        check_output(options.output)
    vlm = load_model(options)
    from ..highlights import find_chapters
    from ..highlights.describe import WHAT_HAPPENS
    from ..highlights.writing import write_text

    index = look_at(vlm, options.video, options)
    with progress_bar("Giving titles", options, unit="samples") as progress:
        chapters = find_chapters(
            vlm, index, shortest_s=options.shortest, question=options.question or WHAT_HAPPENS,
            max_image_tokens=options.max_image_tokens, on_progress=progress,
        )  # fmt: skip
    text = as_text(options.video, chapters, options.format)
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
    return 0


def as_text(video: str, chapters: Sequence[Segment], form: str) -> str:
    from ..highlights import webvtt, youtube_chapters

    if form == "json":
        listed = [{"start_s": one.start_s, "end_s": one.end_s, "title": one.title} for one in chapters]
        return json.dumps({"video": video, "chapters": listed}, ensure_ascii=False) + "\n"
    return webvtt(chapters) if form == "webvtt" else youtube_chapters(chapters)
