"""transformers on the same weights and the same inputs, for `smolvlm bench`; a process of its own, never the engine.

    python -m smolvlm.cli.rival DIRECTORY INPUTS DTYPE CONTEXT NEW_TOKENS

INPUTS: an .npz with input_ids (tokens,) and pixel_values (tiles, 3, side, side), so its preprocessing isn't measured.
Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any


def main(directory: str, inputs: str, dtype: str, context: int, new_tokens: int) -> None:
    import numpy as np
    import torch
    import transformers

    from ..runtimes.machine import peak_memory, timed

    model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    given = np.load(inputs)
    pixels = torch.from_numpy(given["pixel_values"])[None].to(model.dtype)  # (1, tiles, 3, side, side)
    ids = torch.from_numpy(given["input_ids"])[None]
    asked = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels,
        "pixel_attention_mask": torch.ones(*pixels.shape[:2], *pixels.shape[3:], dtype=torch.long),
    }  # fmt: skip
    some_ids = 3 + torch.arange(context)[None] % 900  # words of any vocabulary of the family
    some_ids[some_ids == model.config.image_token_id] = 3
    with torch.inference_mode():
        model(input_ids=some_ids[:, :8])  # warms up
        first_token_s = timed(lambda: model.generate(**asked, do_sample=False, max_new_tokens=1))
        total_s = timed(lambda: model.generate(**asked, do_sample=False, max_new_tokens=new_tokens))
        peak = peak_memory()
        few = {"pixel_values": pixels[:, :4], "pixel_attention_mask": asked["pixel_attention_mask"][:, :4]}
        vision_s = timed(lambda: model.model.get_image_features(**few)) / few["pixel_values"].shape[1]
        prefill_s = timed(lambda: model(input_ids=some_ids, use_cache=True, logits_to_keep=1))
        decode_tps = 1 / median(steps(model, some_ids, new_tokens))
    found = {
        "version": transformers.__version__, "dtype": dtype, "tile_s": vision_s, "prefill_tps": context / prefill_s,
        "first_token_s": first_token_s, "total_s": total_s, "decode_tps": decode_tps, "peak_bytes": peak,
    }  # fmt: skip
    print(json.dumps(found))


def steps(model: Any, ids: Any, count: int) -> list[float]:
    """Seconds of each of `count` new tokens behind `ids`."""
    from ..runtimes.machine import timed

    past = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    return [timed(lambda: model(input_ids=ids[:, :1], past_key_values=past, use_cache=True)) for _ in range(count)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
