"""Where what was seen of videos is kept: under a bound, of which the videos that nobody asked about longest go first.

Each video has a directory, and in it a file `used`: when it was asked about last, and by a lock, that it is now. The
system lets go of a lock however a process ends, so what a run works on is never removed by another, nor by itself.
Where files can't be locked, nothing is removed; Windows has no such locks, but moves no directory with an open file.
"""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path

from ..errors import InputError

CACHE_VARIABLE, CACHE = "SMOLVLM_CACHE", "~/.cache/smolvlm"
LIMIT_VARIABLE, LIMIT_GB = "SMOLVLM_CACHE_GB", 10.0
_USED, _REMOVED = "used", ".removed-"


def cache_directory(given: Path | str | None) -> Path:
    return Path(given or os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()


def most_bytes(given_gb: float | None) -> float:
    """What all videos may take together. Raises InputError for what is no number of gigabytes."""
    said = os.environ.get(LIMIT_VARIABLE) or LIMIT_GB
    name, value = ("cache_gb", given_gb) if given_gb is not None else (LIMIT_VARIABLE, said)
    try:
        limit_gb = float(value)
    except ValueError:
        limit_gb = -1.0
    if not limit_gb >= 0:
        raise InputError(f"{name}={value!r} can't be used: it must be a number of gigabytes, 0 or above.")
    return limit_gb * 1e9


class Shelf:
    """A video's directory, made if need be; nobody removes it while this lives. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        descriptor = _hold(directory)
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)


def make_room(videos: Path, limit: float) -> None:
    """Remove videos that are not in use, longest unused first, until the others take at most so many bytes."""
    total, found = 0, []
    for directory in _directories(videos):
        used_s, num_bytes = _measure(directory)
        total += num_bytes
        found.append((used_s, num_bytes, directory))
    for _, num_bytes, directory in sorted(found):
        if total <= limit:
            return
        total -= num_bytes if _remove(directory) else 0


def _hold(directory: Path) -> int | None:
    """An open file whose lock keeps the directory; None for a whole one that can only be read."""
    used = directory / _USED
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(used, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # removed in between
            continue
        except FileExistsError:  # by mkdir: removed and made again while it looked, or a file of that name
            if directory.is_file():
                raise
            continue
        except OSError:
            if (directory / "complete").exists():
                return None
            raise
        _lock(descriptor, alone=False)
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(used)):
                os.utime(used)
                return descriptor
        except FileNotFoundError:  # removed before it was locked
            pass
        os.close(descriptor)


def _lock(descriptor: int, *, alone: bool) -> bool:
    """Until it is closed. alone: only if nobody holds it, and not waiting. False when that can't be."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except OSError:
        return False
    return True


def _remove(directory: Path) -> bool:
    """Move it away at one moment, then delete it; False when it is in use."""
    gone = directory.with_name(f"{_REMOVED}{directory.name}-{os.getpid()}")
    try:
        if os.name == "nt":
            directory.rename(gone)
        else:
            descriptor = os.open(directory / _USED, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _lock(descriptor, alone=True):
                    return False
                directory.rename(gone)
            finally:
                os.close(descriptor)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _directories(videos: Path) -> list[Path]:
    """Those of videos; what a killed run had moved away is deleted on the way."""
    kept = []
    for entry in os.scandir(videos) if videos.is_dir() else ():
        if entry.name.startswith(_REMOVED):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.is_dir():
            kept.append(Path(entry.path))
    return kept


def _measure(directory: Path) -> tuple[float, int]:
    """When it was used last, and its bytes. What another run removes at this moment is nothing."""
    try:
        files = {entry.name: entry.stat() for entry in os.scandir(directory)}
        used = files.get(_USED) or os.stat(directory)
    except OSError:
        return 0.0, 0
    return used.st_mtime, sum(file.st_size for file in files.values())
