"""How much sooner is a benchmark done? `smolvlm eval` beside VLMEvalKit driving transformers' model, the same weights.

    python benchmarks/harness_speed.py                        1,000 drawn samples of four benchmarks, three rounds
    python benchmarks/harness_speed.py --rows 20 --rounds 1   does it run?

Run it where both are installed: pip install -e a clone of VLMEvalKit, transformers and torchvision beside this package.
The bundled model in float32 on two threads, greedy, VLMEvalKit's prompts for SmolVLM2. The rival is VLMEvalKit's run.py
with its own SmolVLM2 class, but for the device, which that has fixed to CUDA. Each is a process of its own, in turns.
Seconds are those of answering: of ours from the loaded model to the last record on disk, scored; of the rival from the
first call of its model to the end of the last, so without loading. The whole command, imports included, is told beside.
Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import smolvlm

NANO = Path(smolvlm.__file__).parent / "assets" / "nano"
SETS = {"ocrbench": "OCRBench", "chartqa": "ChartQA_TEST", "docvqa": "DocVQA_VAL", "mmstar": "MMStar"}
RIVAL = "SmolVLM2-nano"
THREADS = "2"


def run_ours(data: Path, output: Path, tokens: int) -> tuple[float, dict[str, str]]:
    """Seconds of answering, and answers by task and row."""
    words = ["--tasks", ",".join(SETS), "--data", str(data), "--output", str(output), "--prompts", "smolvlm2"]
    command = [sys.executable, "-m", "smolvlm", "eval", *words, "--answer-tokens", str(tokens), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(data))
    records = [json.loads(line) for line in (output / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {f"{SETS[record['task']]} {record['key']}": record["output"].strip() for record in records}
    return json.loads((output / "summary.json").read_text())["seconds"], answers


def run_rival(data: Path, output: Path, tokens: int) -> tuple[float, dict[str, str]]:
    command = [sys.executable, __file__, "--rival", str(output), "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(data))
    seconds = output / "seconds"
    if done.returncode or not seconds.is_file():
        sys.exit(f"VLMEvalKit failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    answers = {}
    for name in SETS.values():
        (file,) = output.glob(f"{RIVAL}/*/*_{name}.tsv")
        with file.open(encoding="utf-8", newline="") as lines:
            answers |= {f"{name} {row['index']}": row["prediction"] for row in csv.DictReader(lines, delimiter="\t")}
    return float(seconds.read_text()), answers


def environment(data: Path) -> dict[str, str]:
    settings = {"LMUData": str(data), "OMP_NUM_THREADS": THREADS, "PRED_FORMAT": "tsv", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **settings}


def answer_as_rival(output: Path, tokens: int) -> None:
    """VLMEvalKit in this process."""
    import torch
    import vlmeval
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from vlmeval.config import supported_VLM
    from vlmeval.dataset import DATASET_CLASSES
    from vlmeval.vlm.smolvlm import SmolVLM2

    class OnThisDevice(SmolVLM2):  # type: ignore[misc]  # the harness has no types
        first, last = 0.0, 0.0

        def __init__(self) -> None:
            self.sampling_frames, self.resolution = 64, 512
            self.processor = AutoProcessor.from_pretrained(NANO)
            self.model = AutoModelForImageTextToText.from_pretrained(NANO, dtype=torch.float32)
            self.kwargs = {"max_new_tokens": tokens, "do_sample": False, "use_cache": True}

        def generate_inner(self, message: Any, dataset: str | None = None) -> Any:
            OnThisDevice.first = OnThisDevice.first or time.perf_counter()
            answer = super().generate_inner(message, dataset)
            OnThisDevice.last = time.perf_counter()
            return answer

    for known in DATASET_CLASSES:  # it would fetch the real files in the place of the drawn ones
        getattr(known, "DATASET_MD5", {}).clear()
    supported_VLM[RIVAL] = OnThisDevice
    torch.set_num_threads(int(THREADS))
    script = str(Path(vlmeval.__file__).parents[1] / "run.py")
    sys.argv = [script, "--data", *SETS.values(), "--model", RIVAL, "--work-dir", str(output), "--mode", "infer"]
    runpy.run_path(script, run_name="__main__")
    (output / "seconds").write_text(str(OnThisDevice.last - OnThisDevice.first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000, help="samples of all benchmarks together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of an answer")
    parser.add_argument("--rival", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rival is not None:
        answer_as_rival(options.rival, options.tokens)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    from smolvlm.evaluation.twins import draw_twin

    data, each = folder / "data", options.rows // len(SETS)
    for task in SETS:
        draw_twin(task, data, each)
    samples, rounds = each * len(SETS), []
    for number in range(options.rounds):
        found: dict[str, Any] = {}
        for name, run in (("ours", run_ours), ("rival", run_rival)):
            started, output = time.perf_counter(), folder / f"{name}-{number}"
            found[name], found[f"{name}_answers"] = run(data, output, options.tokens)
            found[f"{name}_whole"] = time.perf_counter() - started
        same = sum(answer == found["rival_answers"][row] for row, answer in found["ours_answers"].items())
        rounds.append({**{key: one for key, one in found.items() if "answers" not in key}, "same": same})
    report(samples, rounds, options)


def report(samples: int, rounds: list[dict[str, float]], options: argparse.Namespace) -> None:
    rates = {name: [samples / one[name] for one in rounds] for name in ("ours", "rival")}
    print(f"{samples} samples, {options.rounds} rounds, {THREADS} threads, at most {options.tokens} tokens an answer")
    print(f"{'':<14}{'samples/s':>10}{'from':>8}{'to':>8}{'whole command, s':>18}")
    for name, label in (("ours", "smolvlm eval"), ("rival", "VLMEvalKit")):
        rate, whole = rates[name], median(one[f"{name}_whole"] for one in rounds)
        print(f"{label:<14}{median(rate):>10.2f}{min(rate):>8.2f}{max(rate):>8.2f}{whole:>18.1f}")
    times = median(ours / rival for ours, rival in zip(rates["ours"], rates["rival"], strict=True))
    print(f"{times:.1f} times the samples/s; {min(one['same'] for one in rounds)} of {samples} answers are the same")
    versions = {name: version(name) for name in ("torch", "torchvision", "transformers", "numpy", "pillow")}
    print(json.dumps({
        "samples": samples, "tokens": options.tokens, "threads": int(THREADS), "rounds": rounds, "times": times,
        "smolvlm": smolvlm.__version__, "versions": versions, "machine": platform.platform(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
