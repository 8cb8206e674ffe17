"""Is smolvlm slower than transformers anywhere, at equal dtype, for one picture and one question on this CPU?

    python benchmarks/inference.py                        256M, float32 and bfloat16, three rounds
    python benchmarks/inference.py --dtype bfloat16 --rounds 5 --threads 4

Random weights of the 256M geometry, one 1920x1080 JPEG (13 tiles), 64 new tokens, greedy, batch 1. Every measurement is
a process of its own, the two packages in turn, so that a machine whose speed drifts hits both. Inside a process each
row is measured once after the whole job has run once. Prints a table of medians and ratios, then one JSON line.
The words of the prompt's vocabulary are nano's (the real ones can't be bundled): about as many tokens, most of them
image tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

NEW_TOKENS = 64
PREFILL_TOKENS = 873
QUESTION = "What is shown in this picture? Describe it in detail."
ROWS = {  # name -> (unit, a higher number is better)
    "import": ("s", False), "load": ("s", False), "preprocess": ("ms", False), "vision, 13 tiles": ("s", False),
    "prefill": ("tokens/s", True), "decode": ("tokens/s", True), "first token": ("s", False), "total": ("s", False),
    "cold process": ("s", False), "peak memory": ("MB", False),
}  # fmt: skip


def make_checkpoint(directory: Path, size: str = "256m") -> None:
    """Random bfloat16 weights of a released geometry, and a picture that becomes 13 tiles."""
    from smolvlm.vlm.standin import geometry, write_picture, write_standin

    write_standin(directory, geometry(size))
    write_picture(directory / "picture.jpg")


class Clock:
    """A streamer that notes when each new token arrives; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def load_ours(directory: Path, dtype: str) -> tuple[Any, Any]:
    import smolvlm

    model = smolvlm.SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=dtype)
    processor = smolvlm.SmolVLMProcessor.from_pretrained(directory)
    return model, processor


def load_theirs(directory: Path, dtype: str) -> tuple[Any, Any]:
    import torch
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    model = transformers.SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    return model, processor_of_transformers(directory, Idefics3ImageProcessorPil)


def processor_of_transformers(directory: Path, pictures: Any) -> Any:
    """pictures: its class for them, whose name and place differ between versions."""
    import transformers

    settings = json.loads((directory / "processor_config.json").read_text())
    sizes = {name: settings["image_processor"][name] for name in ("size", "max_image_size")}
    return transformers.Idefics3Processor(
        pictures(**sizes), transformers.PreTrainedTokenizerFast.from_pretrained(directory),
        image_seq_len=settings["image_seq_len"], chat_template=(directory / "chat_template.jinja").read_text(),
    )  # fmt: skip


