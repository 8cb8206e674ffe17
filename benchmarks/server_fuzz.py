"""Does anything a stranger can send raise something that nobody expected, or end or hang the process?

    python benchmarks/server_fuzz.py --cases 200000
    python benchmarks/server_fuzz.py --cases 5000 --targets pictures videos --seed 3

Plain seeded mutation (case 17 of seed 7 is the same everywhere): bodies of every route, messages, media strings, data
URIs, addresses, headers, and the media door with damaged files of every format. Expected are the library's errors and
pydantic's, and an answer that has its form. Anything else is a finding, and so is a process that dies or stays in one
case for a minute. Prints a table, then one JSON line; exits 1 with findings.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from server_cases import TARGETS

STUCK_S = 60.0


def try_case(name: str, seed: int, number: int) -> tuple[str, str | None]:
    """(what came of it, the trace of what nobody expected)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TARGETS[name][0](random.Random(f"{name} {seed} {number}")), None
    except Exception as error:
        return f"UNEXPECTED {type(error).__name__}", traceback.format_exc()


def work(name: str, seed: int, start: int, stop: int, place: Any, results: Any) -> None:
    """Cases of one target in a process of its own, which a decoder may end. place: the case that it is in."""
    with open(os.devnull, "wb") as nowhere:  # decoders complain there
        os.dup2(nowhere.fileno(), 2)
    counts: Counter[str] = Counter()
    traces: list[tuple[int, str]] = []
    for number in range(start, stop):
        place.value = number
        outcome, trace = try_case(name, seed, number)
        counts[outcome] += 1
        if trace is not None and len(traces) < 20:
            traces.append((number, trace))
    results.send((counts, traces))


def run_target(name: str, cases: int, seed: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """All cases of a target, going on behind one that ends or blocks its process."""
    context = multiprocessing.get_context("fork")
    counts: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    start = 0
    while start < cases:
        stop = min(cases, start + 2000)
        place, (receiving, sending) = context.Value("q", start), context.Pipe(duplex=False)
        process = context.Process(target=work, args=(name, seed, start, stop, place, sending))
        process.start()
        sending.close()
        outcome = follow(process, place, receiving)
        if outcome is not None:
            counts.update(outcome[0])
            findings += outcome[1]
            start = stop
            continue
        hung = process.is_alive()
        process.kill()
        process.join()
        said = f"hung for {STUCK_S:g} s" if hung else f"ended the process ({process.exitcode})"
        findings.append((place.value, said))
        counts[f"UNEXPECTED {'hang' if hung else 'crash'}"] += 1
        rerun = run_range(name, seed, start, place.value)
        counts.update(rerun)
        start = place.value + 1
    return counts, findings


def run_range(name: str, seed: int, start: int, stop: int) -> Counter[str]:
    """Cases that are known to end, once more, because their counts were lost."""
    counts: Counter[str] = Counter()
    for number in range(start, stop):
        counts[try_case(name, seed, number)[0]] += 1
    return counts


def follow(process: Any, place: Any, receiving: Any) -> tuple[Counter[str], list[tuple[int, str]]] | None:
    """What a process found; None when it ended before, or stays in one case."""
    last, since = place.value, time.monotonic()
    while True:
        if receiving.poll(0.2):
            try:
                found: tuple[Counter[str], list[tuple[int, str]]] = receiving.recv()
            except EOFError:
                process.join()
                return None
            process.join()
            return found
        if place.value != last:
            last, since = place.value, time.monotonic()
        elif time.monotonic() - since > STUCK_S:
            return None


def run(cases: int, seed: int = 7, targets: list[str] | None = None) -> dict[str, Any]:
    """Everything that came of it. "findings" is empty when all was expected."""
    chosen = {name: share for name, (_, share) in TARGETS.items() if targets is None or name in targets}
    total = sum(chosen.values())
    rows: dict[str, Any] = {}
    findings: list[dict[str, Any]] = []
    for name, share in chosen.items():
        count = max(1, round(cases * share / total))
        started = time.monotonic()
        counts, found = run_target(name, count, seed)
        seconds = time.monotonic() - started
        rows[name] = {
            "cases": sum(counts.values()),
            "seconds": round(seconds, 1),
            "outcomes": dict(counts.most_common()),
        }
        findings += [{"target": name, "seed": seed, "case": number, "what": what} for number, what in found]
    return {"cases": sum(row["cases"] for row in rows.values()), "targets": rows, "findings": findings}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS))
    options = parser.parse_args()
    found = run(options.cases, options.seed, options.targets)
    print("| what | cases | cases/s | outcomes |\n|---|---|---|---|")
    for name, row in found["targets"].items():
        outcomes = ", ".join(f"{outcome}: {count}" for outcome, count in list(row["outcomes"].items())[:8])
        print(f"| {name} | {row['cases']} | {row['cases'] / max(row['seconds'], 0.1):,.0f} | {outcomes} |")
    print(f"\n{found['cases']} cases, {len(found['findings'])} findings")
    for finding in found["findings"][:10]:
        print(f"{finding['target']}, case {finding['case']}: {finding['what']}")
    print(json.dumps({**found, "findings": found["findings"][:50]}))
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
