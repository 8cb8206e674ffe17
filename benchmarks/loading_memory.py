"""How much anonymous memory, and how long, does loading a checkpoint take?

Anonymous memory is what the machine can't take back; pages of the mapped file it can. Linux only.

    python benchmarks/loading_memory.py                       a random 500M checkpoint in bfloat16, every dtype
    python benchmarks/loading_memory.py --rival               the same, with transformers in the same run
    python benchmarks/loading_memory.py DIRECTORY --dtype float32    one load in this process, one JSON line
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from smolvlm.checkpoint import write_json
from smolvlm.config import SmolVLMConfig
from smolvlm.vlm.standin import geometry, write_weights

GEOMETRY_500M = geometry("500m").to_dict()


def write_random_checkpoint(directory: Path, config: dict[str, object]) -> None:
    """config.json and bfloat16 weights of this geometry."""
    write_weights(directory, SmolVLMConfig.from_dict(config))
    write_json(directory / "config.json", {**config, "dtype": "bfloat16"})


def anonymous_bytes() -> int:
    """RssAnon of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("RssAnon isn't reported here; this measurement needs Linux")


def measure(directory: Path, dtype: str, library: str, peak_too: bool) -> dict[str, object]:
    """Load once in this process. growth: anonymous bytes after the load less before, over the bytes of the weights.

    peak_too: look after every tensor, which costs time.
    """
    peak = 0
    options: dict[str, object] = {"dtype": dtype}
    if library == "smolvlm":
        from smolvlm.model import SmolVLMForConditionalGeneration as Model

        def watch(done: int, total: int) -> None:
            nonlocal peak
            peak = max(peak, anonymous_bytes())

        if peak_too:
            options["progress"] = watch
    else:
        from transformers import SmolVLMForConditionalGeneration as Model
    before, started = anonymous_bytes(), time.perf_counter()
    model = Model.from_pretrained(directory, **options)
    seconds, after = time.perf_counter() - started, anonymous_bytes()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "library": library,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights_mb": round(weights / 1e6, 1),
        "growth": round((after - before) / weights, 3),
        "peak_growth": round((max(peak, after) - before) / weights, 3),
        "seconds": round(seconds, 2),
    }


def compare(rival: bool, runs: int) -> list[dict[str, object]]:
    """Every library and dtype, each load in its own process, rounds interleaved; the median of each number."""
    libraries = ("smolvlm", "transformers") if rival else ("smolvlm",)
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        write_random_checkpoint(Path(directory), GEOMETRY_500M)
        for _ in range(runs):
            for dtype in ("bfloat16", "float16", "float32"):
                for library in libraries:
                    command = [sys.executable, __file__, directory, "--dtype", dtype, "--library", library]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    results.setdefault((library, dtype), []).append(json.loads(done.stdout))
    return [
        {
            "library": library,
            "dtype": dtype,
            **{key: median(line[key] for line in lines) for key in ("weights_mb", "growth", "seconds")},
            "seconds_range": [min(line["seconds"] for line in lines), max(line["seconds"] for line in lines)],
        }
        for (library, dtype), lines in results.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--library", dest="package", default="smolvlm", choices=("smolvlm", "transformers"))
    parser.add_argument("--peak", action="store_true")
    parser.add_argument("--rival", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.directory is not None:
        print(json.dumps(measure(arguments.directory, arguments.dtype, arguments.package, arguments.peak)))
        return
    rows = compare(arguments.rival, arguments.runs)
    print("| library | dtype | weights, MB | anonymous growth / weights | seconds, median (range) |")
    print("|---|---|---|---|---|")
    for row in rows:
        low, high = row["seconds_range"]  # type: ignore[misc]
        print(
            f"| {row['library']} | {row['dtype']} | {row['weights_mb']} | {row['growth']} "
            f"| {row['seconds']} ({low} - {high}) |"
        )
    print(json.dumps({"question": "loading_memory", "geometry": "500M", "stored": "bfloat16", "rows": rows}))


if __name__ == "__main__":
    main()
