"""Does `smolvlm finetune` teach the bundled model something new, how fast, and what does it forget?

    OMP_NUM_THREADS=2 python benchmarks/finetune_nano.py                       both skills, all three methods
    python benchmarks/finetune_nano.py --skill picture --method lora --cases 100

Two skills that the model lacks: "picture", the name of a thing of a shape or colour that no training scene has, asked
by a question that none has ("Name the newcomer."); "video", the direction of what moves in a clip in words that no
answer has ("Compass?" -> north, east, south, west). 3,000 and 1,500 drawn samples; 200 others are asked, greedily and
exactly.
Old skills: the mean over all rows of nano_scores.py before and after, so many cases a row. Each method is one command,
as a user types it, in a process of its own. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import smolvlm
from smolvlm import scenes
from smolvlm.scenes import ALL_COLOURS, ALL_SHAPES, RESERVED_COLOURS, RESERVED_SHAPES, Scene

NEW, ASKED = {"picture": 3000, "video": 1500}, 200
COMPASS = {
    "from bottom to top": "north",
    "from left to right": "east",
    "from top to bottom": "south",
    "from right to left": "west",
}
QUESTIONS = {"picture": "Name the newcomer.", "video": "Compass?"}
METHODS = ("full", "lora", "qlora")
HERE = Path(__file__).parent


def drawn(skill: str, split: str) -> Iterator[tuple[Scene, str]]:
    """Scenes with the answer to the new question, without end."""
    for index in count():
        if skill == "picture":
            scene = scenes.draw_reserved(7, index, split)
            things = [(ALL_COLOURS[mark.colour], ALL_SHAPES[mark.shape]) for mark in scene.marks if mark.shape >= 0]
            new = [f"{c} {s}" for c, s in things if c in RESERVED_COLOURS or s in RESERVED_SHAPES]
            if len(new) == 1:
                yield scene, f"the {new[0]}"
        else:
            scene = scenes.draw("video", 7, index, split)
            told = [turn.answer for turn in scene.turns if turn.kind == "direction"]
            moves = sum(turn.answer.count(" moves ") for turn in scene.turns if turn.kind == "happens")
            if len(told) == moves == 1 and told[0] in COMPASS:  # where two things move the question has two answers
                yield scene, COMPASS[told[0]]


def write(skill: str, folder: Path, samples: int | None = None) -> Path:
    """Samples as a person has them: files, and a line of JSON for each."""
    lines = []
    for number, (scene, answer) in enumerate(islice(drawn(skill, "train"), samples or NEW[skill])):
        if scene.clip:
            name = f"{number:04d}"
            (folder / name).mkdir()
            for second, frame in enumerate(scene.clip.frames):
                frame.save(folder / name / f"{second:03d}.png")
        else:
            name = f"{number:04d}.png"
            scene.pictures[0].save(folder / name)
        shown = {"type": "video" if scene.clip else "image", "path": name}
        lines.append({"messages": [
            {"role": "user", "content": [shown, {"type": "text", "text": QUESTIONS[skill]}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]})  # fmt: skip
    file = folder / "notes.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def new_skill(vlm: smolvlm.VLM, skill: str, cases: int = ASKED) -> float:
    """Share of exact answers to the new question."""
    asked = list(islice(drawn(skill, "test"), cases))
    requests: list[dict[str, Any]] = [
        {"question": QUESTIONS[skill], "max_new_tokens": 20, "detail": "low"}
        | ({"videos": [list(scene.clip.frames)]} if scene.clip else {"images": list(scene.pictures)})
        for scene, _ in asked
    ]
    answers = vlm.ask_batch(requests)
    return fmean(str(one).strip() == answer for one, (_, answer) in zip(answers, asked, strict=True))


def old_skills(model: str | None, cases: int, file: Path) -> float:
    """Mean over the rows of nano_scores.py."""
    command = [sys.executable, str(HERE / "nano_scores.py"), "--runtime", "native", "--jobs", "2", "--json", str(file)]
    command += ["--plain", "--cases", str(cases), *(["--model", model] if model else [])]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return fmean(row["right"] for row in json.loads(file.read_text())["rows"])


def finetune(data: Path, method: str, output: Path, changes: list[str]) -> tuple[float, str]:
    """(seconds, a whole checkpoint) of one command."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "smolvlm", "finetune", "--data", str(data), "--method", method, "-o", str(output)]
    done = subprocess.run([*command, "--quiet", *changes], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{method} failed:\n{done.stderr[-2000:]}")
    seconds = time.perf_counter() - start
    checkpoint = output / "checkpoint"
    if method == "full":
        return seconds, str(checkpoint)
    merged = smolvlm.SmolVLMForConditionalGeneration.from_pretrained("nano", adapter=checkpoint)
    merged.to(dtype=torch.bfloat16).save_pretrained(output / "merged")
    smolvlm.SmolVLMProcessor.from_pretrained("nano").save_pretrained(output / "merged")
    return seconds, str(output / "merged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skill", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--cases", type=int, default=100, help="a row of old skills; 0 leaves them out")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = old_skills(None, options.cases, folder / "before.json") if options.cases else None
        for skill in options.skill:
            (folder / skill).mkdir()
            data, lacking = write(skill, folder / skill), new_skill(smolvlm.load(), skill)
            for method in options.method:
                seconds, checkpoint = finetune(data, method, folder / f"{skill}-{method}", options.set)
                after = old_skills(checkpoint, options.cases, folder / "after.json") if options.cases else None
                learned = new_skill(smolvlm.load(checkpoint), skill)
                rows.append({"skill": skill, "method": method, "seconds": round(seconds, 1), "new_before": lacking,
                             "new_after": learned, "old_before": before, "old_after": after})  # fmt: skip
                print(json.dumps(rows[-1]), file=sys.stderr)
    print(
        "| new skill | method | minutes | before | after | old skills before | after |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        old = ["" if row[key] is None else f"{100 * row[key]:.1f} %" for key in ("old_before", "old_after")]
        print(
            f"| {row['skill']} | {row['method']} | {row['seconds'] / 60:.1f} | {100 * row['new_before']:.1f} % | "
            f"{100 * row['new_after']:.1f} % | {' | '.join(old)} |"
        )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
