"""What do adapters cost that are chosen per request? Eight requests that write, with none, one or four of them.

    python benchmarks/adapters.py                                 256M, native, bfloat16 and int8
    python benchmarks/adapters.py --size 500m --dtype float32 --rank 64 --rounds 9

Random weights; LoRA of rank 16 on every linear layer of both towers and the connector, also random. Eight sequences of
128 tokens, then a token for each of them at a time, a step. "four" gives each of four adapters two of the sequences;
"four apart" reads them in a forward for each adapter instead of one for all: what it would be without rows of several
adapters in a product. "merged" is another copy of the weights that holds one adapter. In one process, in turn over the
rounds; the fastest and the median of all steps, prompts and tiles, and the medians' share of the base's. Prints a
table, then one JSON line.
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
UNITS = {"decode": SEQUENCES, "prompt": LONG, "tile": 1}  # tokens, or tiles, of each that is timed
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


def decode(motor: NativeMotor, owners: Owners, apart: bool = False) -> list[float]:
    """Seconds of each step. apart: a forward for each adapter."""
    slots = [motor.open(PROMPT + STEPS) for _ in owners]
    for slot, owner in zip(slots, owners, strict=True):
        motor.forward([Span(slot, np.arange(10, 10 + PROMPT), adapter=owner)], [])
    spans = [Span(slot, np.array([7]), adapter=owner) for slot, owner in zip(slots, owners, strict=True)]
    groups = [[span for span in spans if span.adapter is one] for one in dict.fromkeys(owners)] if apart else [spans]

    def step() -> None:
        for group in groups:
            motor.forward(group, range(len(group)))

    return [timed(step) for _ in range(STEPS)]


def prefill(motor: NativeMotor, owner: LiveAdapter | None) -> list[float]:
    """Seconds of a long prompt."""
    slot, ids = motor.open(LONG), np.arange(LONG) % 1000 + 10
    return [timed(lambda: motor.forward([Span(slot, ids, adapter=owner)], [LONG - 1]))]


def look(motor: NativeMotor, owner: LiveAdapter | None) -> list[float]:
    """Seconds of a tile."""
    side = motor.config.vision_config.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    return [timed(lambda: motor.encode(pixels, owner))]


def measure(directory: Path, adapters: Sequence[Path], dtype: str, threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each job, and what an adapter takes."""
    from smolvlm.runtimes.native import NativeMotor

    motor = NativeMotor(directory, dtype, threads=threads)
    merged = NativeMotor(directory, dtype, threads=threads, adapter=adapters[0])
    live = [motor.load_adapter(one) for one in adapters]
    four = [live[at * len(live) // SEQUENCES] for at in range(SEQUENCES)]
    jobs: dict[str, Callable[[], list[float]]] = {
        "decode, base": lambda: decode(motor, [None] * SEQUENCES),
        "decode, merged": lambda: decode(merged, [None] * SEQUENCES),
        "decode, one": lambda: decode(motor, [live[0]] * SEQUENCES),
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
            seconds = job()
            found[name] += seconds if number else []  # the first round is the warm-up
    return {**found, "MB": [live[0].num_bytes / 1e6]}


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
    table = {one: speeds(rows) for one, rows in found.items()}
    print(json.dumps({"size": options.size, "rank": options.rank, "rounds": options.rounds, "speeds": table}))


def speeds(found: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """name -> fastest and median, in tokens or tiles a second."""
    done = {name: UNITS[name.split(",")[0]] for name in found if "," in name}
    return {name: (count / min(found[name]), count / median(found[name])) for name, count in done.items()}


def show(size: str, found: dict[str, dict[str, list[float]]]) -> None:
    print(f"| {size}, fastest (median) | {' | '.join(found)} |\n|---{'|---' * len(found)}|")
    columns = [speeds(rows) for rows in found.values()]
    for name in columns[0]:
        base = f"{name.split(',')[0]}, base"
        cells = [f"{own[name][0]:.4g} ({own[name][1]:.4g}), {own[name][1] / own[base][1]:.2f}x" for own in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"| MB of an adapter | {' | '.join(format(rows['MB'][0], '.3g') for rows in found.values())} |")


if __name__ == "__main__":
    main()
