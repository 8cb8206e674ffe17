"""Ask a question about pictures or videos, and stream the answer.

examples:
  smolvlm ask cat.jpg "What is on the sofa?"
  smolvlm ask before.png after.png "What changed?"
  smolvlm ask goal.mp4 "What happens?" --fps 2
  smolvlm ask - "What is this?" < cat.jpg
  echo "What is this?" | smolvlm ask cat.jpg
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from .arguments import Parser, add_answer_options, add_media_options, add_model_options, look_options
from .inputs import as_blocks, read_request
from .terminal import is_watched, load_model, waiting

if TYPE_CHECKING:
    from ..types import Answer
    from ..vlm import AnswerStream
    from ..vlm.requests import AskOptions


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm ask [FILE ...] QUESTION [options]"
    parser.add_argument("words", nargs="*", metavar="FILE ... QUESTION", help='files, "-" for stdin; the question last')
    parser.add_argument("-q", "--question", metavar="TEXT", help="the question, when all other words are files")
    parser.add_argument("--json", action="store_true", help="one JSON object: the answer, its cost, the frames seen")
    add_media_options(parser)
    add_answer_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    files, question = read_request(options)
    content = [*as_blocks(files, allow_url=options.allow_url), {"type": "text", "text": question}]
    vlm = load_model(options)
    request: AskOptions = {**request_options(options), "messages": [{"role": "user", "content": content}]}
    with waiting("Looking ...", options):
        stream = vlm.stream(**request)
        first = next(stream, "")
        answer = finish(stream) if options.json else None
    if answer is not None:
        print(json.dumps({"model": vlm.name, **as_json(answer)}, ensure_ascii=False))
    else:
        print_stream(first, stream, options)
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
