"""How fast and how small is each way to run the 256M model on this CPU? All side by side in one run.

    python benchmarks/peers.py                                       every peer that is installed, five rounds
    python benchmarks/peers.py --peers smolvlm-int8 transformers-bf16 --rounds 3

The job is that of inference.py: random weights, one 1920x1080 JPEG (13 tiles), 64 new tokens, greedy, batch 1. Every
measurement is a process of its own, the peers in turn, so that a machine whose speed drifts hits all of them. vision_s,
first_token_s, total_s and decode_tps are of the second answer in a process; peak_mb is the most memory it held; cold_s
is a process from its start to its finished answer. Prints a table of medians, then one JSON line. Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from inference import NEW_TOKENS, QUESTION, Clock, load, make_checkpoint, peak_mb, timed

COLUMNS = ("vision_s", "first_token_s", "total_s", "decode_tps", "peak_mb", "cold_s")
# name -> (runtime, dtype, the package that must be installed)
PEERS = {
    "smolvlm-bf16": ("native", "bfloat16", "smolvlm"),
    "smolvlm-int8": ("native", "int8", "smolvlm"),
    "smolvlm-int8-vision": ("native", "int8-vision", "smolvlm"),
    "smolvlm-int4": ("native", "int4", "smolvlm"),
    "smolvlm-torch-bf16": ("torch", "bfloat16", "smolvlm"),
    "transformers-bf16": ("transformers", "bfloat16", "transformers"),
    "transformers-fp32": ("transformers", "float32", "transformers"),
}


def ask_native(directory: Path, dtype: str, cold: bool) -> dict[str, float]:
    """The native runtime through the door that everyone uses."""
    import smolvlm

    vlm = smolvlm.load(directory, runtime="native", dtype=dtype)
    request: dict[str, Any] = {
        "images": [str(directory / "picture.jpg")],
        "max_new_tokens": NEW_TOKENS,
        "detail": "high",
    }
    answer = vlm.ask(QUESTION, **request)
    assert len(answer.token_ids) == NEW_TOKENS, f"{len(answer.token_ids)} tokens came, not {NEW_TOKENS}"
    if cold:
        return {}
    vision = timed(lambda: vlm.encode(images=request["images"], detail="high"))
    answer = vlm.ask(QUESTION, **request)
    return rows(vision, answer.first_token_s, answer.total_s)


def ask_torch(package: str, directory: Path, dtype: str, cold: bool, threads: int) -> dict[str, float]:
    """Our PyTorch model, or transformers, through generate()."""
    import time

    import torch

    torch.set_num_threads(threads)
    model, preprocess = load(package, directory, dtype)
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS)
    if cold:
        return {}
    with torch.inference_mode():
        inputs = preprocess()
        features = getattr(model, "model", model).get_image_features
        vision = timed(lambda: features(inputs["pixel_values"], inputs["pixel_attention_mask"]))
    start, clock = time.perf_counter(), Clock()
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS, streamer=clock)
    return rows(vision, clock.times[1] - start, clock.times[-1] - start)


def rows(vision: float, first: float, total: float) -> dict[str, float]:
    return {
        "vision_s": vision, "first_token_s": first, "total_s": total,
        "decode_tps": (NEW_TOKENS - 1) / (total - first), "peak_mb": peak_mb(),
    }  # fmt: skip


def work(name: str, directory: Path, threads: int, cold: bool) -> dict[str, float]:
    runtime, dtype, package = PEERS[name]
    if runtime == "native":
        return ask_native(directory, dtype, cold)
    return ask_torch(package, directory, dtype, cold, threads)


def child(name: str, directory: Path, threads: int, *, cold: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--work", name, "--directory", str(directory), "--threads", str(threads),
               *(["--cold"] if cold else [])]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def installed(names: list[str]) -> list[str]:
    found = []
    for name in names:
        package = PEERS[name][2]
        if importlib.util.find_spec(package):
            found.append(name)
        else:
            print(f"{name} is left out: {package} isn't installed", file=sys.stderr)
    return found


def compare(names: list[str], directory: Path, rounds: int, threads: int) -> list[dict[str, object]]:
    measured: dict[str, dict[str, list[float]]] = {name: {column: [] for column in COLUMNS} for name in names}
    for number in range(rounds):
        for name in names:
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            for column, value in child(name, directory, threads, cold=False).items():
                measured[name][column].append(value)
            measured[name]["cold_s"].append(timed(lambda: child(name, directory, threads, cold=True)))  # noqa: B023
    return [
        {"name": name, "runtime": PEERS[name][0], "dtype": PEERS[name][1]}
        | {column: round(median(values), 3) for column, values in measured[name].items()}
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.directory, options.threads, options.cold)))
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        make_checkpoint(directory)
        results = compare(installed(options.peers), directory, options.rounds, options.threads)
    print(f"| | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for row in results:
        print(f"| {row['name']} | " + " | ".join(f"{row[column]:g}" for column in COLUMNS) + " |")
    print(json.dumps({"rows": results}))


if __name__ == "__main__":
    main()
