"""Callers of a desk, the works that they hand in, and what each must be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue

import numpy as np

import smolvlm
from smolvlm.types import Answer, Inputs, SamplingParams
from smolvlm.vlm import VLM
from smolvlm.vlm.desk import Desk, Piece, Ticket, Work

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"
WAIT_S = 120
QUESTIONS: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"question": "Who are you?"}, {}),
    ({"question": "What is this?", "images": [DEMO / "picture.png"]}, {}),
    ({"question": "What happens?", "videos": [DEMO / "video.mp4"]}, {"max_new_tokens": 12}),
    ({"question": "Which shapes are there?", "images": [DEMO / "picture.png"], "detail": "low"}, {"stop": ("a",)}),
    ({"question": "Tell a story."}, {"temperature": 1.0, "seed": 3, "max_new_tokens": 24}),
    ({"question": "What is this?", "images": [DEMO / "picture.png"]}, {"temperature": 0.9, "seed": 4, "top_p": 0.9}),
    ({"question": "How many shapes are there?", "images": [DEMO / "picture.png"] * 2}, {"repetition_penalty": 1.2}),
    ({"question": "Name a colour."}, {"max_new_tokens": 1}),
]


class Caller:
    """Somebody who waits for a work."""

    def __init__(self) -> None:
        self.told: SimpleQueue[object] = SimpleQueue()
        self.pieces: list[str] = []

    def result(self) -> object:
        while isinstance(what := self.told.get(timeout=WAIT_S), Piece):
            self.pieces.append(what.text)
        return what

    def answer(self) -> Answer:
        answer = self.result()
        assert isinstance(answer, Answer), answer
        assert "".join(self.pieces) == answer.text and all(self.pieces)
        return answer


def prepare(vlm: VLM, asked: Mapping[str, object]) -> Inputs:
    blocks: list[dict[str, object]] = [{"type": "image", "image": one} for one in asked.get("images", ())]  # type: ignore[attr-defined]
    blocks += [{"type": "video", "video": one} for one in asked.get("videos", ())]  # type: ignore[attr-defined]
    turn = {"role": "user", "content": [*blocks, {"type": "text", "text": asked["question"]}]}
    return vlm.processor.prepare([turn], detail=asked.get("detail", "auto"), context=vlm.context)  # type: ignore[arg-type]


def works(vlm: VLM) -> list[Work]:
    return [Work(prepare(vlm, asked), SamplingParams(**params)) for asked, params in QUESTIONS]  # type: ignore[arg-type]


def hand_in(desk: Desk, work: Work) -> tuple[Caller, Ticket]:
    caller = Caller()
    return caller, desk.write(work, caller.told.put)


def story(vlm: VLM, tokens: int, seed: int = 1) -> Work:
    return Work(prepare(vlm, {"question": "Tell a story."}), SamplingParams(tokens, temperature=2.0, seed=seed))


def same(one: Answer, other: Answer) -> bool:
    return (one.text, one.token_ids, one.finish_reason, one.prompt_tokens, one.image_tokens, one.frames) == (
        other.text, other.token_ids, other.finish_reason, other.prompt_tokens, other.image_tokens, other.frames,
    )  # fmt: skip


def video(vlm: VLM, frames: int, seed: int = 0) -> Inputs:
    """Frames of noise, no two of them alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (frames, 128, 128, 3), dtype=np.uint8)
    block = {"type": "video", "video": list(noise)}
    turn = {"role": "user", "content": [block, {"type": "text", "text": "What happens?"}]}
    return vlm.processor.prepare([turn], max_frames=frames, context=vlm.context)
