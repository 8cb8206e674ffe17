"""Talk about pictures and videos, turn by turn.

While it runs:
  /image PATH     attach a picture to the next question
  /video PATH     attach a video to the next question
  /history        show the conversation
  /save PATH      write the conversation to a JSON file
  /reset          forget the conversation
  /help, /quit
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SmolVLMError
from .arguments import Parser, UsageError, add_answer_options, add_media_options, add_model_options
from .ask import print_stream, request_options
from .inputs import check_file
from .terminal import load_model, waiting

if TYPE_CHECKING:
    from ..vlm import Chat
    from ..vlm.requests import AskOptions

COMMANDS = "/image PATH, /video PATH, /history, /save PATH, /reset, /help, /quit"


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm chat [FILE ...] [options]"
    parser.add_argument("files", nargs="*", metavar="FILE", help="pictures and videos for the first question")
    add_media_options(parser)
    add_answer_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from .inputs import as_block

    for file in options.files:
        check_file(file)
    waiting = [as_block(file, allow_url=options.allow_url) for file in options.files]
    vlm = load_model(options)
    talk = _Talk(vlm.chat(system=options.system), options)
    for block in waiting:
        talk.attach(str(block["type"]), block[str(block["type"])])
    if sys.stdin.isatty():
        print(f"{vlm.name} on {vlm.device}. {COMMANDS}")
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  line editing and the arrow keys, where the platform has it
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return talk.exit_code
        if line in ("/quit", "/exit"):
            return talk.exit_code
        if line:
            talk.take(line)


class _Talk:
    """One conversation at the terminal. exit_code: not 0 once something failed and nobody was there to see it."""

    def __init__(self, chat: Chat, options: argparse.Namespace) -> None:
        self.chat = chat
        self.options = options
        self.images: list[object] = []
        self.videos: list[object] = []
        self.exit_code = 0
        self._request = request_options(options)
        del self._request["system"]

    def take(self, line: str) -> None:
        """A command or a question. What fails is told in one line, and the conversation goes on."""
        try:
            if line.startswith("/"):
                self._command(line)
            else:
                self._ask(line)
        except (UsageError, SmolVLMError, OSError) as error:
            print(f"smolvlm: error: {' '.join(str(error).split())}", file=sys.stderr)
            self.exit_code = 0 if sys.stdin.isatty() else 2

    def attach(self, kind: str, source: object) -> None:
        (self.images if kind == "image" else self.videos).append(source)

    def _ask(self, question: str) -> None:
        request: AskOptions = {**self._request, "images": self.images, "videos": self.videos}
        self.images, self.videos = [], []
        stream = None
        try:
            with waiting("Looking ...", self.options):
                stream = self.chat.stream(question, **request)
                first = next(stream, "")
            print_stream(first, stream, self.options)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            if stream is not None:
                stream.close()
            print("\n(stopped; this turn is forgotten)")

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("/image", "/video"):
            for path in shlex.split(rest):
                check_file(path)
                self.attach(word[1:], path)
            if not rest.strip():
                raise UsageError(f"which file? Example: {word} example.{'png' if word == '/image' else 'mp4'}")
        elif word == "/reset":
            self.chat.reset()
            self.images, self.videos = [], []
        elif word == "/history":
            for message in self.chat.transcript():
                print(f"{message['role']}: {message['text']}")
        elif word == "/save":
            if not rest.strip():
                raise UsageError("where to? Example: /save talk.json")
            text = json.dumps(self.chat.transcript(), ensure_ascii=False, indent=2)
            Path(rest.strip()).expanduser().write_text(text + "\n", encoding="utf-8")
        elif word == "/help":
            print(COMMANDS)
        else:
            raise UsageError(f"there is no command {word}: {COMMANDS}")
