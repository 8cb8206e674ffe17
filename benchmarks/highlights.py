"""How well are known events found in drawn films, and how fast, next to the published highlight demo's procedure?

    python benchmarks/highlights.py                          20 films of two minutes: precision and recall
    python benchmarks/highlights.py --films 2 --shots 8      a quick look
    python benchmarks/highlights.py --speed-minutes 10       and a film of 720p30: first run, other criteria, demo
    python benchmarks/highlights.py --films 0 --speed-minutes 60 --pieces 12      an hour; 12 of the demo's pieces

The bundled model, the same for both. A film is a row of drawn shots, in every second of which something happens; a
found segment is right when it overlaps an event by half of both together (IoU 0.5), each event counted once. Questions
are in nano's words, the threshold is the default, and nothing is padded, since padding is for viewers. Chapters are
borders found within half a second. The demo is given the same questions in the place of its own lists and prompts,
which nano doesn't know. Speed: processes of their own, so memory is each one's. Prints Markdown, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import av
from PIL import Image

import smolvlm
from smolvlm.highlights import Segment, Selection, build_index, find_chapters, find_highlights, find_published, search
from smolvlm.scenes import plan_clip, render_plan
from smolvlm.scenes.video import Plan

FPS, HIT_IOU = 10, 0.5
FIRST_SEED = 2000  # thresholds were chosen on films 0 to 9, and what blank frames mean on 1000 to 1019
SPEED_SIZE, SPEED_FPS = (1280, 720), 30
QUESTIONS = {"move": "Does anything move?", "appear": "Does anything appear?"}
PRESENT = "Is there {thing} in the video?"
BORDER_S = 0.5


@dataclass(frozen=True)
class Event:
    sort: str
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Film:
    path: Path
    seconds: float
    borders_s: tuple[float, ...]  # where shots begin, but for the first
    events: tuple[Event, ...]
    shots: tuple[tuple[float, float, frozenset[str]], ...]  # start, end, names of the things in it


def draw_film(path: Path, num_shots: int, seed: int) -> Film:
    """Shots of 4 to 8 s; in every second one something happens, in the others nothing does."""
    rng = Random(f"film {seed}")
    second, borders, events, shots = 0.0, [], [], []
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for number in range(num_shots):
            plan = _plan(rng, eventful=number % 2 == 1)
            borders.append(second)
            names = frozenset(thing.name for thing in [*plan.still, *(event.thing for event in plan.events)])
            shots.append((second, second + plan.seconds, names))
            events += [Event(e.sort, e.thing.name, second + e.start_s, second + e.end_s) for e in plan.events]
            for image in render_plan(plan, FPS)[0].frames:
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
            second += plan.seconds
        container.mux(stream.encode(None))
    return Film(path, second, tuple(borders[1:]), tuple(events), tuple(shots))


def _plan(rng: Random, *, eventful: bool) -> Plan:
    while True:
        plan = plan_clip(rng, 1.0, held_out=False)
        if plan.seconds >= 4 and len(plan.events) == eventful and (plan.still or eventful):
            return plan


# ---- precision and recall ----


def measure_films(vlm: smolvlm.VLM, count: int, num_shots: int, folder: Path) -> dict[str, Counter[str]]:
    """right, found and wanted, by method and question."""
    counts: dict[str, Counter[str]] = {}
    nothing_added = Selection(padding_s=0.0)

    def note(name: str, found: Sequence[Segment], wanted: Sequence[tuple[float, float]]) -> None:
        right = _matches([(one.start_s, one.end_s) for one in found], wanted)
        counts.setdefault(name, Counter()).update(right=right, found=len(found), wanted=len(wanted))

    for seed in range(FIRST_SEED, FIRST_SEED + count):
        film = draw_film(folder / f"film{seed}.mp4", num_shots, seed)
        index = build_index(vlm, film.path, cache=folder)
        for sort, question in QUESTIONS.items():
            wanted = [(event.start_s, event.end_s) for event in film.events if event.sort == sort]
            ours = find_highlights(vlm, index, criteria=question, selection=nothing_added)
            note(f"highlights, {question}", ours.segments, wanted)
            theirs = find_published(vlm, film.path, criteria=question, question=question, system=None)
            note(f"published, {question}", theirs.segments, wanted)
        name = Random(seed).choice(sorted(film.shots[num_shots // 2][2]))
        wanted = [(start, end) for start, end, names in film.shots if name in names]
        hits = search(vlm, [index], PRESENT.format(thing=_with_article(name)), top=len(wanted))
        note("search, Is there ... in the video?", [hit.segment for hit in hits], wanted)
        chapters = find_chapters(vlm, index, shortest_s=4.0)
        near = _near([one.start_s for one in chapters[1:]], film.borders_s)
        borders = Counter(right=near, found=len(chapters) - 1, wanted=len(film.borders_s))
        counts.setdefault("chapters, borders", Counter()).update(borders)
        print(f"film {seed - FIRST_SEED + 1} of {count}", file=sys.stderr)
    return counts


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _matches(found: Sequence[tuple[float, float]], wanted: Sequence[tuple[float, float]]) -> int:
    """How many of the wanted are found; each found one counts for one. At IoU over 0.5 pairs are unique."""
    return sum(any(_iou(one, other) >= HIT_IOU for one in found) for other in wanted)


def _iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def _near(found: Sequence[float], wanted: Sequence[float]) -> int:
    return sum(any(abs(one - other) <= BORDER_S for one in found) for other in wanted)


def shares(counts: Counter[str]) -> dict[str, float]:
    right, found, wanted = (counts[name] for name in ("right", "found", "wanted"))
    return {"precision": right / max(1, found), "recall": right / max(1, wanted), "found": found, "wanted": wanted}


# ---- speed ----


def draw_long_film(path: Path, minutes: float) -> Path:
    """720p30: a minute is drawn and coded, then its packets are written again and again."""
    minute = path.with_name("minute.mp4")
    rng, size, written = Random("speed"), SPEED_SIZE, 0
    with av.open(str(minute), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=SPEED_FPS, options={"preset": "veryfast", "g": "60", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        while written < 60 * SPEED_FPS:
            for image in render_plan(_plan(rng, eventful=written % 2 == 0), 10)[0].frames:
                frame = av.VideoFrame.from_image(image.resize(size, Image.Resampling.BICUBIC))
                for _ in range(SPEED_FPS // 10):
                    frame.pts, written = written, written + 1
                    container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path), "w") as container, av.open(str(minute)) as first:
        copied = container.add_stream_from_template(first.streams.video[0])
        length = first.streams.video[0].duration
        for lap in range(max(1, round(minutes * 60 * SPEED_FPS / written))):
            with av.open(str(minute)) as again:
                for packet in again.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + lap * length, packet.dts + lap * length
                        packet.stream = copied
                        container.mux(packet)
    return path


def timed(kind: str, film: Path, cache: Path, pieces: int | None) -> dict[str, float]:
    """Seconds and most memory of one run, in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, "--film", str(film), "--cache", str(cache)]
    words += ["--pieces", str(pieces)] if pieces else []
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def child(kind: str, film: Path, cache: Path, pieces: int | None) -> None:
    started = time.perf_counter()
    vlm = smolvlm.load()
    runs: dict[str, Callable[[], object]] = {
        "first": lambda: find_highlights(vlm, film, criteria="Does anything move?", cache=cache),
        "other criteria": lambda: find_highlights(vlm, film, criteria="Does anything appear?", cache=cache),
        "published": lambda: find_published(
            vlm, film, criteria="Does anything move?", question="Does anything move?", system=None, pieces=pieces
        ),
    }
    runs[kind]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak / 1e6}))


