"""What does each published stage of training do, on the scale of the bundled model?

    python benchmarks/stages_nano.py                        all of them, in order: an hour on two cores
    python benchmarks/stages_nano.py context dpo --output runs/stages

  context  RoPE base 10,000 -> 273,000: a fact that stands 2,048 tokens back, farther than nano ever read
  vision   stage 1: nano's text model and vision tower, taken apart and assembled with a new connector, learn to see
  sft      stages 2 and 3: all weights, from what stage 1 left
  video    video SFT, at the published shares of video, pictures and text: directions in words of the compass
  dpo      preference alignment: held-out pairs whose better answer is the likelier one, beside the start
  grpo     rewards: "What can be seen?", which nano takes to ask for a name or for what isn't there, is to mean the name

The recipes are recipes/stages/*.toml; image QA is examples/image_qa.ipynb, video fine-tuning in finetune_nano.py. Each
run is one `smolvlm train`, in full, in a process of its own. Scores are of unseen material, exact and greedy, before
and after. Prints a table, then JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from finetune_nano import new_skill, write

import smolvlm
from smolvlm import scenes
from smolvlm.scenes import ALL_COLOURS, ALL_SHAPES, COLOURS, SHAPES, Scene

RECIPES = Path(__file__).parents[1] / "recipes" / "stages"
WARM = ("red", "orange", "yellow", "pink")
SEEN = "What can be seen?"
STAGES = ("context", "vision", "sft", "video", "dpo", "grpo")


# ---- material --------------------------------------------------------------------------------------------------------


def talk(content: list[dict[str, Any]], *answers: str) -> dict[str, Any]:
    """A line of data: messages, or with two answers a preference."""
    said = [[{"role": "assistant", "content": [{"type": "text", "text": answer}]}] for answer in answers]
    asked = [{"role": "user", "content": content}]
    if len(said) == 1:
        return {"messages": asked + said[0]}
    return {"prompt": asked, "chosen": said[0], "rejected": said[1]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def fact(rng: Random, tokens: int) -> tuple[str, str]:
    """(a long text with a fact in its first half and a question at its end, the answer)."""
    things = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    asked, *others = rng.sample(things, 4)
    number = str(rng.randint(10, 99))
    filler = [
        f"There is a {rng.choice(list(COLOURS))} {rng.choice(SHAPES)} here." for _ in range(tokens // 9)
    ]  # nine tokens each, about
    secrets = [f"The number of the {asked[0]} {asked[1]} is {number}."]
    secrets += [f"The number of the {colour} {shape} is {rng.randint(10, 99)}." for colour, shape in others]
    filler.insert(rng.randint(0, len(filler) // 4), secrets[0])
    for one in secrets[1:]:
        filler.insert(rng.randint(0, len(filler)), one)
    return " ".join(filler) + f"\nWhat is the number of the {asked[0]} {asked[1]}?", number


def write_facts(folder: Path) -> None:
    """Short ones first in the file; the order of training is the mixture's."""
    rng = Random("facts")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for _ in range(2400):
        question, answer = fact(rng, int(64 * 2 ** rng.uniform(0, 5)))  # 64 to 2,048 tokens, about
        lines.append(talk([text(question)], answer))
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def worded(split: str) -> Iterator[tuple[Scene, str, str]]:
    """(a picture of one thing, the better wording, the worse one)."""
    for index in count():
        scene = scenes.draw("scene", 31, index, split, level=0.0)
        things = [mark for mark in scene.marks if mark.shape >= 0]
        if len(things) != 1:
            continue
        colour, shape = ALL_COLOURS[things[0].colour], ALL_SHAPES[things[0].shape]
        both = (f"a {colour} {shape}", f"the {colour} {shape}")
        yield scene, *(both if colour in WARM else both[::-1])


def write_pairs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split, size in (("train", "train", 640), ("held_out", "validation", 200)):
        lines = []
        for number, (scene, better, worse) in enumerate(islice(worded(split), size)):
            scene.pictures[0].save(folder / f"{name}{number}.png")
            content = [{"type": "image", "path": f"{name}{number}.png"}, text("Name it.")]
            lines.append(talk(content, better, worse))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def named(split: str) -> Iterator[tuple[Scene, str]]:
    """(a picture of one thing, its name without an article)."""
    for scene, better, _ in worded(split):
        yield scene, better.split(" ", 1)[1]


