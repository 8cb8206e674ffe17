"""What the drivers of peers.py have in common: the job, its columns, and the command line that peers.py calls.

A driver is a script of its own, so that it runs in the peer's environment: it imports nothing of smolvlm.

    PYTHON peers_llama.py DIRECTORY q8_0 --prepare     once: what the peer reads is made of a checkpoint's files
    PYTHON peers_llama.py DIRECTORY q8_0               the second answer of a process, as one JSON line
    PYTHON peers_llama.py DIRECTORY q8_0 --cold        one answer
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inference import NEW_TOKENS, QUESTION, peak_mb, timed

__all__ = ["NEW_TOKENS", "PICTURE", "QUESTION", "drive", "greedy", "read_tensors", "row", "settings", "timed"]

PICTURE = "picture.jpg"


def drive(
    answer: Callable[[Path, str, int, bool], dict[str, float]], prepare: Callable[[Path, str], None] | None = None
) -> None:
    """Run a driver. answer(directory, dtype, threads, cold) gives a row of peers.py's table, {} when cold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("dtype")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    if not options.prepare:
        print(json.dumps(answer(options.directory, options.dtype, options.threads, options.cold)))
    elif prepare is not None:
        prepare(options.directory, options.dtype)


def row(vision: float, first: float, total: float) -> dict[str, float]:
    """Seconds of looking at the picture, to the first token, to the last. Call it last: memory is read now."""
    return {
        "vision_s": vision, "first_token_s": first, "total_s": total,
        "decode_tps": (NEW_TOKENS - 1) / (total - first), "peak_mb": peak_mb(),
    }  # fmt: skip


def greedy(step: Callable[[int], int], first: int) -> None:
    """The job's tokens after the first one: step takes a token and gives the next."""
    for _ in range(NEW_TOKENS - 1):
        first = step(first)


def settings(directory: Path, name: str = "config.json") -> dict[str, Any]:
    return json.loads((directory / name).read_text())  # type: ignore[no-any-return]


def read_tensors(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and float32 arrays of a safetensors file of bfloat16, which numpy has no type for."""
    import numpy as np

    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        start = stream.tell()
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            bits = np.memmap(file, np.uint16, "r", start + begin, ((end - begin) // 2,))
            yield name, (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
