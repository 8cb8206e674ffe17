"""What the answers of a run depend on, and what else a figure should carry: versions, commit, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from .task import Protocol

BLOCKS, BLOCK_BYTES = 64, 4096  # of each file of weights that go into the fingerprint: training changes all of them


@dataclass(frozen=True)
class Settings:
    """What must be the same for answers to belong together. model, adapter: as they were called; only they may differ.

    weights: a fingerprint, so that a model under another name is the same. device: its kind, "cpu" or "cuda". prompts:
    SHA-256 of the files that prompts are made of. judge: model and address, "" for none.
    """

    model: str
    adapter: str
    weights: str
    runtime: str
    dtype: str
    device: str
    protocol: Protocol
    prompts: str
    judge: str
    version: str


def weights_fingerprint(directories: Iterable[Path]) -> str:
    """A short name for the weights in some directories, from samples of their files: gigabytes aren't read."""
    digest = hashlib.sha256()
    for directory in directories:
        for file in sorted(
            one for one in directory.rglob("*") if one.suffix in (".safetensors", ".onnx", ".onnx_data")
        ):
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            with file.open("rb") as content:
                for place in range(0, size, max(BLOCK_BYTES, size // BLOCKS)):
                    content.seek(place)
                    digest.update(content.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


def prompts_fingerprint() -> str:
    """SHA-256 of the files that hold the texts of prompts."""
    texts = sorted((one for one in files(__package__).iterdir() if one.name.endswith("prompts.toml")), key=str)
    return hashlib.sha256(b"".join(one.read_bytes() for one in texts)).hexdigest()


def commit() -> str:
    """The commit of the checkout that this package runs from, "-dirty" behind it when files were changed; else ""."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> str:
    """The processor and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {cores} core{'s' * (cores != 1)}"
