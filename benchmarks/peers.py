"""How fast and how small is each way to run a model of the family on this CPU? All side by side in one run.

    python benchmarks/peers.py                                       256M, every peer that is installed, five rounds
    python benchmarks/peers.py --size 500m --peers smolvlm-int8 transformers-bf16 --rounds 3

The job: random weights of a released geometry, one 1920x1080 JPEG (13 tiles), 64 new tokens, greedy, batch 1; about 900
tokens of prompt (2.2B: 1,100). Every measurement is a process of its own, the peers in turn, so that a machine whose
speed drifts hits all of them. vision_s, first_token_s, total_s and decode_tps are of the second answer in a process,
and nothing is remembered of the first; peak_mb is the most memory it held; cold_s is a process from its start to its
finished answer. limit_share, of our own rows: the least seconds that looking takes at the rate at which this machine
multiplies (just measured: the better of our kernels and torch), of those it took. Prints a table of medians, then one
JSON line. Linux only.

transformers is the one of this environment. Others have environments of their own, which install_peers.py sets up; how
each is driven stands in peers_*.py. What they read is made once, before the first round: it isn't part of any time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from inference import make_checkpoint, run_alone, timed
from install_peers import python_of

COLUMNS = ("vision_s", "first_token_s", "total_s", "decode_tps", "peak_mb", "cold_s", "limit_share")
HERE = Path(__file__).parent
OWN = Path(sys.executable)


@dataclass(frozen=True)
class Peer:
    """runtime, dtype: as they are shown. told: the dtype in the driver's words. environment: of install_peers.py."""

    runtime: str
    dtype: str
    driver: str
    told: str
    environment: str | None = None
    package: str = "smolvlm"

    @property
    def python(self) -> Path:
        return python_of(self.environment) if self.environment else OWN

    @property
    def preparing(self) -> Path:
        """The interpreter that makes what the peer reads: bare graphs come from our export."""
        return OWN if self.runtime == "onnxruntime" else self.python

    def missing(self) -> str | None:
        if self.environment is None and importlib.util.find_spec(self.package) is None:
            return f"{self.package} isn't installed"
        if self.environment is not None and not self.python.exists():
            return f"install it with: python benchmarks/install_peers.py {self.environment}"
        return None


def _own(dtype: str, runtime: str = "native", package: str = "smolvlm") -> Peer:
    told = dtype if runtime == "native" else f"{runtime}:{dtype}"
    return Peer(runtime, dtype, "peers_smolvlm.py", told, package=package)


def _transformers(told: str) -> Peer:
    return Peer("transformers", told.rpartition(":")[2], "peers_transformers.py", told, package="transformers")


def _other(name: str, driver: str, dtype: str) -> Peer:
    return Peer(name, dtype, driver, dtype, environment=name)


PEERS = {
    "smolvlm-bf16": _own("bfloat16"),
    "smolvlm-int8": _own("int8"),
    "smolvlm-int8-vision": _own("int8-vision"),
    "smolvlm-int4": _own("int4"),
    "smolvlm-torch-bf16": _own("bfloat16", "torch"),
    "smolvlm-onnx-q8": _own("int8", "onnx", "onnxruntime"),
    "transformers-fp32": _transformers("float32"),
    "transformers-bf16": _transformers("bfloat16"),
    "transformers-bf16-static": _transformers("static:bfloat16"),
    "openvino-int8": _other("openvino", "peers_openvino.py", "int8"),
    "openvino-int4": _other("openvino", "peers_openvino.py", "int4"),
    "llama.cpp-q8_0": _other("llama.cpp", "peers_llama.py", "q8_0"),
    "llama.cpp-q4_0": _other("llama.cpp", "peers_llama.py", "q4_0"),
    "onnxruntime-q8": _other("onnxruntime", "peers_onnxruntime.py", "q8"),
    "onnxruntime-q4": _other("onnxruntime", "peers_onnxruntime.py", "q4"),
}


def call(name: str, directory: Path, threads: int, *, prepare: bool = False, cold: bool = False) -> dict[str, float]:
    """One process of a peer's driver. What it measured, {} when it prepares or answers once."""
    peer = PEERS[name]
    python = peer.preparing if prepare else peer.python
    more = ["--prepare"] if prepare else ["--cold"] if cold else []
    command = [str(python), str(HERE / peer.driver), str(directory), peer.told, "--threads", str(threads), *more]
    printed = run_alone(name, command, threads)
    return {} if prepare or cold else dict(json.loads(printed))


def installed(names: list[str]) -> list[str]:
    found = []
    for name in names:
        missing = PEERS[name].missing()
        if missing is None:
            found.append(name)
        else:
            print(f"{name} is left out: {missing}", file=sys.stderr)
    return found


def compare(names: list[str], directory: Path, rounds: int, threads: int) -> list[dict[str, object]]:
    for name in names:
        print(f"preparing {name}", file=sys.stderr)
        call(name, directory, threads, prepare=True)
    measured: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in names}
    for number in range(rounds):
        for name in names:
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            for column, value in call(name, directory, threads).items():
                measured[name][column].append(value)
            measured[name]["cold_s"].append(timed(lambda: call(name, directory, threads, cold=True)))  # noqa: B023
    return [
        {"name": name, "runtime": PEERS[name].runtime, "dtype": PEERS[name].dtype}
        | {column: round(median(measured[name][column]), 3) for column in COLUMNS if column in measured[name]}
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("256m", "500m", "2.2b"), default="256m")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="keep the checkpoint and what peers read here, for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = options.directory / options.size if options.directory else Path(folder)
        if not (directory / "picture.jpg").exists():
            make_checkpoint(directory, options.size)
        results = compare(installed(options.peers), directory.resolve(), options.rounds, options.threads)
    print(f"| | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for row in results:
        print(
            f"| {row['name']} | "
            + " | ".join(f"{row.get(column, ''):{'g' if column in row else ''}}" for column in COLUMNS)
            + " |"
        )
    print(json.dumps({"rows": results}))


if __name__ == "__main__":
    main()
