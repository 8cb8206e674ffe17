"""Set up an environment of its own for each peer that peers.py compares with, in benchmarks/.peers.

    python benchmarks/install_peers.py                       all of them
    python benchmarks/install_peers.py openvino llama.cpp

Versions are pinned: they are part of a result. llama.cpp is compiled for this machine, which takes ten minutes and
needs cmake and a C++ compiler. torch is the version of constraints.txt.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"
TORCH = "torch==2.13.0"
# name -> rounds of pip install: torch comes first and alone, so that nothing else brings another one
PEERS = {
    "openvino": (
        [TORCH],
        [
            "openvino==2026.4.1",
            "optimum-intel==2.2.0",
            "nncf==3.4.0",
            "transformers==4.57.6",
            "pillow",
            "numpy<2.4",
            TORCH,
        ],
    ),
    "llama.cpp": (["llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors", "numpy"],),
    "onnxruntime": (["onnxruntime==1.32.0", "onnx==1.23.2", "numpy", "pillow"],),
}


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, whether it exists or not."""
    return FOLDER / name / "bin" / "python"


# What a package wants but doesn't need here, and what fits no other torch than the one it was built with
UNWANTED = {"openvino": ["torchvision"]}


def install(name: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER / name)], check=True)
    environment = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
    for packages in PEERS[name]:
        command = [str(python_of(name)), "-m", "pip", "--disable-pip-version-check", "install", "-q", *packages]
        subprocess.run(command, check=True, env=environment)
    for package in UNWANTED.get(name, ()):
        subprocess.run([str(python_of(name)), "-m", "pip", "uninstall", "-q", "-y", package], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PEERS, []], metavar="NAME", help=", ".join(PEERS))
    for name in parser.parse_args().names or PEERS:
        print(f"{name} ...", file=sys.stderr)
        install(name)


if __name__ == "__main__":
    main()
