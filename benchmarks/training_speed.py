"""How fast and in how much memory does a model learn here, beside transformers' model in the very same loop?

    python benchmarks/training_speed.py                     256M geometry, random weights, five rounds
    python benchmarks/training_speed.py --rounds 3 --samples 4 --words 200 --frozen
    python benchmarks/training_speed.py --device cuda --samples 16 --size 500m

The job: steps of AdamW in bfloat16 autocast over float32 weights, a batch of conversations with one picture of one tile
and an answer. Ours: the trainer's own batches and loss. transformers: its model on the same samples, padded, labels on
the answers; the loop around it is the same. Every measurement is a process of its own, the two in turn; medians of
rounds, each the median of steps after two that warm up. --frozen: the vision tower isn't trained, as in the published
notebooks. tokens/s counts real tokens, image tokens included; peak_mb is of the process, on a GPU of its tensors.
Prints a table, then one JSON line. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from inference import make_checkpoint, peak_mb, run_alone

STEPS = 5
COLUMNS = ("tokens_per_s", "step_s", "peak_mb", "loss")


def samples_of(directory: Path, count: int, words: int) -> list[Any]:
    """Encoded conversations of different lengths: from a half to the whole of `words`."""
    from smolvlm.processing.processor import SmolVLMProcessor
    from smolvlm.processing.request import Look
    from smolvlm.training.data import Encoder, Place
    from smolvlm.training.data.sample import Row, make_sample

    encoder = Encoder(SmolVLMProcessor.from_pretrained(directory), look=Look(detail="low"))
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        length = words * (count + number) // (2 * count)
        answer = " ".join(random.choice(["red", "blue", "circle", "the", "left", "of", "a", "square"], length))
        content = [{"type": "image", "image": directory / "picture.jpg"}, {"type": "text", "text": "Describe it."}]
        talk = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        found.append(encoder(make_sample(Row({}, Place("made", number)), talk)))
    return found


def step_of_ours(directory: Path, samples: list[Any], frozen: bool, device: str) -> Any:
    import torch

    from smolvlm.model import SmolVLMForConditionalGeneration
    from smolvlm.training.collate import batches_of
    from smolvlm.training.data import Source
    from smolvlm.training.objectives import Trainee, loss_of
    from smolvlm.training.recipe import Recipe
    from smolvlm.training.steps import as_sample

    model = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32", device_map=device).train()
    model.model.vision_model.requires_grad_(not frozen)
    (batch,) = batches_of([as_sample(one) for one in samples], 2, 10_000, 1_000_000, pack=True)
    objective = loss_of(Trainee(model, torch.bfloat16), Recipe("speed", 1, start="none", data=(Source("none"),)))
    whole, batch = float(batch.weight.sum()), batch.to(device)

    def loss() -> torch.Tensor:
        return objective(batch, whole, 0.0)

    return model, loss


def step_of_theirs(directory: Path, samples: list[Any], frozen: bool, device: str) -> Any:
    import torch
    import transformers

    model = transformers.SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    model = model.to(device).train()
    model.model.vision_model.requires_grad_(not frozen)
    longest = max(one.tokens for one in samples)
    ids = torch.full((len(samples), longest), 2)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, one in enumerate(samples):
        ids[row, : one.tokens], mask[row, : one.tokens] = torch.from_numpy(one.ids), 1
        labels[row, : one.tokens][torch.from_numpy(one.learned)] = ids[row, : one.tokens][torch.from_numpy(one.learned)]
    tiles = torch.from_numpy(np.stack([one.tiles for one in samples]))  # (samples, tiles, side, side, 3)
    pixels = tiles.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}
    batch = {name: one.to(device) for name, one in batch.items()}

    def loss() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return model(**batch, use_cache=False).loss  # type: ignore[no-any-return]

    return model, loss


def measure(package: str, directory: Path, options: argparse.Namespace) -> dict[str, float]:
    import torch

    from smolvlm.model import cuda

    torch.manual_seed(0)
    samples = samples_of(directory, options.samples, options.words)
    step_of = step_of_ours if package == "smolvlm" else step_of_theirs
    model, loss = step_of(directory, samples, options.frozen, options.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    seconds, last = [], 0.0
    for _ in range(STEPS):
        start = time.perf_counter()
        part = loss()
        part.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        last = float(part.detach())
        if options.device == "cuda":
            cuda.wait(part.device)
        seconds.append(time.perf_counter() - start)
    step = median(seconds[2:])
    peak = cuda.peak_memory(part.device) / 1e6 if options.device == "cuda" else peak_mb()
    return {"tokens_per_s": sum(one.tokens for one in samples) / step, "step_s": step, "peak_mb": peak,
            "loss": last}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--words", type=int, default=200, help="of the longest answer")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default="256m", choices=("256m", "500m", "2.2b"))
    parser.add_argument("--package", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.package:
        print(json.dumps(measure(options.package, options.directory, options)))
        return
    found: dict[str, list[dict[str, float]]] = {"smolvlm": [], "transformers": []}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), options.size)
        for number in range(options.rounds):
            for package, rounds in found.items():
                print(f"round {number + 1} of {options.rounds}: {package}", file=sys.stderr)
                command = [sys.executable, __file__, "--package", package, "--directory", folder, "--samples",
                           str(options.samples), "--words", str(options.words), "--device", options.device]  # fmt: skip
                printed = run_alone(package, command + ["--frozen"] * options.frozen, options.threads)
                rounds.append(json.loads(printed))
    medians = {name: {key: median(one[key] for one in rounds) for key in COLUMNS} for name, rounds in found.items()}
    print("| | " + " | ".join(COLUMNS) + " |\n|---" + "|---" * len(COLUMNS) + "|")
    for name, row in medians.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.4g}" for key in COLUMNS) + " |")
    ours, theirs = medians.values()
    print(
        f"\ntokens/s {ours['tokens_per_s'] / theirs['tokens_per_s']:.2f} x, "
        f"memory {ours['peak_mb'] / theirs['peak_mb']:.2f} x"
    )
    named = {name: value for name, value in vars(options).items() if name not in ("package", "directory")}
    print(json.dumps({"rows": medians, **named}))


if __name__ == "__main__":
    main()
