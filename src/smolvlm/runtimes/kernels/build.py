"""Compile the kernels into one shared library beside this file. Run by the wheel's build, or by hand:

    python src/smolvlm/runtimes/kernels/build.py

Any C11 compiler with GCC's vector extensions does (gcc, clang). Without one nothing is lost but speed: the torch
runtime answers.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = HERE / ("libsmolvlm.dylib" if sys.platform == "darwin" else "libsmolvlm.so")
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-pthread")
# A copy of kernels.c for each instruction set; one that the compiler doesn't know is left out.
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=512")
COPIES: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512": (*AVX512, "-mavx512bf16"), "avx512vnni": AVX512, "avxvnni": (*AVX2, "-mavxvnni"), "avx2": AVX2,
    },
    "aarch64": {"arm86": ("-march=armv8.6-a",)},
}  # fmt: skip


class BuildError(Exception):
    """There is no compiler, or it refused the code."""


def compiler() -> str | None:
    """The C compiler that CC names, else the first of cc, gcc, clang that is installed."""
    named = os.environ.get("CC")
    return named or next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def build(library: Path = LIBRARY) -> Path:
    """Compile and link. Raises BuildError."""
    command = compiler()
    if command is None or sys.platform == "win32":
        raise BuildError("no C compiler was found (CC, cc, gcc, clang)")
    with tempfile.TemporaryDirectory() as folder:
        objects, have = [], []
        copies = COPIES.get(platform.machine(), {})
        for name, flags in [*copies.items(), ("plain", ())]:
            target = Path(folder) / f"{name}.o"
            failed = _compile(command, "kernels.c", target, (f"-DISA={name}", *flags))
            if failed is None:
                objects.append(target)
                have.append(f"-DHAVE_{name}")
            elif name == "plain":
                raise BuildError(failed)
        for source in ("api.c", "pack.c", "pool.c"):
            target = Path(folder) / f"{source}.o"
            failed = _compile(command, source, target, tuple(have))
            if failed is not None:
                raise BuildError(failed)
            objects.append(target)
        linked = Path(folder) / library.name
        failed = _run([*command.split(), "-shared", "-o", str(linked), *map(str, objects), "-pthread", "-lm"])
        if failed is not None:
            raise BuildError(failed)
        beside = library.with_name(f"{library.name}.{os.getpid()}")  # whoever has the old one mapped keeps it
        shutil.copyfile(linked, beside)
        os.replace(beside, library)
    return library


def _compile(command: str, source: str, target: Path, flags: tuple[str, ...]) -> str | None:
    return _run([*command.split(), *FLAGS, *flags, "-c", str(HERE / source), "-o", str(target)])


def _run(command: list[str]) -> str | None:
    """None when it worked, else what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return f"{command[0]}: {error}"
    return None if done.returncode == 0 else f"{' '.join(command)}\n{done.stderr[-2000:]}"


if __name__ == "__main__":
    print(build())
