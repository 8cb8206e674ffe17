"""One run of each harness, and one of ours, on the same files; what each answered, by row, and its score."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smolvlm.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWER_TOKENS = "40"
WITHOUT_VLMEVALKIT = find_spec("vlmeval") is None, "VLMEvalKit isn't installed here: pip install -e a clone of it"
WITHOUT_LMMS_EVAL = find_spec("lmms_eval") is None, "lmms-eval isn't installed here: pip install lmms-eval"

# The harness knows the sums of the real files and would fetch those in the place of ours.
VLMEVALKIT = """
import sys
from smolvlm.evaluation.harness.vlmevalkit import main
from vlmeval.dataset import DATASET_CLASSES
for found in DATASET_CLASSES:
    getattr(found, "DATASET_MD5", {}).clear()
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Run:
    """answers: task or data set -> row -> what was answered. metrics: the same -> what the run made of them."""

    answers: Mapping[str, Mapping[str, str]]
    metrics: Mapping[str, Mapping[str, Any]]


def run_ours(data: Path, output: Path, tasks: list[str], *words: str) -> Run:
    told = ["--data", str(data), "--output", str(output), "--answer-tokens", ANSWER_TOKENS, "--quiet"]
    assert main(["eval", "--tasks", ",".join(tasks), *told, *words]) == 0
    answers: dict[str, dict[str, str]] = {task: {} for task in tasks}
    for line in (output / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        answers[record["task"]][record["key"]] = record["output"].strip()
    return Run(answers, {one["task"]: one for one in json.loads((output / "summary.json").read_text())["tasks"]})


def run_vlmevalkit(data: Path, output: Path, sets: list[str], *words: str, model: str = "smolvlm") -> Run:
    told = ["--data", *sets, "--model", model, "--work-dir", str(output), "--answer-tokens", ANSWER_TOKENS]
    process([sys.executable, "-c", VLMEVALKIT, *told, "--judge", "exact_matching", *words], {"LMUData": str(data)})
    (status,) = output.glob("smolvlm*/*/status.json")
    answers = {}
    for name in sets:
        (file,) = status.parent.glob(f"*_{name}.tsv")
        with file.open(encoding="utf-8", newline="") as lines:
            answers[name] = {row["index"]: row["prediction"] for row in csv.DictReader(lines, delimiter="\t")}
    found = json.loads(status.read_text())["datasets"]
    return Run(answers, {name: found[name].get("metrics", {}) for name in sets})


def run_lmms_eval(tasks: Path, output: Path, name: str, *words: str) -> Run:
    """tasks: a folder with the task's YAML. Rows are called by their place."""
    told = ["--model", "smolvlm", "--tasks", name, "--include_path", str(tasks), "--output_path", str(output)]
    process([sys.executable, "-m", "lmms_eval", *told, "--batch_size", "16", "--log_samples", *words], {})
    (samples,) = output.rglob("*_samples_*.jsonl")
    (results,) = output.rglob("*_results.json")
    logged = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    answers = {str(sample["doc_id"]): sample["filtered_resps"] for sample in logged}
    return Run({name: answers}, json.loads(results.read_text())["results"])


def process(command: list[str], environment: Mapping[str, str]) -> None:
    paths = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]))
    settings = {"HF_HUB_OFFLINE": "1", "PRED_FORMAT": "tsv", "PYTHONPATH": paths, **environment}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
