"""Servers of server_load.py: their processes, what memory they hold, and the rival's copy of the bundled checkpoint.

Linux only.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import smolvlm

NANO = Path(smolvlm.__file__).parent / "assets" / "nano"
DTYPE = "float32"
START_S = 180
END_S = 60
SAMPLE_S = 0.25
FIFTHS = 5


@contextmanager
def server(command: Sequence[str], port: int, ready: str) -> Iterator[int]:
    """A server's process while it is needed; its number. Ends this script when it doesn't start, or end when told."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            wait_for(f"http://127.0.0.1:{port}{ready}", process)
            yield process.pid
            process.terminate()
            process.wait(END_S)
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} doesn't answer: exit code {process.poll()}.")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def our_command(port: int) -> list[str]:
    return [sys.executable, "-m", "smolvlm", "serve", "--model", "nano", "--dtype", DTYPE, "--port", str(port)]


def rival_command(directory: Path, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("transformers"))
    return [program, "serve", str(directory), "--device", "cpu", "--dtype", DTYPE, "--host", "127.0.0.1",
            "--port", str(port)]  # fmt: skip


def write_idefics3(target: Path) -> None:
    """The bundled checkpoint under the older name of its architecture: the same keys, shapes and mathematics."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                 "generation_config.json", "model.safetensors"):  # fmt: skip
        shutil.copyfile(NANO / name, target / name)
    config = json.loads((NANO / "config.json").read_text())
    config |= {"model_type": "idefics3", "architectures": ["Idefics3ForConditionalGeneration"]}
    config["vision_config"]["model_type"] = "idefics3_vision"
    (target / "config.json").write_text(json.dumps(config))
    whole = json.loads((NANO / "processor_config.json").read_text())
    pictures = {**whole["image_processor"], "image_processor_type": "Idefics3ImageProcessor"}
    own = {"processor_class": "Idefics3Processor", "image_seq_len": whole["image_seq_len"], "image_processor": pictures}
    (target / "processor_config.json").write_text(json.dumps(own))


class Memory(threading.Thread):
    """MB that a process and all below it hold, from moment to moment, until `stop`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.samples: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.samples.append(sum(resident_mb(one) for one in family(self._pid)))

    def stop(self) -> list[float]:
        """All samples."""
        self._ended.set()
        self.join()
        return self.samples


def last_half(samples: Sequence[float]) -> list[float]:
    """Medians of the fifths of the last half."""
    late = samples[len(samples) // 2 :]
    size = len(late) // FIFTHS
    assert size, f"{len(samples)} samples are too few: run longer"
    return [median(late[number * size : (number + 1) * size]) for number in range(FIFTHS)]


def family(pid: int) -> list[int]:
    """A process and those below it."""
    try:
        words = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [pid, *itertools.chain.from_iterable(family(int(child)) for child in itertools.chain.from_iterable(words))]


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def counters(port: int) -> dict[str, float]:
    """What the server tells of itself."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return {name: float(value) for name, value in re.findall(r"^smolvlm_(\w+) (\S+)$", text, re.MULTILINE)}
