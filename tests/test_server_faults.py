"""Clients that vanish, lie, stall and attack: a small run of benchmarks/server_faults.py, and what it rests on."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("fastapi")
if sys.platform != "linux":
    pytest.skip("the run looks at processes through /proc", allow_module_level=True)

from benchmarks import server_faults
from benchmarks.server_bombs import BODIES, PICTURES, VIDEOS, gif, slow_film


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return server_faults.run(requests=60, clients=6, kills=1)


def test_nothing_goes_otherwise_than_it_should(found: dict[str, Any]) -> None:
    assert not found["wrong"]
    assert found["reached"] == 0


def test_every_kind_of_fault_is_tried(found: dict[str, Any]) -> None:
    assert set(server_faults.KINDS) <= set(found["kinds"])
    assert found["kinds"]["its worker is killed"] == {422: 1}
    assert found["kinds"]["a film that takes for ever"] == {422: 1}


def test_healthy_requests_are_answered_among_them(found: dict[str, Any]) -> None:
    healthy = {name: counts for name, counts in found["kinds"].items() if name.startswith("healthy")}
    assert len(healthy) == 8 and all(set(counts) == {200} for counts in healthy.values())


def test_the_judge_knows_a_refusal_from_anything_else() -> None:
    good = b'{"error": {"message": "m", "type": "t", "param": null, "code": null}}'
    assert server_faults.judged((400, good), 400) == (400, None)
    assert server_faults.judged((500, good), 400)[1]
    assert server_faults.judged((400, b"Bad Request"), 400)[1]
    assert server_faults.judged((400, good.replace(b'"m"', b'"Traceback (most recent call last)"')), 400)[1]


def test_the_schedule_is_the_same_each_time_and_a_quarter_of_it_is_healthy() -> None:
    names = server_faults.schedule(1000, 7)
    assert names == server_faults.schedule(1000, 7) and 980 <= len(names) <= 1030
    assert sum(name.startswith("healthy") for name in names) >= 250


def test_the_bombs_are_small() -> None:
    slow = {"png of 1.6 gigapixels", "png with too many rows"}  # to make
    makers = [make for name, make in [*BODIES.items(), *PICTURES.items(), *VIDEOS.items()] if name not in slow]
    assert all(len(make()) < 6_000_000 for make in [*makers, slow_film])
    assert len(gif(3000, 100)) < 1_000_000
