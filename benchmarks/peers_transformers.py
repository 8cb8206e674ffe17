"""The rows of transformers in peers.py, through generate(). It shares our environment, as the tests' oracle does."""

from __future__ import annotations

import time
from pathlib import Path

from inference import Clock, load
from peer import NEW_TOKENS, drive, row, timed


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    model, preprocess = load("transformers", directory, dtype)
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS)
    if cold:
        return {}
    with torch.inference_mode():
        inputs = preprocess()
        pixels, mask = inputs["pixel_values"], inputs["pixel_attention_mask"]
        vision = timed(lambda: model.model.get_image_features(pixels, mask))
    start, clock = time.perf_counter(), Clock()
    model.generate(**preprocess(), do_sample=False, max_new_tokens=NEW_TOKENS, streamer=clock)
    assert len(clock.times) == NEW_TOKENS + 1, f"{len(clock.times) - 1} tokens came, not {NEW_TOKENS}"
    return row(vision, clock.times[1] - start, clock.times[-1] - start)


if __name__ == "__main__":
    drive(answer)
