"""How fast is the family on this GPU, and what share of its limits is that?

    python benchmarks/gpu.py                          256M, 500M and 2.2B
    python benchmarks/gpu.py --sizes 256m --batches 1 8 64 --peer

Random bfloat16 weights. decode: tokens/s of all sequences together at 900 tokens of context, recorded steps; the share
is of the memory rate measured in the same run (weights and filled cache once a step). vision: 13 tiles at once;
prefill: 1,100 tokens; their share is of the rate of one large bf16 product. memory: most bytes that tensors took for
one and for two pictures with 64 new tokens. With --peer transformers' generate() is timed beside it, batch 1. Prints a
table, then one JSON line. --device cpu runs the same code without a GPU, on a tiny model: a test of this script.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration, cuda
from smolvlm.runtimes.motor import Slot, Span
from smolvlm.runtimes.torch import TorchMotor
from smolvlm.vlm import standin

CONTEXT, NEW_TOKENS, PREFILL, TILES, RUNS = 900, 64, 1100, 13, 5
IMAGE_TOKEN = 49190  # as released
GIGA, TERA = 1e9, 1e12
SIZES = ("256m", "500m", "2.2b")


def geometry(size: str) -> SmolVLMConfig:
    """The released geometries, and a tiny one."""
    if size != "tiny":
        return SmolVLMConfig.from_dict({**standin.geometry(size).to_dict(), "image_token_id": IMAGE_TOKEN})
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1,
              "image_size": 128, "patch_size": 16}  # fmt: skip
    shape = dict(zip(standin.SHAPE, (64, 128, 2, 1, 1), strict=True))
    text = {**standin.TEXT, **shape}
    return SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=4, image_token_id=IMAGE_TOKEN)


class Bench:
    """One model on one device."""

    def __init__(self, size: str, device: str) -> None:
        self.device = torch.device(device)
        torch.manual_seed(0)
        with self.device:
            model = SmolVLMForConditionalGeneration(geometry(size)).to(torch.bfloat16).eval()
        self.model, self.config, self.motor = model, model.config, TorchMotor(model)

    def seconds(self, work: Callable[[], object]) -> float:
        """Median of RUNS, after one run that isn't counted."""
        times = []
        for _ in range(RUNS + 1):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return median(times[1:])

    def wait(self) -> None:
        if self.device.type == "cuda":
            cuda.wait(self.device)

    def memory_rate(self) -> float:
        """Bytes/s of a copy: read and written."""
        one = torch.empty(2**28 if self.device.type == "cuda" else 2**24, dtype=torch.float32, device=self.device)
        two = torch.empty_like(one)
        return 2 * one.nbytes / self.seconds(lambda: two.copy_(one))

    def product_rate(self) -> float:
        """Flop/s of a large bf16 product."""
        side = 8192 if self.device.type == "cuda" else 512
        one = torch.randn(side, side, device=self.device, dtype=torch.bfloat16)
        return 2 * side**3 / self.seconds(lambda: one @ one)

    def pixels(self, tiles: int) -> np.ndarray:
        side = self.config.vision_config.image_size
        return np.random.default_rng(0).standard_normal((tiles, 3, side, side), np.float32)

    def vision(self) -> tuple[float, float]:
        """Seconds for TILES tiles, and flop/s."""
        pixels = torch.from_numpy(self.pixels(TILES))[None].to(self.device)
        with torch.inference_mode():
            took = self.seconds(lambda: self.model.model.get_image_features(pixels))
        vision = self.config.vision_config
        patches, hidden = vision.patches_per_side**2, vision.hidden_size
        layer = 4 * hidden**2 + 2 * hidden * vision.intermediate_size + 2 * patches * hidden  # products a patch
        return took, 2 * TILES * patches * layer * vision.num_hidden_layers / took

    def prefill(self) -> tuple[float, float]:
        """Tokens/s and flop/s of a prompt."""

        def read() -> None:
            self.motor.forward([Span(self.motor.open(PREFILL + NEW_TOKENS), np.full(PREFILL, 5))], [PREFILL - 1])

        took = self.seconds(read)
        flop = 2 * self.text_weights() * PREFILL + 2 * PREFILL**2 * self.config.text_config.hidden_size * len(
            self.model.model.text_model.layers
        )
        return PREFILL / took, flop / took

    def text_weights(self) -> int:
        """Parameters of the layers: what a token is multiplied with, without the head."""
        return sum(parameter.numel() for parameter in self.model.model.text_model.layers.parameters())

    def decode(self, batch: int) -> tuple[float, float]:
        """Tokens/s of all sequences together, and bytes/s of weights and cache."""
        slots = [self.motor.open(CONTEXT + NEW_TOKENS) for _ in range(batch)]
        for slot in slots:
            self.motor.forward([Span(slot, np.full(CONTEXT, 5))], [CONTEXT - 1])

        def write() -> None:
            for slot in slots:
                slot.length = CONTEXT
            for _ in range(NEW_TOKENS):
                self.motor.forward([Span(slot, np.array([7])) for slot in slots], range(batch))

        step = self.seconds(write) / NEW_TOKENS
        text = self.config.text_config
        weights = 2 * (self.text_weights() + text.vocab_size * text.hidden_size)
        cache = batch * CONTEXT * 4 * text.num_hidden_layers * text.kv_heads * text.head_size
        return batch / step, (weights + cache) / step

    def memory(self, pictures: int) -> float:
        """Most bytes for so many pictures of TILES tiles, in GB; 0.0 without a GPU."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            cuda.forget_peak(self.device)
        features = self.motor.encode(self.pixels(TILES * pictures))
        rows = features.reshape(-1, features.shape[-1])
        ids = np.full(len(rows) + 60, 5)
        ids[: len(rows)] = self.config.image_token_id
        slot: Slot = self.motor.open(len(ids) + NEW_TOKENS)
        self.motor.forward([Span(slot, ids, rows)], [len(ids) - 1])
        for _ in range(NEW_TOKENS - 1):
            self.motor.forward([Span(slot, np.array([7]))], [0])
        return cuda.peak_memory(self.device) / GIGA if on_gpu else 0.0


def rows_of(size: str, device: str, batches: list[int]) -> dict[str, Any]:
    bench = Bench(size, device)
    memory = {f"memory of {count} pictures, GB": round(bench.memory(count), 2) for count in (1, 2)}
    memory_rate, product_rate = bench.memory_rate(), bench.product_rate()
    vision_s, vision_rate = bench.vision()
    prefill, prefill_rate = bench.prefill()
    found: dict[str, Any] = {
        "size": size, "memory rate, GB/s": round(memory_rate / GIGA),
        "bf16 rate, TFLOP/s": round(product_rate / TERA, 2),
        "vision, ms": round(1e3 * vision_s, 2), "vision, share": round(vision_rate / product_rate, 3),
        "prefill, tokens/s": round(prefill), "prefill, share": round(prefill_rate / product_rate, 3), **memory,
    }  # fmt: skip
    for batch in batches:
        rate, num_bytes = bench.decode(batch)
        found |= {f"decode {batch}, tokens/s": round(rate), f"decode {batch}, share": round(num_bytes / memory_rate, 3)}
    return found


def peer(size: str, device: str) -> dict[str, Any]:
    """transformers' generate(), batch 1: vision, then decode at the same context."""
    import transformers

    values = geometry(size).to_dict()
    config = transformers.SmolVLMConfig(**{key: value for key, value in values.items() if key != "model_type"})
    with torch.device(device):
        model = transformers.SmolVLMForConditionalGeneration(config).to(torch.bfloat16).eval()
    ids = torch.full((1, CONTEXT), 5, device=device)
    asked = {"input_ids": ids, "do_sample": False, "eos_token_id": None, "pad_token_id": 2}

    def took(new: int) -> float:
        start = time.perf_counter()
        model.generate(**asked, min_new_tokens=new, max_new_tokens=new)
        return time.perf_counter() - start

    took(4)
    pairs = [(took(1), took(1 + NEW_TOKENS)) for _ in range(RUNS)]
    return {"size": f"{size}, transformers", "decode 1, tokens/s": round(NEW_TOKENS / median(b - a for a, b in pairs))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=["256m", "500m", "2.2b"], choices=("256m", "500m", "2.2b", "tiny")
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not cuda.is_here():
        sys.exit("There is no NVIDIA GPU here that PyTorch can use; --device cpu --sizes tiny tests the script.")
    found = []
    for size in options.sizes:
        found.append(rows_of(size, options.device, options.batches))
        if options.peer:
            found.append(peer(size, options.device))
    columns = list(dict.fromkeys(key for row in found for key in row))
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    print(json.dumps({"device": cuda.name() if options.device == "cuda" else "cpu", "rows": found}))


if __name__ == "__main__":
    main()
