"""What can be asked about a planned clip: what happens, when, in which direction, how many are left."""

from __future__ import annotations

from functools import partial
from random import Random

from .ask import ask
from .material import Scene, Turn
from .scene import yes_no
from .things import pairs, with_article
from .video import Event, Plan, plan_clip, render_plan

NOTHING = "Nothing changes."
VERBS = {"moves": "move", "appears": "appear", "disappears": "disappear"}


def draw_video(rng: Random, level: float, held_out: bool) -> Scene:
    plan = plan_clip(rng, level, held_out)
    more = partial(turns_on, plan=plan, held_out=held_out)
    turns = more(rng)
    clip, marks = render_plan(plan)
    return Scene("video", (), clip, turns, marks, "low", more)


def happening(plan: Plan) -> str:
    """What happens in the whole clip."""
    if not plan.events:
        return NOTHING
    if len(plan.events) == 1:
        return plan.events[0].sentence
    return f"First {plan.events[0].clause}, then {plan.events[1].clause}."


def turns_on(rng: Random, plan: Plan, held_out: bool) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for event in plan.events:
        turns += _on_event(rng, event)
    for key, sort in VERBS.items():
        acting = [event.thing.name for event in plan.events if event.sort == sort]
        if len(acting) == 1 and rng.random() < 0.8:
            turns.append(Turn(ask(rng, key), acting[0], key))
        elif not acting and rng.random() < 0.03:
            turns.append(Turn(ask(rng, key), f"Nothing {key}.", f"{key}_absent"))
    turns += _on_order(rng, plan.events)
    turns += _yes_no(rng, plan)
    if rng.random() < 0.6:
        turns.append(Turn(ask(rng, "count_end"), str(len(plan.at(plan.seconds))), "count_end"))
    if rng.random() < 0.4:
        turns.append(Turn(ask(rng, "count_start"), str(len(plan.at(0.0))), "count_start"))
    if rng.random() < 0.5:
        turns.append(_in_video(rng, plan, held_out))
    rng.shuffle(turns)
    turns = turns[:6]
    turns.insert(0 if rng.random() < 0.6 else len(turns), Turn(ask(rng, "happens"), happening(plan), "happens"))
    return tuple(turns)


def _on_event(rng: Random, event: Event) -> list[Turn]:
    name = event.thing.name
    if event.sort == "move":
        return [Turn(ask(rng, "direction", thing=name), f"from {event.direction}", "direction")]
    if event.sort == "turn":
        return [Turn(ask(rng, "turns", thing=name), event.colour, "turns")]
    if event.sort in ("grow", "shrink"):
        return [Turn(ask(rng, "grows", thing=name), "it grows" if event.sort == "grow" else "it shrinks", "grows")]
    return []


def _on_order(rng: Random, events: tuple[Event, ...]) -> list[Turn]:
    if len(events) < 2:
        return []
    turns = [Turn(ask(rng, "first"), events[0].sentence, "first"), Turn(ask(rng, "last"), events[1].sentence, "last")]
    yes = rng.random() < 0.5
    one, two = events if yes else events[::-1]
    turns.append(Turn(ask(rng, "before", first=one.clause, second=two.clause), yes_no(yes), "before"))
    return turns


def _yes_no(rng: Random, plan: Plan) -> list[Turn]:
    """Yes or no questions, thinned out where one answer is the rarer."""
    sorts = {event.sort for event in plan.events}
    turns = []
    for key, yes, rate in (
        ("any_appear", "appear" in sorts, 0.16),
        ("any_move", "move" in sorts, 0.4),
        ("any_change", bool(sorts), 1.0),
    ):
        kept = {"any_change": 0.11 if yes else 1.0}.get(key, 0.85 if yes else rate)
        if rng.random() < kept:
            turns.append(Turn(ask(rng, key), yes_no(yes), key))
    return turns


def _in_video(rng: Random, plan: Plan, held_out: bool) -> Turn:
    seen = sorted({thing.pair for second in range(plan.seconds) for thing in plan.at(second)})
    yes = rng.random() < 0.5
    absent = [pair for pair in pairs(held_out) if pair not in seen]
    near = [pair for pair in absent if any((pair[0] == c) != (pair[1] == s) for c, s in seen)]
    pair = rng.choice(seen) if yes else rng.choice(near if rng.random() < 0.7 and near else absent)
    return Turn(ask(rng, "in_video", a_thing=with_article(" ".join(pair))), yes_no(yes), "in_video")
