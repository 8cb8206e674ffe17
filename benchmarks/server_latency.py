"""How much later does the first token come through the server than from the library?

    python benchmarks/server_latency.py                                   the bundled model
    python benchmarks/server_latency.py --size 256m --dtype bfloat16      random weights of a released size
    python benchmarks/server_latency.py --rounds 50

`VLM.stream` up to its first piece, and a streamed chat completion up to its first text, by turns: nobody is favoured by
what else the machine does. A question alone, and a question about a picture of one tile as a JPEG file; each question
and each picture is new, so that nothing is known from before. The server is a process of its own with its defaults, the
client plain sockets on one connection that stays open. Prints a table of medians, then one JSON line.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from PIL import Image

WARM_UP = 5
WAIT_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("256m", "500m", "2.2b"), help="of random weights; else the bundled model")
    parser.add_argument("--dtype", help="default: what is fast and safe")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), options.size)
        more = ["--model", model, *(["--dtype", options.dtype] if options.dtype else [])]
        with subprocess.Popen(
            [sys.executable, "-m", "smolvlm", "serve", "--port", "0", *more], stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                rows = measure(model, options.dtype, first_url(server), options.rounds)
            finally:
                server.terminate()
    print_table(rows)
    print(json.dumps({"model": options.size or "nano", "dtype": options.dtype, "rounds": options.rounds, "rows": rows}))


def write_model(folder: Path, size: str | None) -> str:
    from smolvlm.vlm.standin import geometry, write_standin

    return "nano" if size is None else str(write_standin(folder / size, geometry(size)))


def first_url(server: subprocess.Popen[str]) -> str:
    """Wait until the model is loaded."""
    assert server.stderr is not None
    url = server.stderr.readline().split()[1]
    while "ready" not in server.stderr.readline():
        pass
    return url


def measure(model: str, dtype: str | None, url: str, rounds: int) -> list[dict[str, Any]]:
    import smolvlm

    vlm = smolvlm.load(model, dtype=dtype)
    client = Client(url)
    rows = []
    for job in ("text", "picture"):
        library_s, server_s, bare_s = [], [], []
        for number in range(-WARM_UP, rounds):
            question = f"{rounds + number}: what do you see there?"
            picture = new_picture(number) if job == "picture" else None

            def by_library(question: str = f"{question} ?", picture: bytes | None = picture) -> None:
                next(vlm.stream(question, images=[] if picture is None else [picture], max_new_tokens=8))

            def by_server(question: str = f"{question} !", picture: bytes | None = picture) -> None:
                client.first_piece(question, picture)

            times = [seconds(by_library), seconds(by_server)]
            client.read_rest()
            times.append(seconds(client.ask_health))
            if number >= 0:
                for kept, one in zip((library_s, server_s, bare_s), times, strict=True):
                    kept.append(one)
        more = [server - library for library, server in zip(library_s, server_s, strict=True)]
        rows.append({
            "job": job, "library_ms": 1000 * median(library_s), "server_ms": 1000 * median(server_s),
            "later_ms": 1000 * (median(server_s) - median(library_s)),
            "later_share": median(server_s) / median(library_s) - 1, "pairs_ms": 1000 * median(more),
            "library_p90_ms": 1000 * quantiles(library_s, n=10)[-1],
            "server_p90_ms": 1000 * quantiles(server_s, n=10)[-1], "health_ms": 1000 * median(bare_s),
        })  # fmt: skip
    return rows


def new_picture(number: int) -> bytes:
    """Noise that no one has seen, as JPEG."""
    pixels = np.random.default_rng(number + WARM_UP).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((120, 120)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Client:
    """One connection to the server."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)

    def first_piece(self, question: str, picture: bytes | None) -> None:
        """Returns when the first text is there."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if picture is not None:
            url = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        body = {"messages": [{"role": "user", "content": content}], "stream": True, "max_tokens": 8}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body))
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.read()
        while b'"content":' not in (line := self._response.readline()) or b'"role"' in line:
            assert line, "the stream ended without a text"

    def read_rest(self) -> None:
        """Of the last answer."""
        self._response.read()

    def ask_health(self) -> None:
        """What a request costs that does nothing."""
        self._connection.request("GET", "/health")
        self._connection.getresponse().read()


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{os.cpu_count()} cores; first token, ms, medians (90th percentiles)")
    print(f"{'':<10}{'library':>18}{'server':>18}{'later':>9}{'share':>8}{'GET /health':>13}")
    for row in rows:
        library, server = (f"{row[f'{name}_ms']:.2f} ({row[f'{name}_p90_ms']:.2f})" for name in ("library", "server"))
        later, share = f"{row['later_ms']:+.2f}", f"{row['later_share']:+.0%}"
        print(f"{row['job']:<10}{library:>18}{server:>18}{later:>9}{share:>8}{row['health_ms']:>13.2f}")


if __name__ == "__main__":
    main()
