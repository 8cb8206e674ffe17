"""What this machine offers to this process: cores, memory, time, perhaps a GPU."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Files of Linux that hold the limit and the use of a container, in bytes: version 2 of control groups, then version 1.
CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
WHEN_UNKNOWN = 4 * 2**30


def timed(work: Callable[[], object]) -> float:
    """The seconds that work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def usable_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS says otherwise, as it does to torch."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process can take without anyone being pushed out, containers' limits included; else a guess."""
    free = free_memory()
    if free is not None:
        return free
    try:  # macOS tells what is built in only; half of it is a fair guess at what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return WHEN_UNKNOWN


def free_memory() -> int | None:
    """Bytes that this process can take, None where the system doesn't tell."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    except (OSError, StopIteration, ValueError):
        pass
    for limit, used in CONTAINER:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()) + _pages_of_files(Path(used)))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(0, min(found)) if found else None


def resident_memory() -> int | None:
    """Bytes of memory that this process holds, None where the system doesn't tell."""
    return _of_this_process("VmRSS")


def peak_memory() -> int | None:
    """Most bytes that this process has held. getrusage would count those of its parent from before it started, too."""
    return _of_this_process("VmHWM")


def may_have_gpu() -> bool:
    """False when there is surely none that torch can use; found without importing torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()


def _of_this_process(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration, ValueError):
        return None


def _pages_of_files(used: Path) -> int:
    """What a container's use counts and its system gives up when memory is short: copies of files."""
    try:
        lines = used.with_name("memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in ("active_file", "inactive_file"))
