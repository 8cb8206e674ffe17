"""The rows of transformers in peers.py, through generate(). It shares our environment, as the tests' oracle does."""

from __future__ import annotations

from pathlib import Path

from inference import answer_times, load
from peer import drive, row, timed


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    """dtype: "bfloat16", or "static:bfloat16" for a cache that is made in its full size before the first token."""
    import torch

    torch.set_num_threads(threads)
    cache, _, name = dtype.rpartition(":")
    model, preprocess = load("transformers", directory, name)
    model.generation_config.cache_implementation = cache or None
    answer_times(model, preprocess)
    if cold:
        return {}
    with torch.inference_mode():
        inputs = preprocess()
        pixels, mask = inputs["pixel_values"], inputs["pixel_attention_mask"]
        vision = timed(lambda: model.model.get_image_features(pixels, mask))
    return row(vision, *answer_times(model, preprocess))


if __name__ == "__main__":
    drive(answer)
