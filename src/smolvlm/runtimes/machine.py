"""What this machine offers to this process: cores, memory, perhaps a GPU."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# Files of Linux that hold the limit and the use of a container, in bytes: version 2 of control groups, then version 1.
CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
WHEN_UNKNOWN = 4 * 2**30


def usable_cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS says otherwise, as it does to torch."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process can take without anyone being pushed out, containers' limits included."""
    found = [_of_the_machine()]
    for limit, used in CONTAINER:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(0, min(found))


def may_have_gpu() -> bool:
    """False when there is surely none that torch can use; found without importing torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()


def _of_the_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:  # macOS tells what is built in only; half of it is a fair guess at what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return WHEN_UNKNOWN
