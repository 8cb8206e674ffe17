"""Files that are whole or not there: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import VideoError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name to write under. When the block ends well it becomes `path`; when not (a full disk, Ctrl-C), it is gone.

    Raises VideoError when the place can't be written to.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def unwritable(path: Path, error: OSError) -> VideoError:
    return VideoError(
        f"{str(path)!r} can't be written: {error.strerror or error}. No half file was left; free some space, or name "
        "another place."
    )
