"""Find when something happens in videos: time ranges, the likeliest first. Each video is looked at once and kept.

examples:
  smolvlm search match.mp4 "when does the goalkeeper catch the ball?"
  smolvlm search holiday/*.mp4 "a dog on a beach" --top 10
  smolvlm search clip.mp4 "Is there a red circle in the video?" --json
"""

from __future__ import annotations

import argparse
import json

from .arguments import Parser, UsageError, add_model_options, whole_number
from .inputs import is_file
from .looking import add_look_options, check_videos, look_at, warn_of_doubt
from .terminal import load_model, progress_bar


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm search VIDEO ... QUESTION [options]"
    parser.add_argument(
        "words",
        nargs="+",
        metavar="VIDEO ... QUESTION",
        help="videos or folders of pictures; what is looked for is the last",
    )
    parser.add_argument("--top", metavar="N", type=whole_number, default=5, help="most places; default: %(default)s")
    parser.add_argument(
        "--question", metavar="TEXT", help="asked of each window, with {criteria} for what is looked for"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a place instead of a table")
    add_look_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    *videos, wanted = options.words
    if not videos or is_file(wanted):
        raise UsageError('name videos and, last, what is looked for: smolvlm search film.mp4 "a dog on a beach"')
    check_videos(videos, options)
    vlm = load_model(options)
    from ..highlights import search, short_clock

    indices = [look_at(vlm, video, options) for video in videos]
    with progress_bar("Searching", options, unit="samples") as progress:
        hits = search(
            vlm, indices, wanted, template=options.question, top=options.top,
            max_image_tokens=options.max_image_tokens, on_progress=progress,
        )  # fmt: skip
    for hit in hits:
        part, video = hit.segment, videos[hit.number]
        if options.json:
            found = {"video": video, "start_s": part.start_s, "end_s": part.end_s, "score": round(part.score, 6)}
            print(json.dumps(found, ensure_ascii=False))
        else:
            print(f"{part.score:.2f}  {short_clock(part.start_s):>7} - {short_clock(part.end_s):<7}  {video}")
    warn_of_doubt(max(hit.label_mass for hit in hits), options)
    return 0
