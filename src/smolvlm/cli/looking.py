"""What the commands on long videos share: their options, looking at a video once with a progress bar, a warning."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Parser, number, whole_number
from .inputs import check_file, check_frame_fps
from .terminal import progress_bar

if TYPE_CHECKING:
    from ..highlights import Index
    from ..vlm import VLM


def add_look_options(parser: Parser) -> None:
    """How a long video is looked at, and where what was seen is kept."""
    group = parser.add_argument_group("looking")
    group.add_argument("--fps", metavar="N", type=number, help="frames a second to look at; default: the model's")
    group.add_argument("--max-frames", metavar="N", type=whole_number, help="most frames of the whole video")
    group.add_argument(
        "--max-image-tokens", metavar="N", type=whole_number, help="most image tokens that one question may take"
    )
    group.add_argument("--allow-url", action="store_true", help="fetch http(s) addresses, public hosts only")
    add_frame_option(group)
    add_cache_options(group)


def add_frame_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--frame-fps",
        metavar="N",
        type=number,
        help="of a folder of pictures: how many a second were taken; default: its timestamps.txt, else 1",
    )


def add_cache_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="where what was seen of long videos is kept, for the next question and after an interruption; default: "
        "$SMOLVLM_CACHE or ~/.cache/smolvlm",
    )
    group.add_argument(
        "--cache-gb",
        metavar="N",
        type=float,
        help="most gigabytes that are kept there, the longest unused go first; default: $SMOLVLM_CACHE_GB or 10",
    )


def check_videos(files: Sequence[str], options: argparse.Namespace) -> None:
    """Raises UsageError for what is no file and no folder of frames. Call before the model is loaded."""
    for file in files:
        check_file(file, folder=True)
    check_frame_fps(options.frame_fps, files)


def look_at(vlm: VLM, file: str, options: argparse.Namespace) -> Index:
    """Look at a video or a folder of frames, or find what an earlier run saw."""
    from ..highlights import build_index
    from ..media.folder import is_folder

    try:
        with progress_bar(f"Looking at {Path(file).name}", options, unit="samples") as progress:
            return build_index(
                vlm, file, fps=options.fps, max_frames=options.max_frames, allow_url=options.allow_url,
                frame_fps=options.frame_fps if is_folder(file) else None,
                cache=options.cache, cache_gb=options.cache_gb, on_look=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        if not options.quiet:
            print("smolvlm: stopped; the same command goes on from here, what was seen is kept", file=sys.stderr)
        raise


def warn_of_doubt(label_mass: float, options: argparse.Namespace) -> None:
    """Say so when the model didn't mean to answer yes or no: then scores mean little."""
    from ..highlights.score import DOUBTFUL_MASS
    from ..hub import BUNDLED

    if label_mass < DOUBTFUL_MASS and not options.quiet:
        known = ""
        if options.model in (None, BUNDLED):
            known = (
                '; the bundled nano knows "Does anything happen?", "Does anything move?", "Does anything appear?" and '
                '"Is there a red circle in the video?"'
            )
        print(
            f"smolvlm: warning: only {label_mass:.1%} of the model's answers lay on yes and no: it doesn't know such a "
            f"question, and the scores mean little. Ask it another way with --question{known}.",
            file=sys.stderr,
        )
