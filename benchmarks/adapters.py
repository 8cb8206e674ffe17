"""What do adapters cost that are chosen per request? Eight requests that write, with none, one or four of them.

    python benchmarks/adapters.py                                 256M, native, bfloat16 and int8
    python benchmarks/adapters.py --size 500m --dtype float32 --rank 64 --rounds 9

Random weights; LoRA of rank 16 on every linear layer of both towers and the connector, also random. Eight sequences of
128 tokens, then a token for each of them at a time. "four" gives each of four adapters two of the sequences, "apart"
reads them in a forward for each adapter instead of one for all: what it would be without rows of several adapters in a
product. "merged" is another copy of the weights that holds one adapter. In one process, in turn over the rounds;
medians, and the fastest and the slowest round. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from inference import make_checkpoint, timed

from smolvlm import LoraConfig
from smolvlm.checkpoint import OutgoingTensor, write_json
from smolvlm.checkpoint.adapters import CONFIG_NAME, WEIGHTS_NAME, adapter_shapes
from smolvlm.checkpoint.lora import find_targets
from smolvlm.checkpoint.shapes import expected_shapes
from smolvlm.checkpoint.writer import write_file
from smolvlm.config import SmolVLMConfig
from smolvlm.runtimes.motor import Span

if TYPE_CHECKING:
    from smolvlm.runtimes.motor import LiveAdapter
    from smolvlm.runtimes.native import NativeMotor

SEQUENCES, PROMPT, STEPS = 8, 128, 32
LONG = 1024  # tokens of the prompt that is read at once
Owners = Sequence["LiveAdapter | None"]


def write_adapter(directory: Path, config: SmolVLMConfig, rank: int, seed: int) -> Path:
    """Random LoRA, in PEFT's layout."""
    settings, shapes = LoraConfig(r=rank, lora_alpha=rank), expected_shapes(config)
    rng = np.random.default_rng(seed)
    tensors = {
        name: OutgoingTensor("F32", shape, lambda shape=shape: 0.01 * rng.standard_normal(shape, np.float32))
        for name, shape in adapter_shapes(settings, find_targets(settings, shapes), shapes).items()
    }
    directory.mkdir()
    write_file(directory / WEIGHTS_NAME, tensors)
    write_json(directory / CONFIG_NAME, settings.to_json(find_targets(settings, shapes).adapted, ()))
    return directory


def decode(motor: NativeMotor, owners: Owners, apart: bool = False) -> float:
    """New tokens a second. apart: a forward for each adapter."""
    slots = [motor.open(PROMPT + STEPS) for _ in owners]
    for slot, owner in zip(slots, owners, strict=True):
        motor.forward([Span(slot, np.arange(10, 10 + PROMPT), adapter=owner)], [])
    spans = [Span(slot, np.array([7]), adapter=owner) for slot, owner in zip(slots, owners, strict=True)]
    groups = [[span for span in spans if span.adapter is one] for one in dict.fromkeys(owners)] if apart else [spans]

    def write() -> None:
        for _ in range(STEPS):
            for group in groups:
                motor.forward(group, range(len(group)))

    return len(owners) * STEPS / timed(write)


def prefill(motor: NativeMotor, owner: LiveAdapter | None) -> float:
    """Tokens a second of a long prompt."""
    slot = motor.open(LONG)
    return LONG / timed(lambda: motor.forward([Span(slot, np.arange(LONG) % 1000 + 10, adapter=owner)], [LONG - 1]))


def look(motor: NativeMotor, owner: LiveAdapter | None) -> float:
    """Seconds for a tile."""
    side = motor.config.vision_config.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    return timed(lambda: motor.encode(pixels, owner))


def measure(directory: Path, adapters: Sequence[Path], dtype: str, threads: int, rounds: int) -> dict[str, list[float]]:
    from smolvlm.runtimes.native import NativeMotor

    motor = NativeMotor(directory, dtype, threads=threads)
    merged = NativeMotor(directory, dtype, threads=threads, adapter=adapters[0])
    live = [motor.load_adapter(one) for one in adapters]
    one, four = [live[0]] * SEQUENCES, [live[at * len(live) // SEQUENCES] for at in range(SEQUENCES)]
    jobs: dict[str, Callable[[], float]] = {
        "decode, base": lambda: decode(motor, [None] * SEQUENCES),
        "decode, merged": lambda: decode(merged, [None] * SEQUENCES),
        "decode, one": lambda: decode(motor, one),
        "decode, four": lambda: decode(motor, four),
        "decode, four apart": lambda: decode(motor, four, apart=True),
        "prompt, base": lambda: prefill(motor, None),
        "prompt, one": lambda: prefill(motor, live[0]),
        "tile, base": lambda: look(motor, None),
        "tile, one": lambda: look(motor, live[0]),
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            if number:
                found[name].append(job())
            else:
                job()  # warm-up
    found["MB of an adapter"] = [live[0].num_bytes / 1e6]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("256m", "500m", "2.2b"), default="256m")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "int8"])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "model")
        directory.mkdir()
        make_checkpoint(directory, options.size)
        config = SmolVLMConfig.from_file(directory / "config.json")
        adapters = [write_adapter(Path(folder, str(seed)), config, options.rank, seed) for seed in range(4)]
        found = {one: measure(directory, adapters, one, options.threads, options.rounds) for one in options.dtype}
    show(options.size, found)
    print(json.dumps({"size": options.size, "rank": options.rank, "rounds": found}))


def show(size: str, found: dict[str, dict[str, list[float]]]) -> None:
    print(f"| {size} | {' | '.join(found)} |\n|---{'|---' * len(found)}|")
    for name in next(iter(found.values())):
        cells = []
        for rows in found.values():
            values, base = rows[name], rows.get(f"{name.split(',')[0]}, base", [1.0])
            share = f", {median(values) / median(base):.2f}x base" if "," in name else ""
            cells.append(f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g}){share}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