def measure_speed(minutes: float, pieces: int | None, folder: Path) -> dict[str, dict[str, float]]:
    film = draw_long_film(folder / "long.mp4", minutes)
    rows = {kind: timed(kind, film, folder / "cache", pieces) for kind in ("first", "other criteria", "published")}
    if pieces:  # spaced evenly, so their mean is that of all
        count = -(-minutes * 60 // 10)
        rows["published, all pieces by those"] = {"seconds": rows["published"]["seconds"] * count / pieces}
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--shots", type=int, default=20, help="of a film; half of them with an event")
    parser.add_argument("--speed-minutes", type=float, default=0.0, help="length of the film that is timed; 0: none")
    parser.add_argument("--pieces", type=int, help="time only so many of the demo's pieces, spaced over the film")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--film", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.child:
        child(options.child, options.film, options.cache, options.pieces)
        return
    result: dict[str, Any] = {"films": options.films, "shots": options.shots, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="smolvlm-highlights-") as name:
        if options.films:
            vlm = smolvlm.load()
            counts = measure_films(vlm, options.films, options.shots, Path(name))
            result["quality"] = {row: shares(count) for row, count in counts.items()}
            print("| what, question | precision | recall | found | wanted |\n|---|---|---|---|---|")
            for row, share in result["quality"].items():
                figures = f"{share['precision']:.2f} | {share['recall']:.2f} | {share['found']} | {share['wanted']}"
                print(f"| {row} | {figures} |")
        if options.speed_minutes:
            result["speed"] = measure_speed(options.speed_minutes, options.pieces, Path(name))
            print(f"\n| {options.speed_minutes:g} min of 720p30 | seconds | peak MB |\n|---|---|---|")
            for row, measured in result["speed"].items():
                print(f"| {row} | {measured['seconds']:.1f} | {measured.get('peak_mb', float('nan')):.0f} |")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