def load(package: str, directory: Path, dtype: str) -> tuple[Any, Any]:
    """The model, and a function that makes its inputs from the picture's file."""
    model, processor = (load_ours if package == "smolvlm" else load_theirs)(directory, dtype)
    blocks = [{"type": "image", "path": str(directory / "picture.jpg")}, {"type": "text", "text": QUESTION}]

    def preprocess() -> Any:
        return processor.apply_chat_template(
            [{"role": "user", "content": blocks}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        ).to(dtype=model.dtype)  # fmt: skip

    return model, preprocess


def measure(package: str, directory: Path, dtype: str, threads: int) -> dict[str, float]:
    """All rows but "cold process", in this process."""
    began = time.perf_counter()
    import torch

    if package == "smolvlm":
        from smolvlm import SmolVLMForConditionalGeneration, SmolVLMProcessor  # noqa: F401
    else:
        from transformers import Idefics3Processor, SmolVLMForConditionalGeneration  # type: ignore  # noqa: F401
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil  # noqa: F401
    rows = {"import": time.perf_counter() - began}
    torch.set_num_threads(threads)
    began = time.perf_counter()
    model, preprocess = load(package, directory, dtype)
    rows["load"] = time.perf_counter() - began

    with torch.inference_mode():
        answer_times(model, preprocess)
        rows["peak memory"] = peak_mb()
        rows["preprocess"] = 1000 * median(timed(preprocess) for _ in range(5))
        inputs = preprocess()
        features = getattr(model, "model", model).get_image_features
        rows["vision, 13 tiles"] = timed(lambda: features(inputs["pixel_values"], inputs["pixel_attention_mask"]))
        embeddings = model.get_input_embeddings()(torch.full((1, PREFILL_TOKENS), 7))
        prefill = min(
            timed(lambda: model(inputs_embeds=embeddings, logits_to_keep=1, use_cache=True)) for _ in range(3)
        )
        rows["prefill"] = PREFILL_TOKENS / prefill
        rows["first token"], rows["total"] = answer_times(model, preprocess)
    rows["decode"] = (NEW_TOKENS - 1) / (rows["total"] - rows["first token"])
    return rows


def answer_times(model: Any, preprocess: Any) -> tuple[float, float]:
    """Seconds to the first and to the last token of generate(), from the picture's file on."""
    start, clock = time.perf_counter(), Clock()
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS, streamer=clock)
    assert len(clock.times) == NEW_TOKENS + 1, f"{len(clock.times) - 1} tokens came, not {NEW_TOKENS}"
    return clock.times[1] - start, clock.times[-1] - start


def peak_mb() -> float:
    """Most memory this process held. getrusage would count the parent's too, from before the program started."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux only"
    return int(found[1]) / 1024


def timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def answer_once(package: str, directory: Path, dtype: str, threads: int) -> None:
    """What a cold process does: import, load, read the picture, answer."""
    import torch

    torch.set_num_threads(threads)
    model, preprocess = load(package, directory, dtype)
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS)


def child(package: str, directory: Path, dtype: str, threads: int, *, cold: bool) -> str:
    command = [sys.executable, __file__, "--package", package, "--directory", str(directory), "--dtype", dtype,
               "--threads", str(threads), *(["--cold"] if cold else [])]  # fmt: skip
    return run_alone(f"{package} {dtype}", command, threads)


def run_alone(what: str, command: list[str], threads: int) -> str:
    """The last line that a process prints; its failure ends this one, with its words."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stderr[-2000:]}")
    return (done.stdout.splitlines() or [""])[-1]


def compare(dtype: str, rounds: int, threads: int, directory: Path) -> dict[str, dict[str, list[float]]]:
    results: dict[str, dict[str, list[float]]] = {
        name: {row: [] for row in ROWS} for name in ("smolvlm", "transformers")
    }
    for _ in range(rounds):
        for package, rows in results.items():
            for name, value in json.loads(child(package, directory, dtype, threads, cold=False)).items():
                rows[name].append(value)
            rows["cold process"].append(timed(lambda: child(package, directory, dtype, threads, cold=True)))  # noqa: B023
    return results


def show(dtype: str, results: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n| {dtype} | unit | smolvlm | transformers | smolvlm is better by |\n|---|---|---|---|---|")
    for row, (unit, higher) in ROWS.items():
        ours, theirs = median(results["smolvlm"][row]), median(results["transformers"][row])
        pairs = zip(results["smolvlm"][row], results["transformers"][row], strict=True)
        ratio = median(a / b if higher else b / a for a, b in pairs)
        print(f"| {row} | {unit} | {ours:.4g} | {theirs:.4g} | {ratio:.2f}x |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", action="append", help="float32, bfloat16; may repeat")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtypes = options.dtype or ["float32", "bfloat16"]
    if options.package:
        if options.cold:
            answer_once(options.package, options.directory, dtypes[0], options.threads)
        else:
            print(json.dumps(measure(options.package, options.directory, dtypes[0], options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        make_checkpoint(directory)
        everything = {}
        for dtype in dtypes:
            everything[dtype] = compare(dtype, options.rounds, options.threads, directory)
            show(dtype, everything[dtype])
    print(json.dumps(everything))


if __name__ == "__main__":
    main()