def write_names(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (scene, name) in enumerate(islice(named("train"), 640)):
        scene.pictures[0].save(folder / f"{number}.png")
        lines.append(talk([{"type": "image", "path": f"{number}.png"}, text(SEEN)], name))
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def take_apart(folder: Path) -> None:
    """nano's text model and vision tower as checkpoints of their own, assembled again: all but what joined them."""
    from smolvlm.checkpoint import write, write_json
    from smolvlm.model.towers import save_text, text_of
    from smolvlm.model.weights import outgoing
    from smolvlm.training.assemble import assemble_checkpoint

    model = smolvlm.SmolVLMForConditionalGeneration.from_pretrained("nano", dtype="auto")
    save_text(text_of(model), folder / "text")
    smolvlm.SmolVLMProcessor.from_pretrained("nano").save_pretrained(folder / "text")
    tower = model.model.vision_model
    tensors = {f"vision_model.{name}": outgoing(name, one) for name, one in tower.state_dict().items()}
    write(folder / "vision-tower", tensors, max_shard_bytes=2**40)
    config = {**tower.config.to_dict(), "model_type": "siglip_vision_model"}
    write_json(folder / "vision-tower" / "config.json", config)
    assemble_checkpoint(folder / "text", folder / "vision-tower", folder / "assembled", dtype=torch.float32)


# ---- scores ----------------------------------------------------------------------------------------------------------


def right(vlm: smolvlm.VLM, asked: list[tuple[dict[str, Any], str]]) -> float:
    answers = vlm.ask_batch([{"max_new_tokens": 60, **request} for request, _ in asked])
    return fmean(str(one).strip() == answer for one, (_, answer) in zip(answers, asked, strict=True))


def facts_told(vlm: smolvlm.VLM) -> float:
    rng, asked = Random("held out"), []
    for _ in range(100):
        question, answer = fact(rng, 2048)
        asked.append(({"question": question}, answer))
    return right(vlm, asked)


def scenes_told(vlm: smolvlm.VLM, skill: str, kinds: tuple[str, ...], level: float) -> float:
    asked: list[tuple[dict[str, Any], str]] = []
    for index in count():
        scene = scenes.draw(skill, 77, index, "test", level=level)
        turn = next((turn for turn in scene.turns if turn.kind in kinds), None)
        if turn:
            asked.append(
                ({"question": turn.question, "detail": scene.detail, "images": list(scene.pictures)}, turn.answer)
            )
        if len(asked) == 200:
            break
    return right(vlm, asked)


def names_told(vlm: smolvlm.VLM) -> float:
    return right(vlm, [({"question": SEEN, "images": list(scene.pictures)}, name)
                       for scene, name in islice(named("test"), 200)])  # fmt: skip


def preferred_words(vlm: smolvlm.VLM) -> float:
    """Pairs whose better wording is the likelier answer, by decide's logits over both."""
    won = []
    for scene, better, worse in islice(worded("test"), 200):
        found = vlm.decide("Name it.", choices=[better, worse], images=list(scene.pictures))
        won.append(found.probabilities[better] > found.probabilities[worse])
    return fmean(won)


# ---- runs ------------------------------------------------------------------------------------------------------------


def train(name: str, output: Path, changes: list[str]) -> float:
    """Seconds of one `smolvlm train`. Relative names in the recipe are of the output folder."""
    named = [f'data_root="{output}"'] if name in ("context", "video", "dpo", "grpo") else []
    named += [f'start="{output / "assembled"}"'] if name in ("vision", "sft") else []
    named += [f'merge="{output / "run-vision" / "checkpoint"}"'] if name == "sft" else []
    start = time.perf_counter()
    command = [sys.executable, "-m", "smolvlm", "train", str(RECIPES / f"{name}.toml"), *named, *changes]
    done = subprocess.run([*command, "-o", str(output / f"run-{name}"), "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def stage(name: str, output: Path, changes: list[str]) -> dict[str, Any]:
    """One row of the table."""
    after: dict[str, Any]
    checkpoint = output / f"run-{name}" / "checkpoint"
    if name == "context":
        write_facts(output / "facts")
        what, score, before, after = "facts 2,048 tokens back", facts_told, {}, {"model": checkpoint}
    elif name == "vision":
        take_apart(output)
        what = "colour, shape and place of one or two things"
        before, after = {"model": output / "assembled"}, {"model": output / "assembled", "adapter": checkpoint}
        score = lambda vlm: scenes_told(vlm, "scene", ("colour_of", "shape_of", "where"), 0.3)  # noqa: E731
    elif name == "sft":
        what = "bar charts: a value, the highest"
        before = {"model": output / "assembled", "adapter": output / "run-vision" / "checkpoint"}
        after = {"model": checkpoint}
        score = lambda vlm: scenes_told(vlm, "chart", ("chart_value", "chart_highest"), 0.5)  # noqa: E731
    elif name == "video":
        if not (output / "clips").exists():
            (output / "clips").mkdir(parents=True)
            write("video", output / "clips")
        what, before, after = "direction of a movement, as on a compass", {}, {"model": checkpoint}
        score = lambda vlm: new_skill(vlm, "video")  # noqa: E731
    elif name == "dpo":
        write_pairs(output / "pairs")
        what, score, before, after = "better wording is the likelier", preferred_words, {}, {"adapter": checkpoint}
    else:
        write_names(output / "names")
        what, score, before, after = "an ambiguous question is taken as meant", names_told, {}, {"adapter": checkpoint}
    found = score(smolvlm.load(**before))
    seconds = train(name, output, changes)
    return {"stage": name, "what": what, "before": found, "after": score(smolvlm.load(**after)),
            "minutes": round(seconds / 60, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], default=list(STAGES))
    parser.add_argument("--output", type=Path, default=Path("runs/stages"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipes")
    options = parser.parse_args()
    rows = []
    for name in options.stages or STAGES:
        rows.append(stage(name, options.output.absolute(), options.set))
        print(json.dumps(rows[-1]), file=sys.stderr)
    print("| stage | scored | before | after | minutes |\n|---|---|---|---|---|")
    for row in rows:
        shares = f"{100 * row['before']:.1f} % | {100 * row['after']:.1f} %"
        print(f"| {row['stage']} | {row['what']} | {shares} | {row['minutes']} |")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
