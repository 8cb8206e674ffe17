"""The command `smolvlm`: finds the command's module, runs it, and turns every failure into one line and an exit code.

Nothing heavy is imported before a command needs it: `smolvlm --help` answers without torch, PyAV, Pillow or rich.
Exit codes: 0 done, 1 failed, 2 something that was typed or given can't be used, 130 Ctrl-C, 141 the reader went away.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from ..errors import InputError, ModelNotFoundError, SmolVLMError
from .arguments import Parser, UsageError

COMMANDS = {
    "ask": "ask a question about pictures or videos",
    "chat": "talk about pictures and videos, turn by turn",
    "highlights": "cut the moments out of a video that you, or the model, call its highlights",
    "chapters": "cut a video into titled chapters",
    "search": "find when something happens in videos",
    "describe-video": "write down what happens in a video, with times",
    "watch": "watch a camera, a stream or a growing file, and say when something begins",
    "serve": "serve a model to OpenAI's clients, and a page to ask it in a browser",
    "tokens": "show what pictures and videos cost, before anything runs",
    "finetune": "teach a model with your own pictures, videos and answers",
    "train": "train a model by a recipe: from nothing, or further",
    "assemble": "join a text model and a vision tower into a checkpoint to be trained",
    "data": "look at training data: what would be learned, what can't be used",
    "eval": "measure a model on benchmarks, as the published tables were or as you ask; compare two runs",
    "quantize": "write a checkpoint with weights in 8 or 4 bits",
    "export": "write ONNX graphs that transformers.js loads, and verify them",
    "bench": "measure how fast this machine answers, and what share of its limit that is",
    "doctor": "check this installation and name the cure of each problem",
}
DEBUG = "SMOLVLM_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv when none is given). Returns the exit code; never raises for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? and goes on
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output left. Python would complain once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE, which has no name on Windows
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        print(f"smolvlm: error: {_explain(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | InputError | ModelNotFoundError) else 1
    return code


def _run(words: list[str]) -> int:
    parser = Parser(
        prog="smolvlm",
        usage="smolvlm [-h] [--version] COMMAND ...",
        description="Ask a picture or a video.",
        epilog="commands:\n"
        + "".join(f"  {name:<16}{purpose}\n" for name, purpose in COMMANDS.items())
        + "\n`smolvlm COMMAND --help` describes one of them.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    if words and words[0] in COMMANDS:
        module = import_module(f".{words[0].replace('-', '_')}", __name__)
        command = Parser(prog=f"smolvlm {words[0]}", description=module.__doc__)
        module.add_arguments(command)
        typed = argparse.Namespace(command_line=words)  # for a command that starts itself again
        return int(module.run(command.parse_intermixed_args(words[1:], typed)))
    if words and not words[0].startswith("-"):
        raise UsageError(f"there is no command {words[0]!r}: use one of {', '.join(COMMANDS)} (see smolvlm --help)")
    if parser.parse_args(words).version:
        from .. import __version__

        print(f"smolvlm {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


def _explain(error: Exception) -> str:
    """One line for the user."""
    if isinstance(error, UsageError | SmolVLMError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "Not enough memory. Try fewer or smaller pictures, --detail low, or a smaller --model."
    return f"Unexpected {type(error).__name__}: {' '.join(str(error).split())} ({DEBUG}=1 shows where it came from.)"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"smolvlm: warning: {' '.join(str(message).split())}", file=sys.stderr)
