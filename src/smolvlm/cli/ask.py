"""Ask a question about pictures or videos, and stream the answer.

examples:
  smolvlm ask cat.jpg "What is on the sofa?"
  smolvlm ask before.png after.png "What changed?"
  smolvlm ask goal.mp4 "What happens?" --fps 2
  smolvlm ask - "What is this?" < cat.jpg
  echo "What is this?" | smolvlm ask cat.jpg
  smolvlm ask lecture.mp4 "What is it about?" --long
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import SmolVLMError
from .arguments import (
    Parser,
    UsageError,
    add_answer_options,
    add_media_options,
    add_model_options,
    add_rule_options,
    look_options,
    rule_options,
)
from .inputs import as_blocks, check_frame_fps, read_request
from .looking import add_cache_options, add_frame_option, look_at
from .terminal import is_watched, load_model, progress_bar, waiting

if TYPE_CHECKING:
    from ..types import Answer
    from ..vlm import AnswerStream
    from ..vlm.requests import AskOptions

GAP_S = 5.0  # between two frames, above which most of what happens is missed
SAMPLING = ("max_new_tokens", "temperature", "top_p", "seed", "stop")


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm ask [FILE ...] QUESTION [options]"
    parser.add_argument("words", nargs="*", metavar="FILE ... QUESTION", help='files, "-" for stdin; the question last')
    parser.add_argument("-q", "--question", metavar="TEXT", help="the question, when all other words are files")
    parser.add_argument(
        "--long",
        action="store_true",
        help="a video of any length: it is described part by part, and the question is answered over these words",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: the answer, its cost, the frames seen")
    add_frame_option(add_media_options(parser))
    add_cache_options(parser)
    add_answer_options(parser)
    add_rule_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    files, question = read_request(options)
    rule = rule_options(options)
    check_frame_fps(options.frame_fps, files)
    if options.long:
        if rule:
            raise UsageError("--long answers in free text: leave --schema, --regex and --choice out")
        return _run_long(files, question, options)
    blocks = as_blocks(files, allow_url=options.allow_url, frame_fps=options.frame_fps)
    content = [*blocks, {"type": "text", "text": question}]
    vlm = load_model(options)
    request: AskOptions = {**request_options(options), **rule, "messages": [{"role": "user", "content": content}]}
    with waiting("Looking ...", options):
        stream = vlm.stream(**request)
        first = next(stream, "")
        answer = finish(stream) if options.json else None
    if answer is not None:
        print(json.dumps({"model": vlm.name, **as_json(answer)}, ensure_ascii=False))
    else:
        print_stream(first, stream, options)
        if is_watched(options):
            tell_gaps(stream.answer)
    if rule and stream.answer.finish_reason != "stop":
        cut = f"cut after {len(stream.answer.token_ids)} tokens"
        raise SmolVLMError(f"The answer was {cut} and isn't what it must be; --max-new-tokens allows more.")
    return 0


def tell_gaps(answer: Answer) -> None:
    """Say so where most of a long video was not looked at."""
    for seen in answer.frames:
        gap_s = seen.duration_s / len(seen.indices)
        if gap_s > GAP_S:
            shown = f"{seen.source} was shown in {len(seen.indices)} frames, one every {gap_s:.0f} s"
            print(f"smolvlm: {shown}; --long looks at all of it", file=sys.stderr)


def _run_long(files: Sequence[str], question: str, options: argparse.Namespace) -> int:
    if len(files) != 1:
        raise UsageError(f"--long answers about one video at a time, and {len(files)} files are given")
    vlm = load_model(options)
    from ..highlights import ask_long

    index = look_at(vlm, files[0], options)
    chosen = request_options(options)
    answer: AskOptions = {name: chosen[name] for name in SAMPLING}  # type: ignore[literal-required, assignment]
    with progress_bar("Describing", options, unit="samples") as progress:
        found = ask_long(
            vlm, index, question, system=options.system, max_image_tokens=options.max_image_tokens,
            on_progress=progress, answer=answer,
        )  # fmt: skip
    if options.json:
        log = [{"start_s": line.start_s, "end_s": line.end_s, "text": line.title} for line in found.log]
        print(json.dumps({"model": vlm.name, **as_json(found.answer), "log": log}, ensure_ascii=False))
    else:
        print(found.answer.text)
    return 0


def print_stream(first: str, stream: AnswerStream, options: argparse.Namespace) -> None:
    """Print the pieces as they come, and a word to whoever watches when the answer ended for want of tokens."""
    print(first, end="", flush=True)
    for piece in stream:
        print(piece, end="", flush=True)
    print()
    if stream.answer.finish_reason == "length" and is_watched(options):
        cut = f"cut after {len(stream.answer.token_ids)} tokens"
        print(f"smolvlm: the answer was {cut}; --max-new-tokens allows more", file=sys.stderr)


def finish(stream: AnswerStream) -> Answer:
    for _ in stream:
        pass
    return stream.answer


def request_options(options: argparse.Namespace) -> AskOptions:
    """The keyword arguments of VLM.stream that command-line options stand for."""
    return {
        **look_options(options),
        "system": options.system,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "stop": options.stop,
    }


def as_json(answer: Answer) -> dict[str, object]:
    """The fields of an answer under the names of the JSON output."""
    frames = [
        {**asdict(seen), "timestamps_s": [round(seconds, 3) for seconds in seen.timestamps_s]} for seen in answer.frames
    ]
    return {
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "image_tokens": answer.image_tokens,
        "new_tokens": len(answer.token_ids),
        "first_token_s": round(answer.first_token_s, 4),
        "total_s": round(answer.total_s, 4),
        "frames": frames,
    }
