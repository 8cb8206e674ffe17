"""Short clips: things move, appear, disappear, change colour, grow or shrink; one event, two in order, or none.

A plan is in continuous time, so the same clip can be drawn at any frame rate: render_plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import ImageDraw

from .canvas import SCALE, draw_thing, ground, mark_thing, weather
from .material import Clip, Mark
from .scene import SIDE
from .things import DIAMETERS, RGB, Thing, choose_pairs, pairs, place_thing, tint, with_article

DIRECTIONS = ("left to right", "right to left", "top to bottom", "bottom to top")
SORTS = ("move", "move", "appear", "disappear", "turn", "grow", "shrink")


@dataclass(frozen=True)
class Event:
    """What one thing does. From start_s to end_s for moves and growth; at the middle of them for the rest."""

    sort: str
    thing: Thing
    start_s: float
    end_s: float
    direction: str = ""
    x: float = 0.0
    y: float = 0.0
    diameter: float = 0.0
    colour: str = ""
    rgb: RGB = (0, 0, 0)

    @property
    def clause(self) -> str:
        """What happens, as a part of a sentence: `the red circle moves from left to right`."""
        the = f"the {self.thing.name}"
        return {
            "move": f"{the} moves from {self.direction}",
            "appear": f"{with_article(self.thing.name)} appears",
            "disappear": f"{the} disappears",
            "turn": f"{the} turns {self.colour}",
            "grow": f"{the} grows",
            "shrink": f"{the} shrinks",
        }[self.sort]

    @property
    def sentence(self) -> str:
        return f"{self.clause[0].upper()}{self.clause[1:]}."

    def at(self, second: float) -> Thing | None:
        """The thing at that second, or None while it is not there."""
        thing = self.thing
        if self.sort in ("move", "grow", "shrink"):
            span = max(self.end_s - self.start_s, 1e-9)
            part = min(1.0, max(0.0, (second - self.start_s) / span))
            if self.sort == "move":
                return thing.moved(thing.x + part * (self.x - thing.x), thing.y + part * (self.y - thing.y))
            return replace(thing, diameter=thing.diameter + part * (self.diameter - thing.diameter))
        after = second >= (self.start_s + self.end_s) / 2
        if self.sort == "turn":
            return replace(thing, colour=self.colour, rgb=self.rgb) if after else thing
        return thing if after == (self.sort == "appear") else None


@dataclass(frozen=True)
class Plan:
    """A clip before it is drawn. still: the things that nothing happens to. seconds: its length."""

    seconds: int
    still: tuple[Thing, ...]
    events: tuple[Event, ...]
    seed: int

    def at(self, second: float) -> list[Thing]:
        moving = (event.at(second) for event in self.events)
        return [*self.still, *(thing for thing in moving if thing is not None)]


def plan_clip(rng: Random, level: float, held_out: bool) -> Plan:
    seconds = 2 + rng.randint(0, round(6 * level))
    num_things = 1 + rng.randint(0, round(2 * level))
    fate = rng.random()
    num_events = 0 if fate < 0.1 else 2 if fate > 0.62 and seconds >= 4 and num_things >= 2 else 1
    sorts = [rng.choice(SORTS) for _ in range(num_events)]
    across = rng.random() < 0.5
    lanes = rng.sample(range(3), 3)
    taken = [lanes.pop() for sort in sorts if sort == "move"]
    cells = [place for place in range(9) if (place // 3 if across else place % 3) in lanes]
    chosen = choose_pairs(rng, num_things, held_out, distinct=True)
    places = rng.sample(cells, num_things - len(taken))
    cut = rng.randint(1, seconds - 2) if num_events == 2 else seconds - 1
    spans = [(0, cut), (cut, seconds - 1)]
    events = []
    for index, sort in enumerate(sorts):
        pair, span = chosen[index], spans[index]
        if sort == "move":
            events.append(_move(rng, pair, span, across, taken.pop()))
        else:
            events.append(_stay(rng, sort, pair, span, places.pop(), chosen))
    still = tuple(place_thing(rng, pair, places.pop()) for pair in chosen[num_events:])
    return Plan(seconds, still, tuple(events), rng.getrandbits(32))


def _move(rng: Random, pair: tuple[str, str], span: tuple[int, int], across: bool, lane: int) -> Event:
    forward = rng.random() < 0.5
    direction = DIRECTIONS[(0 if across else 2) + (0 if forward else 1)]
    ends = (rng.uniform(0.16, 0.22), rng.uniform(0.78, 0.84))
    start, end = ends if forward else ends[::-1]
    thing = place_thing(rng, pair, lane * 3 + 1 if across else 3 + lane)
    at, to = ((start, thing.y), (end, thing.y)) if across else ((thing.x, start), (thing.x, end))
    return Event("move", thing.moved(*at), span[0], span[1], direction, *to)


def _stay(
    rng: Random, sort: str, pair: tuple[str, str], span: tuple[int, int], place: int, chosen: list[tuple[str, str]]
) -> Event:
    """An event that happens to a thing in its place. Sudden ones fall in the middle between two seconds."""
    if sort in ("grow", "shrink"):
        sizes = ("small", "large") if sort == "grow" else ("large", "small")
        large = place_thing(rng, pair, place, "large")
        start, end = (rng.uniform(*DIAMETERS[size]) for size in sizes)
        return Event(sort, replace(large, size=sizes[0], diameter=start), span[0], span[1], diameter=end)
    moment = rng.randint(span[0], span[1] - 1)
    thing = place_thing(rng, pair, place)
    colours = [colour for colour, shape in pairs(held_out=False) if shape == pair[1] and (colour, shape) not in chosen]
    colour = rng.choice(colours) if sort == "turn" else ""
    rgb = tint(rng, colour) if colour else (0, 0, 0)
    return Event(sort, thing, moment, moment + 1, colour=colour, rgb=rgb)


def render_plan(plan: Plan, fps: float = 1.0) -> tuple[Clip, tuple[Mark, ...]]:
    """Draw a plan at any frame rate. Noise and artefacts are the same in every frame."""
    base = ground(Random(plan.seed), SIDE)
    times = [index / fps for index in range(max(1, round(plan.seconds * fps)))]
    frames, marks = [], []
    for index, second in enumerate(times):
        image = base.copy()
        draw = ImageDraw.Draw(image)
        for thing in plan.at(second):
            draw_thing(draw, thing, SIDE)
            marks.append(mark_thing(thing, index))
        frames.append(weather(Random(plan.seed + 1), image.reduce(SCALE)))
    return Clip(tuple(frames), tuple(times), float(plan.seconds)), tuple(marks)
