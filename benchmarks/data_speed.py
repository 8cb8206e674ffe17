"""Does reading keep up with learning? Samples/s from a parquet file to ready batches, beside datasets + transformers.

    python benchmarks/data_speed.py                    400 pictures, geometry of 256M, 1 and 2 workers, five rounds
    python benchmarks/data_speed.py --rows 100 --rounds 3 --side 1200

Rows of the VQAv2 notebook's kind: a JPEG, a question, an answer. Ours: Steps in a DataLoader, which decode, tile,
render, mark answers and pack. The other: a map-style loop as the published notebooks have it, `datasets` (where it is
installed, else the rows by pyarrow) with transformers' processor in the collate function of a DataLoader, labels masked
as there. Both give the same tiles. Interleaved in one process each; medians. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from inference import make_checkpoint, processor_of_transformers, run_alone

BATCH = 8


def write_rows(file: Path, rows: int, side: int) -> None:
    import numpy as np
    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    random, made = np.random.default_rng(0), []
    for number in range(rows):
        coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=90)
        made.append({"image": {"bytes": content.getvalue(), "path": None}, "question": "What is it?",
                     "multiple_choice_answer": f"thing {number}"})  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(made), file, row_group_size=64)


def ours(directory: Path, file: Path, workers: int) -> float:
    from smolvlm.processing.processor import SmolVLMProcessor
    from smolvlm.processing.request import Look
    from smolvlm.training.data import DataSet, Encoder, Mixture, Source
    from smolvlm.training.data.mixture import Steps
    from smolvlm.training.recipe import build_recipe
    from smolvlm.training.steps import DataSteps, stream

    values = {
        "name": "speed",
        "start": str(directory),
        "steps": 1,
        "data": [{"path": str(file)}],
        "tiles_per_batch": 34,
    }
    recipe = build_recipe({**values, "tokens_per_batch": 16384}, file)
    encoder = Encoder(SmolVLMProcessor.from_pretrained(directory), look=Look(detail="high"))
    mixture = Mixture([DataSet(Source(str(file)))])
    steps = DataSteps(recipe, Steps(mixture, encoder, BATCH), 2)
    count = mixture.start_of(1) // BATCH
    start = time.perf_counter()
    seen = sum(len(batch.names) for made in stream(steps, 0, count, workers) for batch in made.batches)
    assert seen == count * BATCH, "every sample was used"
    return seen / (time.perf_counter() - start)


def theirs(directory: Path, file: Path, workers: int) -> float:
    from PIL import Image
    from torch.utils.data import DataLoader
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    processor = processor_of_transformers(directory, Idefics3ImageProcessorPil)
    if find_spec("datasets"):
        import datasets

        rows: Any = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(file.parent))
        rows = rows.cast_column("image", datasets.Image())
    else:
        from pyarrow import parquet

        rows = parquet.read_table(file).to_pylist()
    image_token = processor.tokenizer.convert_tokens_to_ids("<image>")

    def collate(examples: list[dict[str, Any]]) -> Any:
        texts, pictures = [], []
        for example in examples:
            picture = example["image"]
            if isinstance(picture, dict):
                picture = Image.open(io.BytesIO(picture["bytes"]))
            content = [{"type": "image"}, {"type": "text", "text": example["question"]}]
            answer = [{"type": "text", "text": example["multiple_choice_answer"]}]
            talk = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            texts.append(processor.apply_chat_template(talk, add_generation_prompt=False).strip())
            pictures.append([picture.convert("RGB")])
        batch = processor(text=texts, images=pictures, return_tensors="pt", padding=True)
        labels = batch["input_ids"].clone()
        labels[labels == processor.tokenizer.pad_token_id] = -100
        labels[labels == image_token] = -100
        batch["labels"] = labels
        return batch

    loader = DataLoader(rows, batch_size=BATCH, num_workers=workers, collate_fn=collate, drop_last=True)
    start = time.perf_counter()
    seen = sum(len(batch["input_ids"]) for batch in loader)
    return seen / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--side", type=int, default=640, help="pixels of a picture's longer side")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.package:
        run = ours if options.package == "smolvlm" else theirs
        print(json.dumps(run(options.directory, options.directory / "rows.parquet", options.workers[0])))
        return
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        write_rows(Path(folder, "rows.parquet"), options.rows, options.side)
        for number in range(options.rounds):
            for workers in options.workers:
                for package in ("smolvlm", "transformers"):
                    print(f"round {number + 1} of {options.rounds}: {package}, {workers} workers", file=sys.stderr)
                    command = [sys.executable, __file__, "--package", package, "--directory", folder, "--workers"]
                    speed = float(json.loads(run_alone(package, [*command, str(workers)], 1)))
                    found.setdefault(f"{package}, {workers} workers", []).append(speed)
    medians = {name: median(speeds) for name, speeds in found.items()}
    print("| | samples/s |\n|---|---|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:.1f} |")
    how = "datasets" if find_spec("datasets") else "pyarrow (datasets isn't installed)"
    print(f"\nrows of the other loop are read by {how}")
    print(json.dumps({"samples_per_s": medians, "rows": options.rows, "side": options.side}))


if __name__ == "__main__":
    main()
