"""How much sooner is a benchmark done? `smolvlm eval` beside VLMEvalKit driving transformers' model, the same weights.

    python benchmarks/harness_speed.py                        1,000 drawn samples of four benchmarks, three rounds
    python benchmarks/harness_speed.py --rows 20 --rounds 1   does it run?

Run it where both are installed: pip install -e a clone of VLMEvalKit, transformers and torchvision beside this
package. The bundled model in float32 (unless said) on two threads or in two processes, greedy, VLMEvalKit's prompts
for SmolVLM2. The rival is VLMEvalKit's run.py with its own SmolVLM2 class, but for the device, which that has fixed
to CUDA. Each is a process of its own, in turns. Samples/s are those of answering: of ours from the loaded model to
the last record on disk, scored; of the rival from the first call of its model to the end of the last, so without
loading. The whole command, imports included, is told beside, and how many answers are the rival's. Prints a table,
then one JSON line.
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
HARNESS = "VLMEvalKit, transformers"
THREADS = "2"
OURS = {
    "smolvlm eval": [],
    "in two processes": ["--jobs", "2"],
    "and in bfloat16": ["--jobs", "2", "--dtype", "bfloat16"],
}


def run_ours(data: Path, output: Path, tokens: int, options: list[str]) -> tuple[float, dict[str, str]]:
    """Seconds of answering, and answers by task and row."""
    words = ["--tasks", ",".join(SETS), "--data", str(data), "--output", str(output), "--prompts", "smolvlm2"]
    command = [sys.executable, "-m", "smolvlm", "eval", *words, "--answer-tokens", str(tokens), "--quiet", *options]
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
    samples = each * len(SETS)
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        measured: dict[str, dict[str, float]] = {}
        answers: dict[str, dict[str, str]] = {}
        for label in (*OURS, HARNESS):
            started, output = time.perf_counter(), folder / f"{label}-{number}"
            if label == HARNESS:
                seconds, answers[label] = run_rival(data, output, options.tokens)
            else:
                seconds, answers[label] = run_ours(data, output, options.tokens, OURS[label])
            measured[label] = {"samples_per_s": samples / seconds, "whole_s": time.perf_counter() - started}
            print(f"round {number + 1}: {label} {samples / seconds:.1f} samples/s", file=sys.stderr)
        for label, found in answers.items():
            measured[label]["same"] = sum(answer == answers[HARNESS][row] for row, answer in found.items())
        rounds.append(measured)
    report(samples, rounds, options)


def report(samples: int, rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    print(f"{samples} samples, {options.rounds} rounds, {THREADS} threads, at most {options.tokens} tokens an answer\n")
    print("| | samples/s | times | whole command, s | same answers |\n|---|---|---|---|---|")
    for label in (*OURS, HARNESS):
        found = [one[label] for one in rounds]
        times = median(one[label]["samples_per_s"] / one[HARNESS]["samples_per_s"] for one in rounds)
        rate, whole = (median(one[key] for one in found) for key in ("samples_per_s", "whole_s"))
        same = min(int(one["same"]) for one in found)
        print(f"| {label} | {rate:.1f} | {times:.2f} | {whole:.0f} | {same} |")
    versions = {name: version(name) for name in ("torch", "torchvision", "transformers", "numpy", "pillow")}
    print(json.dumps({
        "samples": samples, "tokens": options.tokens, "threads": int(THREADS), "rounds": rounds,
        "smolvlm": smolvlm.__version__, "versions": versions, "machine": platform.platform(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
