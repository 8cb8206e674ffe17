"""Does a run take as much memory as `smolvlm train --plan` says?

    python benchmarks/memory_plan.py                  256M geometry, random weights: all weights, LoRA, QLoRA, recompute
    python benchmarks/memory_plan.py --only lora
    python benchmarks/memory_plan.py --device cuda    on a GPU, in larger batches, and the published image QA at 2.2B
    python benchmarks/memory_plan.py --published      what recipes/published/ would take on a GPU, by shapes

Each case is a recipe of a few steps on drawn scenes whose batches are nearly as large as the recipe allows. The plan is
made from shapes alone; the run is one `smolvlm train`, whose peak the kernel tells afterwards. On a GPU it is what the
process took of the card: most bytes that PyTorch held, and what the driver holds beside them. Prints a table, then one
JSON line. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference import make_checkpoint

BASE: dict[str, Any] = {
    "steps": 2, "samples_per_step": 12, "tiles_per_batch": 4, "tokens_per_batch": 1024, "learning_rate": 1e-5,
    "save_every": 100, "evaluate_every": 100, "look": {"detail": "low"},
    "data": [{"path": "scenes:scene,read,chart"}],
}  # fmt: skip
ADAPTER = {"r": 16, "lora_alpha": 16, "target_modules": ["text", "connector"]}
CASES: dict[str, dict[str, Any]] = {
    "all weights": {},
    "all weights, recompute": {"recompute": True},
    "frozen vision": {"rates": {"vision": 0.0}},
    "lora": {"adapter": ADAPTER, "weights": "bfloat16"},
    "qlora, 4 bits": {"adapter": {**ADAPTER, "bits": 4}, "weights": "bfloat16"},
    "larger batches": {"tiles_per_batch": 10, "tokens_per_batch": 2560, "samples_per_step": 24},
}
# Of a GPU: the same in larger batches, and the published image QA, five pictures of 13 tiles in a batch.
LARGER = {"samples_per_step": 96, "tiles_per_batch": 32, "tokens_per_batch": 8192}
IMAGE_QA = {
    "data": [{"path": "questions.jsonl"}], "samples_per_step": 10,
    "tiles_per_batch": 68, "tokens_per_batch": 6144, "look": {"detail": "high"},
    "weights": "bfloat16", "recompute": True,
    "adapter": {"bits": 4, "r": 8, "lora_alpha": 8, "lora_dropout": 0.1,
                "target_modules": ["down_proj", "o_proj", "k_proj", "q_proj", "gate_proj", "up_proj", "v_proj"]},
}  # fmt: skip

# recipe -> the sizes that it is for
PUBLISHED = {
    "context_extension": ("256m", "2.2b"), "smolvlm_stage1": ("256m", "2.2b"), "smolvlm_stage2": ("256m", "2.2b"),
    "smolvlm_sft": ("256m", "500m", "2.2b"), "smolvlm_synthetic": ("2.2b",), "smolvlm2_video_sft": ("256m", "500m"),
    "smolvlm2_video_sft_2b": ("2.2b",), "vqav2_lora": ("2.2b",), "videofeedback": ("500m",), "dpo_rlaif_v": ("2.2b",),
    "grpo": ("2.2b",),
}  # fmt: skip
RECIPES = Path(__file__).parents[1] / "recipes" / "published"


def published(only: str) -> None:
    from smolvlm.checkpoint import write_json
    from smolvlm.training.plan import plan
    from smolvlm.training.recipe import read_recipe
    from smolvlm.vlm.standin import geometry

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in PUBLISHED.items():
            for size in sizes if only in name else ():
                write_json(Path(folder) / "config.json", geometry(size).to_dict())
                recipe = replace(read_recipe(RECIPES / f"{name}.toml"), start=folder)
                rows.append({"recipe": name, "size": size, "planned_gb": round(plan(recipe, "cuda").total / 1e9, 1)})
                print(json.dumps(rows[-1]), file=sys.stderr)
    print("| recipe | size | planned GB |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    print(json.dumps({"rows": rows}))


def planned_mb(recipe: Path, device: str) -> float:
    from smolvlm.training.plan import plan
    from smolvlm.training.recipe import read_recipe

    return plan(read_recipe(recipe), device).total / 1e6


def measured_mb(recipe: Path, output: Path, device: str) -> float:
    """The peak of one run."""
    if device == "cuda":
        command = [sys.executable, __file__, "--run", str(recipe), "--output", str(output)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{recipe.name} failed")
        return float(done.stdout.splitlines()[-1])
    command = [sys.executable, "-m", "smolvlm", "train", str(recipe), "-o", str(output), "--quiet"]
    child = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{recipe.name} failed")
    return usage.ru_maxrss * 1024 / 1e6


def taken_mb(recipe: Path, output: Path) -> float:
    """Of the GPU, by a run in this process."""
    import torch

    from smolvlm.model import cuda
    from smolvlm.training.loop import train
    from smolvlm.training.recipe import read_recipe

    device = torch.device("cuda")
    torch.zeros(1, device=device) @ torch.zeros(1, device=device)
    before = cuda.taken_memory(device)
    train(read_recipe(recipe), output, device="cuda")
    print(f"{before / 1e6:.0f} MB before, {cuda.peak_memory(device) / 1e6:.0f} MB of tensors", file=sys.stderr)
    return cuda.taken_memory(device) / 1e6


def write_questions(file: Path, picture: str) -> None:
    """A question on one picture, again and again."""
    asked = [{"type": "image", "path": picture}, {"type": "text", "text": "What is in the middle of it?"}]
    talk = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "A tree, and something that is not one."},
    ]
    file.write_text(20 * (json.dumps({"messages": talk}) + "\n"))


def main() -> None:
    from smolvlm.training.choose import as_toml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--published", action="store_true", help="plan the published recipes, for a GPU")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(taken_mb(options.run, options.output))
        return
    if options.published:
        published(options.only)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {case: {**values, "size": "256m"} for case, values in CASES.items()}
        if options.device == "cuda":
            cases = {case: {**values, **LARGER} for case, values in cases.items() if case != "larger batches"}
            cases["image QA, 2.2B"] = {**IMAGE_QA, "size": "2.2b"}
        for number, (case, values) in enumerate(cases.items()):
            if options.only in case:
                start = folder / values.pop("size")
                if not start.exists():
                    make_checkpoint(start, start.name)
                    write_questions(folder / "questions.jsonl", f"{start.name}/picture.jpg")
                recipe = folder / f"{number}.toml"
                where = {"data_root": str(folder)} if "data" in values else {}
                recipe.write_text(as_toml({"name": case, "start": str(start), **where, **BASE, **values}))
                planned = planned_mb(recipe, options.device)
                measured = measured_mb(recipe, folder / f"run{number}", options.device)
                rows.append({"case": case, "planned_mb": round(planned), "measured_mb": round(measured)})
                print(json.dumps(rows[-1]), file=sys.stderr)
    print("| case | planned MB | measured MB | planned / measured |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} | {row['planned_mb'] / row['measured_mb']:.2f} |")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
