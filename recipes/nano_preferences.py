"""Pairs for a preference stage of smolvlm-nano: the right answer before the one that it gave.

    python recipes/nano_preferences.py --model nano --output runs/nano-pairs
    smolvlm train recipes/nano-7.toml --output runs/nano-7

Questions on drawn scenes that no other part was trained on, answered greedily; where the answer is
wrong, it is the worse of a pair. Writes pairs.jsonl, held_out.jsonl and the pictures beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import smolvlm
from smolvlm import scenes

SEED = 7
SCENES = {"scene": 700, "chart": 700, "pair": 800, "video": 1000}
A_SCENE = 4  # questions at most
HELD_OUT = 0.1
AT_ONCE = 100  # scenes


def content(scene: scenes.Scene, folder: Path, name: str) -> list[dict[str, Any]]:
    """Write the scene's pictures; the parts of a message that show them."""
    if scene.clip:
        (folder / name).mkdir(exist_ok=True)
        for second, frame in enumerate(scene.clip.frames):
            frame.save(folder / name / f"{second:03d}.png")
        return [{"type": "video", "path": name}]
    for number, picture in enumerate(scene.pictures):
        picture.save(folder / f"{name}-{number}.png")
    return [
        {"type": "image", "path": f"{name}-{number}.png", "detail": scene.detail}
        for number in range(len(scene.pictures))
    ]


def request(scene: scenes.Scene, question: str) -> dict[str, Any]:
    media = {"videos": [list(scene.clip.frames)]} if scene.clip else {"images": list(scene.pictures)}
    return {
        "question": question,
        "max_new_tokens": 120,
        "detail": scene.detail,
        **(media if any(media.values()) else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the scenes")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    vlm, pairs, asked = smolvlm.load(options.model, runtime="native"), list[dict[str, Any]](), Counter[str]()
    for skill, most in SCENES.items():
        for first in range(0, round(most * options.share), AT_ONCE):
            drawn = [scenes.draw(skill, SEED, index) for index in range(first, first + AT_ONCE)]
            turns = [(scene, turn) for scene in drawn for turn in scene.turns[:A_SCENE]]
            answers = vlm.ask_batch([request(scene, turn.question) for scene, turn in turns])
            asked[skill] += len(turns)
            for number, ((scene, turn), answer) in enumerate(zip(turns, answers, strict=True)):
                if str(answer).strip() in ("", turn.answer):
                    continue
                said = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}]
                        for text in (turn.answer, str(answer).strip())]  # fmt: skip
                shown = [*content(scene, options.output, f"{skill}-{first}-{number}"),
                         {"type": "text", "text": turn.question}]  # fmt: skip
                pairs.append({"prompt": [{"role": "user", "content": shown}], "chosen": said[0], "rejected": said[1]})
        sys.stderr.write(f"{skill}: {len(pairs)} pairs of {asked.total()} questions\n")
    held_out = set(range(0, len(pairs), round(1 / HELD_OUT)))
    for name, kept in (("held_out", held_out), ("pairs", set(range(len(pairs))) - held_out)):
        lines = [json.dumps(pairs[number]) + "\n" for number in sorted(kept)]
        (options.output / f"{name}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
