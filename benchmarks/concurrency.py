"""What do many requests at a time gain, and how soon does the second question about a picture begin to be answered?

    python benchmarks/concurrency.py                                      256M, native bfloat16
    python benchmarks/concurrency.py --size 500m --dtype int8 int4 --requests 16 --rounds 3

Random weights, greedy, 64 new tokens. Requests: one picture of one tile each, all different, asked one after another by
one thread and then all at once by a thread each. Second question: one 1920x1080 picture (13 tiles) that wasn't seen
before, then another question about it. Each dtype is a process of its own, in turn over the rounds; medians. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

from inference import NEW_TOKENS, QUESTION, make_checkpoint, peak_mb, run_alone, timed

SECOND = "What colours are in it?"
COLUMNS = {  # name -> what it is
    "alone_tps": "new tokens/s, one request after another", "together_tps": "new tokens/s, all at once",
    "alone_first_s": "seconds to the first token, alone", "together_first_s": "the same, median of all at once",
    "together_last_s": "seconds until all at once are answered", "first_question_s": "first token, new picture",
    "second_question_s": "first token, second question about it", "peak_mb": "most memory, MB",
}  # fmt: skip


def measure(directory: Path, runtime: str, dtype: str, requests: int) -> dict[str, float]:
    import smolvlm
    from smolvlm.vlm.standin import write_picture

    vlm = smolvlm.load(directory, runtime=runtime, dtype=dtype, device="cpu" if runtime == "torch" else None)
    with tempfile.TemporaryDirectory() as folder:
        small = [write_picture(Path(folder, f"{seed}.jpg"), 512, 512, seed=seed) for seed in range(2 * requests + 1)]
        large = write_picture(Path(folder, "large.jpg"), seed=len(small))

        def ask(picture: Path, question: str = QUESTION, tokens: int = NEW_TOKENS) -> Any:
            return vlm.ask(question, images=[picture], detail="high" if picture is large else "low",
                           max_new_tokens=tokens)  # fmt: skip

        ask(small.pop(), tokens=2)
        alone: list[Any] = []
        alone_s = timed(lambda: alone.extend(ask(picture) for picture in small[:requests]))
        together: list[Any] = []
        threads = [
            threading.Thread(target=lambda one=picture: together.append(ask(one))) for picture in small[requests:]
        ]
        together_s = timed(lambda: run_all(threads))
        first, second = ask(large, tokens=2), ask(large, SECOND, tokens=2)
    assert len(together) == requests, "a request failed"
    return {
        "alone_tps": requests * NEW_TOKENS / alone_s, "together_tps": requests * NEW_TOKENS / together_s,
        "alone_first_s": median(answer.first_token_s for answer in alone),
        "together_first_s": median(answer.first_token_s for answer in together), "together_last_s": together_s,
        "first_question_s": first.first_token_s, "second_question_s": second.first_token_s, "peak_mb": peak_mb(),
    }  # fmt: skip


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def child(directory: Path, runtime: str, dtype: str, requests: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--directory", str(directory), "--runtime", runtime, "--dtype", dtype,
               "--requests", str(requests)]  # fmt: skip
    return dict(json.loads(run_alone(f"{runtime} {dtype}", command, threads)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("256m", "500m", "2.2b"), default="256m")
    parser.add_argument("--runtime", choices=("native", "torch", "onnx"), default="native")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"])
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.directory:
        print(json.dumps(measure(options.directory, options.runtime, options.dtype[0], options.requests)))
        return
    found: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in options.dtype}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), options.size)
        for number in range(options.rounds):
            for dtype, rounds in found.items():
                print(f"round {number + 1} of {options.rounds}: {dtype}", file=sys.stderr)
                rounds.append(child(Path(folder), options.runtime, dtype, options.requests, options.threads))
    rows = [
        {"size": options.size, "runtime": options.runtime, "dtype": dtype, "requests": options.requests}
        | {name: round(median(one[name] for one in rounds), 4) for name in COLUMNS}
        for dtype, rounds in found.items()
    ]
    print(f"| {options.size}, {options.requests} requests | {' | '.join(found)} |\n|---{'|---' * len(found)}|")
    for name, what in COLUMNS.items():
        print(f"| {what} | " + " | ".join(f"{row[name]:g}" for row in rows) + " |")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
