"""Our own row of peers.py: each runtime through the door that everyone uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference import peak_mb
from peer import NEW_TOKENS, PICTURE, QUESTION, drive, row, timed

import smolvlm
from smolvlm.runtimes.limits import multiply_rate, torch_rate
from smolvlm.vlm.measure import work_of
from smolvlm.vlm.memory import stored_tensors

EXPORTED = {"int8": "q8", "int4": "q4", "float32": "fp32"}


def split(dtype: str) -> tuple[str, str]:
    """(runtime, dtype) of "int8" (the native runtime) or "onnx:int8"."""
    runtime, _, name = dtype.rpartition(":")
    return runtime or "native", name


def export(directory: Path, dtype: str) -> Path:
    return directory / f"export-{EXPORTED[dtype]}"


def prepare(directory: Path, dtype: str) -> None:
    runtime, name = split(dtype)
    if runtime == "onnx" and not export(directory, name).exists():
        from smolvlm.export import export_onnx

        export_onnx(directory, export(directory, name), [EXPORTED[name]])


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    """threads come from OMP_NUM_THREADS, which peers.py sets."""
    runtime, name = split(dtype)
    model = export(directory, name) if runtime == "onnx" else directory
    vlm = smolvlm.load(model, runtime=runtime, dtype=name, device="cpu" if runtime == "torch" else None)
    request: dict[str, Any] = {"images": [str(directory / PICTURE)], "max_new_tokens": NEW_TOKENS, "detail": "high"}
    # Nothing is remembered from the first answer to the second, as nothing is by the others.
    vlm._tiles.max_bytes = vlm._driver._engine.scheduler.prefixes.max_bytes = 0
    first = vlm.ask(QUESTION, **request)
    assert len(first.token_ids) == NEW_TOKENS, f"{len(first.token_ids)} tokens came, not {NEW_TOKENS}"
    if cold:
        return {}
    second = vlm.ask(QUESTION, **request)
    peak = peak_mb()
    content = [{"type": "image", "image": request["images"][0]}, {"type": "text", "text": QUESTION}]
    pixels = vlm.processor.prepare([{"role": "user", "content": content}], detail="high").pixel_values
    assert pixels is not None, "there is a picture"
    vision = timed(lambda: vlm._driver.motor.encode(pixels))
    found = row(vision, second.first_token_s, second.total_s) | {"peak_mb": peak}
    work = work_of(vlm, stored_tensors(model, vlm.config), 1)
    if work is not None:
        rate = max(product(work.vision_dtype) for product in (multiply_rate, torch_rate))
        found["limit_share"] = len(pixels) * work.tile_operations / rate / vision
    return found


if __name__ == "__main__":
    drive(answer, prepare)
