"""Nothing a stranger can send raises what nobody expected: a small run of benchmarks/server_fuzz.py, and hypothesis."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
if not hasattr(os, "fork"):
    pytest.skip("cases run in forked processes", allow_module_level=True)

from benchmarks import server_fuzz
from benchmarks.server_cases import ATOMS, TARGETS, WORDS
from benchmarks.server_fuzz import run, try_case
from smolvlm.errors import MediaError
from smolvlm.server.bodies import load_json
from smolvlm.server.failures import RequestError
from smolvlm.server.parts import read_chat, read_responses_input
from smolvlm.server.settings import Limits, Settings
from smolvlm.server.sources import Access, fill, refer

SEED = 11
KEYS = st.sampled_from(WORDS) | st.text(max_size=4)
LEAVES = st.sampled_from([atom for atom in ATOMS if not isinstance(atom, dict | list)]) | st.text(max_size=30)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", list(TARGETS))
def test_hundreds_of_damaged_requests_raise_what_is_expected(target: str) -> None:
    cases = 60 if target == "videos" else 250
    found = run(cases, SEED, [target])
    assert not found["findings"] and found["cases"] == cases


@given(VALUES)
@QUICK
def test_any_value_in_the_place_of_messages_is_read_or_refused(value: Any) -> None:
    for read in (lambda: read_chat(value, Settings()), lambda: read_responses_input(value, "x", Settings())):
        try:
            read()
        except RequestError as error:
            assert error.status in (400, 413)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
@QUICK
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    try:
        value = load_json(raw, Limits())
    except RequestError as error:
        assert error.status in (400, 413)
        return
    assert json.loads(raw) == value or "NaN" in repr(value) or value != value


@given(st.text(max_size=60) | st.text(alphabet="datafilehttps:/;,base64=AZaz09+ .\\\0%", max_size=80))
@QUICK
def test_any_text_for_a_picture_is_bytes_or_refused(text: str) -> None:
    try:
        found = fill(refer(text, "image", "picture 1", Settings(), "x"), Access.of(Settings()))
    except (RequestError, MediaError):
        return
    assert isinstance(found.content, bytes)


def test_a_case_is_the_same_everywhere() -> None:
    for target in ("bodies", "data URIs", "headers"):
        assert [try_case(target, 1, n) for n in range(20)] == [try_case(target, 1, n) for n in range(20)]


def test_what_nobody_expected_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(chance: random.Random) -> str:
        if chance.random() < 0.2:
            raise KeyError("surprise")
        return "fine"

    monkeypatch.setitem(server_fuzz.TARGETS, "bodies", (stumble, 1.0))
    found = run(100, SEED, ["bodies"])
    assert 5 < len(found["findings"]) <= 20 and "surprise" in found["findings"][0]["what"]
    assert found["targets"]["bodies"]["outcomes"]["UNEXPECTED KeyError"] >= len(found["findings"])


def test_a_process_that_ends_or_hangs_is_found_and_the_cases_behind_it_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(chance: random.Random) -> str:
        roll = chance.random()
        if roll < 0.05 and os.getpid() != parent:
            os._exit(9) if roll < 0.03 else server_fuzz.time.sleep(60)
        return "fine"

    parent = os.getpid()
    monkeypatch.setattr(server_fuzz, "STUCK_S", 1.0)
    monkeypatch.setitem(server_fuzz.TARGETS, "bodies", (die, 1.0))
    found = run(60, SEED, ["bodies"])
    outcomes = found["targets"]["bodies"]["outcomes"]
    assert found["cases"] == 60 and {"fine", "UNEXPECTED crash", "UNEXPECTED hang"} == set(outcomes)
    assert len(found["findings"]) == 60 - outcomes["fine"]
