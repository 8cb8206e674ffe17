"""Which words of a command line are files and which is the question, and what each file is: picture or video.

Knows no model. What is inside a file decides what it is, never its name; opening it is for the room `media`.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import UsageError

STDIN = "-"
# Only used to tell a mistyped file name from a question.
PICTURE_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
Block = dict[str, object]


def read_request(options: argparse.Namespace) -> tuple[list[str], str]:
    """(files, question) of `FILE... QUESTION`. With --question all words are files; a question may come from a pipe.

    Raises UsageError when a file doesn't exist or there is no question.
    """
    words: list[str] = options.words
    if options.question is not None:
        files, question = words, options.question
    elif words and not is_file(words[-1]):
        files, question = words[:-1], words[-1]
        if looks_like_file(question):
            raise missing_file(question)
    else:
        files, question = words, None
    for file in files:
        check_file(file, folder=True)
    if question is None:  # only now, because it may wait for whoever writes into the pipe
        question = _question_from_pipe(files)
    if files.count(STDIN) > 1:
        raise UsageError("'-' is given twice, but stdin can be read only once")
    if not question.strip():
        raise UsageError("the question is empty")
    return list(files), question


def _question_from_pipe(words: Sequence[str]) -> str:
    if STDIN not in words and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if question:
            return question
    if not words:
        raise UsageError('nothing was asked. Example: smolvlm ask picture.png "What is this?" (see smolvlm ask --help)')
    raise UsageError(f'there is no question, {words[-1]} is a file. Example: smolvlm ask {words[-1]} "What is this?"')


def check_file(name: str, *, folder: bool = False) -> None:
    """Raises UsageError when a file doesn't exist or is a directory. folder: one that holds pictures is fine."""
    if name == STDIN or is_url(name):
        return
    path = Path(name)
    if path.is_dir() and folder:
        from ..media.folder import pictures_in

        pictures_in(path)
    elif path.is_dir():
        raise UsageError(f"{name} is a directory: name the files in it, e.g. {name.rstrip('/')}/*.png")
    elif not path.exists():
        raise missing_file(name)


def check_frame_fps(frame_fps: float | None, names: Sequence[str]) -> None:
    """Raises UsageError when a rate of frames is given and no folder of frames."""
    if frame_fps is not None and not any(Path(name).is_dir() for name in names):
        raise UsageError("--frame-fps is for a folder of pictures: a video says itself when its frames are shown")


def check_output(path: Path) -> None:
    """Raises UsageError when no file can be written there, before anything takes time."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} to write {path.name} to: make it first")


def missing_file(name: str) -> UsageError:
    """The error for a file that isn't there, with the nearest name that is."""
    if " " in name and not looks_like_file(name):
        return UsageError(f"there is no file {name!r}. If that is the question, put it last, after the files")
    path = Path(name)
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return UsageError(f"there is no file {name}: the directory {path.parent} doesn't exist or can't be read")
    near = difflib.get_close_matches(path.name, names, n=1)
    return UsageError(f"there is no file {name}" + (f". Did you mean {path.parent / near[0]}?" if near else ""))


def is_file(word: str) -> bool:
    """Whether a word names something to look at that is there (or an address, or stdin)."""
    if word == STDIN or is_url(word):
        return True
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # a question may be longer than any file name
        return False


def looks_like_file(word: str) -> bool:
    """Whether a word can hardly be a question: it ends like the name of a picture or video."""
    return word.lower().endswith((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES))


def is_url(word: str) -> bool:
    return "://" in word.split(" ", 1)[0]


def as_blocks(files: Sequence[str], *, allow_url: bool, frame_fps: float | None = None) -> list[Block]:
    """Message blocks of files in their order. frame_fps: of folders of frames."""
    return [as_block(file, allow_url=allow_url, frame_fps=frame_fps) for file in files]


def as_block(name: str, *, allow_url: bool, frame_fps: float | None = None) -> Block:
    """{"type": "image" | "video", ...} of one file, address, folder of frames, or "-" (the bytes on stdin)."""
    from ..media.folder import is_folder, pictures_in, times_of
    from ..media.kind import identify

    if is_folder(name):
        return {"type": "video", "video": pictures_in(Path(name)), **times_of(Path(name), fps=frame_fps)}
    source: str | bytes = name
    if name == STDIN:
        if sys.stdin.isatty():
            raise UsageError("'-' reads a picture or video from stdin: pipe one in, e.g. `< picture.png`")
        source = sys.stdin.buffer.read()
    kind, opened = identify(source, allow_url=allow_url)
    return {"type": kind, kind: opened}
