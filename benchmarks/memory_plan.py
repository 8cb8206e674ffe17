"""Does a run take as much memory as `smolvlm train --plan` says?

    python benchmarks/memory_plan.py                  256M geometry, random weights: all weights, LoRA, QLoRA, recompute
    python benchmarks/memory_plan.py --only lora
    python benchmarks/memory_plan.py --published      what recipes/published/ would take on a GPU, by shapes

Each case is a recipe of a few steps on drawn scenes whose batches are nearly as large as the recipe allows. The plan is
made from shapes alone; the run is one `smolvlm train`, whose peak the kernel tells afterwards. Prints a table, then one
JSON line. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
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


def planned_mb(recipe: Path) -> float:
    from smolvlm.training.plan import plan
    from smolvlm.training.recipe import read_recipe

    return plan(read_recipe(recipe)).total / 1e6


def measured_mb(recipe: Path, output: Path) -> float:
    """The peak of one run."""
    command = [sys.executable, "-m", "smolvlm", "train", str(recipe), "-o", str(output), "--quiet"]
    child = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{recipe.name} failed")
    return usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    from smolvlm.training.choose import as_toml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--published", action="store_true", help="plan the published recipes, for a GPU")
    options = parser.parse_args()
    if options.published:
        published(options.only)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder / "checkpoint")
        for number, (case, values) in enumerate(CASES.items()):
            if options.only in case:
                recipe = folder / f"{number}.toml"
                recipe.write_text(as_toml({"name": case, "start": str(folder / "checkpoint"), **BASE, **values}))
                planned, measured = planned_mb(recipe), measured_mb(recipe, folder / f"run{number}")
                rows.append({"case": case, "planned_mb": round(planned), "measured_mb": round(measured)})
                print(json.dumps(rows[-1]), file=sys.stderr)
    print("| case | planned MB | measured MB | planned / measured |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} | {row['planned_mb'] / row['measured_mb']:.2f} |")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
