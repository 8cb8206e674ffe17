"""A short film of drawn shots, in some of which something happens at a known time; nothing else changes in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import av
from PIL import Image

from smolvlm.scenes import render_plan
from smolvlm.scenes.video import Event, Plan, plan_clip

FPS = 10


@dataclass(frozen=True)
class Eventful:
    """path: the film. cuts_s: where shots begin, the first one left out. events: with seconds of the film."""

    path: Path
    seconds: float
    cuts_s: tuple[float, ...]
    events: tuple[tuple[str, str, float, float], ...]  # sort, name of the thing, start, end

    def spans(self, sort: str) -> list[tuple[float, float]]:
        return [(start_s, end_s) for kind, _, start_s, end_s in self.events if kind == sort]


def plans(sorts: Sequence[str | None], seed: int = 0) -> list[Plan]:
    """A shot of 4 to 8 s for each: one in which something of this sort happens, or with None nothing."""
    rng, found = Random(f"eventful {seed}"), []
    for sort in sorts:
        plan = plan_clip(rng, 1.0, held_out=False)
        while plan.seconds < 4 or not plan.still or [event.sort for event in plan.events] != ([sort] if sort else []):
            plan = plan_clip(rng, 1.0, held_out=False)
        found.append(plan)
    return found


def pictures(shots: Sequence[Plan]) -> Iterator[Image.Image]:
    for plan in shots:
        yield from render_plan(plan, FPS)[0].frames


def write_eventful(path: Path, sorts: Sequence[str | None], seed: int = 0) -> Eventful:
    shots = plans(sorts, seed)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for image in pictures(shots):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    starts = [0.0, *accumulate(float(plan.seconds) for plan in shots)]
    events = [_on_film(event, start_s) for plan, start_s in zip(shots, starts, strict=False) for event in plan.events]
    return Eventful(path, starts[-1], tuple(starts[1:-1]), tuple(events))


def _on_film(event: Event, start_s: float) -> tuple[str, str, float, float]:
    return event.sort, event.thing.name, start_s + event.start_s, start_s + event.end_s


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two spans."""
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)
