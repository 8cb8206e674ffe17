"""The load test's parts: what it asks, what counts as wrong or lost, memory, the rival's copy. Nothing is timed."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import smolvlm
from smolvlm.vlm import VLM
from tests.commands import REPOSITORY
from tests.replicas import free_ports
from tests.serving import serving

COUNT = 12


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load(dtype="float32")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/server_load.py, whose neighbours are imported by their plain names, as when it is run."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("server_load")


def questions(load: ModuleType, vlm: VLM) -> list[Any]:
    return [load.make_question(vlm, index, load.WHOLE_MIX, plain=False) for index in range(COUNT)]


def run(load: ModuleType, port: int, asked: list[Any], seconds: float = 1.0) -> Any:
    return asyncio.run(load.run_clients(port, 4, seconds, asked, None, load.OURS))


def test_a_server_gives_all_clients_the_librarys_answers_and_what_differs_is_counted(
    load: ModuleType, vlm: VLM
) -> None:
    asked = questions(load, vlm)
    assert {question.kind for question in asked} == {"picture", "text", "several", "video"}
    assert {question.streamed for question in asked} == {True, False}
    changed = [dataclasses.replace(question, text=question.text + "!") for question in asked]
    with serving(vlm) as server:
        port = int(server.url.rpartition(":")[2])
        found, off = run(load, port, asked), run(load, port, changed, 0.1)
    row = found.row("mix")
    assert (row["wrong"], row["lost"]) == (0, 0), (found.wrong, found.lost)
    assert row["requests"] == len(found.answered) >= 4
    assert all((reply.first_s is not None) == question.streamed for question, reply in found.answered)
    assert all(0 < (reply.first_s or 1e-9) <= reply.total_s for _, reply in found.answered)
    assert len(off.wrong) == len(off.answered) >= 4
    (port,) = free_ports(1)
    lost = run(load, port, asked[:1], 0.1)
    assert not lost.answered and lost.row("gone")["lost"] == len(lost.lost) >= 4


def test_questions_are_the_same_every_time_and_a_quarter_is_sampled(load: ModuleType, vlm: VLM) -> None:
    first, again = questions(load, vlm), questions(load, vlm)
    assert first == again
    assert sum(question.body["temperature"] > 0 for question in first) == COUNT // 4


def test_memory_is_that_of_a_process_and_all_below_it(load: ModuleType) -> None:
    process = importlib.import_module("server_process")
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'held = bytes([1]) * 2**26; input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as parent:
        while max(map(process.resident_mb, process.family(parent.pid)), default=0) < 64:  # the child's bytes
            assert parent.poll() is None
        assert process.resident_mb(parent.pid) < 64
        memory = process.Memory(parent.pid)
        memory.start()
        while not memory.samples:
            pass
        samples = memory.stop()
        parent.communicate(b"\n")
    assert samples[0] > 64
    assert process.resident_mb(parent.pid) == 0
    assert process.last_half([0.0] * 10 + [1.0, 1, 2, 2, 3, 3, 4, 4, 5, 5]) == [1, 2, 3, 4, 5]


@pytest.mark.reference
def test_the_rivals_copy_is_read_by_transformers_and_says_what_the_library_says(
    load: ModuleType, vlm: VLM, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    load.write_idefics3(tmp_path)
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    question = next(
        one for index in range(COUNT)
        if (one := load.make_question(vlm, index, load.PICTURES_AND_TEXT, plain=True)).kind == "picture"
    )  # fmt: skip
    picture, text = question.body["messages"][0]["content"]
    blocks = [{"type": "image", "url": picture["image_url"]["url"]}, text]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": blocks}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    new = model.generate(**inputs, do_sample=False, max_new_tokens=48)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(new, skip_special_tokens=True).strip() == question.text.strip()
