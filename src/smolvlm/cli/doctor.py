"""Check this installation: versions, device, codecs, the bundled model, the cache. Each problem comes with its cure.

Exits with 1 when something is broken that answers need.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, ModelNotFoundError
from .arguments import Parser

PACKAGES = ("torch", "numpy", "pillow", "av", "tokenizers", "huggingface_hub", "jinja2", "rich")
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
PICTURE_FORMATS = {"webp": "WebP", "avif": "AVIF", "jpg": "JPEG", "zlib": "PNG"}
KERNELS = {
    "avx512": "AVX-512 with bf16 and VNNI", "avx512vnni": "AVX-512 with VNNI, no products of bf16",
    "avxvnni": "AVX2 with VNNI, no products of bf16", "avx2": "AVX2, no products of bf16 or 8 bits",
    "arm86": "ARMv8.6 with bf16 and i8mm", "plain": "without instructions of this processor's own",
}  # fmt: skip
SLOWER = {"bfloat16": "", "float32": " (bfloat16 takes half the memory, and longer to look at pictures)"}
REINSTALL = "install the package again: pip install --force-reinstall smolvlm"
FREE_BYTES = 10 * 2**30  # the largest released checkpoint, stored in float32, takes 9 GB


@dataclass(frozen=True)
class Finding:
    """One line of the report. A problem breaks answers, a warning only something on the side; both have a cure."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    found: str
    cure: str = ""


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm doctor [--json]"
    parser.add_argument("--json", action="store_true", help="one JSON list instead of lines")


def run(options: argparse.Namespace) -> int:
    findings = []
    for check in CHECKS:
        for finding in _guarded(check):
            findings.append(finding)
            if not options.json:
                _show(finding)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    broken = any(finding.level == "problem" for finding in findings)
    if not options.json:
        print("\nSomething is broken: see the cures above." if broken else "\nEverything that answers need is here.")
    return 1 if broken else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails in a way nobody foresaw is a problem, not the end of the report."""
    try:
        yield from check()
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield Finding("problem", check.__name__.strip("_").replace("_", " "), what, REINSTALL)


def _show(finding: Finding) -> None:
    mark = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}[finding.level]
    print(f"{mark}{finding.subject:<18}{finding.found}")
    if finding.cure:
        print(f"{'':<8}{'':<18}-> {finding.cure}")


def _versions() -> Iterator[Finding]:
    from .. import __version__

    yield Finding("ok", "smolvlm", __version__)
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("problem", name, "is not installed", f"pip install {name}")


def _devices() -> Iterator[Finding]:
    import torch

    from ..model import cuda
    from ..vlm import best_device, default_dtype

    device = best_device()
    name = cuda.name() if device == "cuda" else torch.cpu.get_capabilities().get("cpu_name", "")
    dtype = str(default_dtype(device)).removeprefix("torch.")
    yield Finding("ok", "device", f"{device} ({name or platform.machine()}), large models in {dtype}")
    if device == "cpu":
        if torch.version.cuda and shutil.which("nvidia-smi"):
            yield Finding(
                "warning", "cuda", "there is an NVIDIA driver, but torch can't use it",
                "check that the driver is new enough for the installed torch: https://pytorch.org/get-started",
            )  # fmt: skip
        yield from _threads(torch.get_num_threads(), _cores())


def _kernels() -> Iterator[Finding]:
    from ..runtimes.bindings import fast_dtype, kernels_name

    try:
        name, dtype = kernels_name(), fast_dtype()
    except ConfigError:
        cure = "for faster answers install a C compiler, then smolvlm again (Debian: apt install gcc)"
        yield Finding("warning", "native kernels", "were not compiled when the package was installed", cure)
    else:
        yield Finding("ok", "native kernels", f"{KERNELS[name]}; large models in {dtype}{SLOWER[dtype]}")


def _runtime() -> Iterator[Finding]:
    from .. import hub
    from ..config import SmolVLMConfig
    from ..vlm import choose_runtime

    runtime, reason = choose_runtime(SmolVLMConfig.from_file(hub.resolve(hub.BUNDLED) / "config.json"))
    yield Finding("ok", "runtime", f"{runtime}: {reason}")


def _cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads(threads: int, cores: int) -> Iterator[Finding]:
    found = f"{threads} for {cores} cores"
    if threads > cores:
        yield Finding("warning", "threads", found, f"too many threads slow each other down: OMP_NUM_THREADS={cores}")
    elif threads == 1 < cores:
        yield Finding("warning", "threads", found, "one thread only: unset OMP_NUM_THREADS, or set it higher")
    else:
        yield Finding("ok", "threads", found)


def _codecs() -> Iterator[Finding]:
    import av

    missing = [name for name in CODECS if not _decodes(name)]
    if missing:
        cure = "pip install --force-reinstall av (its wheels hold all of them; a self-built PyAV may not)"
        yield Finding("warning", "video codecs", f"no decoder for {', '.join(missing)}", cure)
    else:
        yield Finding("ok", "video codecs", f"{', '.join(CODECS)} (FFmpeg, PyAV {av.__version__})")


def _decodes(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _picture_formats() -> Iterator[Finding]:
    from PIL import features

    missing = [label for name, label in PICTURE_FORMATS.items() if not features.check(name)]
    if missing:
        yield Finding(
            "warning",
            "picture formats",
            f"Pillow can't read {', '.join(missing)}",
            "pip install --force-reinstall pillow",
        )
    else:
        yield Finding("ok", "picture formats", ", ".join(PICTURE_FORMATS.values()) + ", GIF, BMP, TIFF")


def _cache() -> Iterator[Finding]:
    from huggingface_hub import constants

    directory = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        cure = "set HF_HOME to a directory that you may write to (only downloads need it)"
        yield Finding("warning", "model cache", f"{directory} can't be written", cure)
        return
    free = shutil.disk_usage(existing).free
    found = f"{directory}, {free / 2**30:.0f} GiB free"
    if free < FREE_BYTES:
        yield Finding("warning", "model cache", found, "the largest model takes 9 GB: set HF_HOME to a larger disk")
    else:
        yield Finding("ok", "model cache", found)
    if constants.is_offline_mode():
        yield Finding("warning", "network", "HF_HUB_OFFLINE is set: no downloads", "unset HF_HUB_OFFLINE")


def _bundled_model() -> Iterator[Finding]:
    """The proof: the bundled model answers a question about a picture."""
    from PIL import Image

    from ..vlm import load

    start = time.perf_counter()
    try:
        vlm = load()
    except ModelNotFoundError:
        yield Finding("problem", "bundled model", "its files are missing", REINSTALL)
        return
    answer = vlm.ask("What colour is this?", images=[Image.new("RGB", (64, 64), "red")], max_new_tokens=8)
    seconds = time.perf_counter() - start
    yield Finding("ok", "bundled model", f"answers {answer.text!r} about a red picture, {seconds:.1f} s with loading")


def _terminal() -> Iterator[Finding]:
    encoding = sys.stdout.encoding or "unknown"
    if encoding.lower().replace("-", "") != "utf8":
        yield Finding("warning", "terminal", f"writes {encoding}, so some characters will fail", "set PYTHONUTF8=1")


CHECKS = (_versions, _devices, _kernels, _runtime, _codecs, _picture_formats, _cache, _terminal, _bundled_model)
