"""What does fewer bits cost? Errors, agreement, accuracy and perplexity of each mode of the native runtime.

    python benchmarks/quantised.py                      the bundled model, 40 questions of each kind
    python benchmarks/quantised.py --model DIRECTORY --cases 100 --modes int8 int4

On held-out drawn questions, against float32: features and logits (root mean square of the difference as a share of the
values'), how many greedy answers are the same token for token, exact answers, and the perplexity of the right answers.
An answer may differ where float32 itself is in two minds: `torn` counts those of the different answers whose first
differing token was chosen by less than twice the largest error of its logits. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nano_scores import ROWS, cases

import smolvlm
from smolvlm.hub import resolve
from smolvlm.runtimes.motor import Span
from smolvlm.runtimes.native import MODES, NativeMotor
from smolvlm.scenes import Scene, Turn

EXACT = "float32"
LONGEST = 80  # tokens of an answer


@dataclass(frozen=True)
class Case:
    """A question as a model takes it, and its right answer as tokens. pixels: (tiles, 3, side, side) or None."""

    ids: np.ndarray
    pixels: np.ndarray | None
    answer: list[int]


@dataclass(frozen=True)
class Told:
    """What a mode makes of a case. logits: (answer tokens, vocabulary) after the tokens of the right answer.

    path: (said tokens, vocabulary), the logits that said tokens were chosen by.
    """

    features: np.ndarray | None
    logits: np.ndarray
    said: list[int]
    path: np.ndarray


def make_case(processor: smolvlm.SmolVLMProcessor, scene: Scene, turn: Turn) -> Case:
    blocks: list[dict[str, object]] = [{"type": "image", "image": picture} for picture in scene.pictures]
    if scene.clip:
        blocks.append({"type": "video", "video": list(scene.clip.frames)})
    content = [*blocks, {"type": "text", "text": turn.question}]
    inputs = processor.prepare([{"role": "user", "content": content}], detail=scene.detail)
    answer = processor.tokenizer.encode(f" {turn.answer}<end_of_utterance>")
    return Case(inputs.input_ids, inputs.pixel_values, list(answer))


def tell(motor: NativeMotor, case: Case) -> Told:
    features = None if case.pixels is None else motor.encode(case.pixels)
    pictures = None if features is None else features.reshape(-1, features.shape[-1])
    length = len(case.ids)
    slot = motor.open(length + max(len(case.answer), LONGEST))
    first = motor.forward([Span(slot, case.ids, pictures)], [length - 1])
    rest = motor.forward([Span(slot, np.array(case.answer[:-1]))], range(len(case.answer) - 1))
    slot.length = length
    said, path = [int(first[0].argmax())], [first[0]]
    while said[-1] != case.answer[-1] and len(said) < LONGEST:
        path.append(motor.forward([Span(slot, np.array(said[-1:]))], [0])[0])
        said.append(int(path[-1].argmax()))
    return Told(features, np.concatenate([first, rest]), said, np.stack(path))


def log_probabilities(logits: np.ndarray, tokens: list[int]) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted[np.arange(len(tokens)), tokens] - np.log(np.exp(shifted).sum(axis=1))


def off(found: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Root mean square of the difference as a share of the exact values'."""
    gap = np.concatenate([(a - b).ravel() for a, b in zip(found, exact, strict=True)])
    return float(np.sqrt(np.square(gap).mean() / np.square(np.concatenate([b.ravel() for b in exact])).mean()))


def is_torn(told: Told, exact: Told) -> bool:
    """Whether float32 chose the first differing token by less than twice the error of its logits."""
    at = next(i for i, (a, b) in enumerate(zip(told.said, exact.said, strict=False)) if a != b)
    runner_up, best = np.sort(exact.path[at])[-2:]
    return bool(best - runner_up < 2 * np.abs(told.path[at] - exact.path[at]).max())


def row(mode: str, told: list[Told], exact: list[Told], asked: list[Case]) -> dict[str, object]:
    different = [(a, b) for a, b in zip(told, exact, strict=True) if a.said != b.said]
    surprise = np.concatenate([log_probabilities(a.logits, case.answer) for a, case in zip(told, asked, strict=True)])
    seen = [
        (a.features, b.features)
        for a, b in zip(told, exact, strict=True)
        if a.features is not None and b.features is not None
    ]
    right = [a.said == case.answer for a, case in zip(told, asked, strict=True)]
    return {
        "mode": mode,
        "cases": len(told),
        "features off, %": round(100 * off([a for a, _ in seen], [b for _, b in seen]), 3),
        "logits off, %": round(100 * off([a.logits for a in told], [b.logits for b in exact]), 3),
        "same answers, %": round(100 * (1 - len(different) / len(told)), 2),
        "different": len(different),
        "torn": sum(is_torn(a, b) for a, b in different),
        "exactly right, %": round(100 * float(np.mean(right)), 2),
        "perplexity": round(float(np.exp(-surprise.mean())), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or hub id (default: the bundled nano)")
    parser.add_argument("--cases", type=int, default=40, help="of each kind of question")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    options = parser.parse_args()
    directory = Path(resolve(options.model))
    processor = smolvlm.SmolVLMProcessor.from_pretrained(directory)
    asked = [
        make_case(processor, scene, turn) for one in ROWS for scene, turn in cases(one, options.seed, options.cases)
    ]
    motor = NativeMotor(directory, EXACT)
    exact = [tell(motor, case) for case in asked]
    rows = []
    for mode in dict.fromkeys([EXACT, *options.modes]):
        motor = NativeMotor(directory, mode)
        told = exact if mode == EXACT else [tell(motor, case) for case in asked]
        rows.append(row(mode, told, exact, asked))
    columns = list(rows[0])
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for one in rows:
        print("| " + " | ".join(str(one[column]) for column in columns) + " |")
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
