"""examples/ray_serve.py on a real cluster of this machine: replicas answer, are restarted in turn, and are replaced.

Ray is in no extra: pip install 'ray[serve]'.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from benchmarks.server_client import Reply
from tests.commands import REPOSITORY
from tests.replicas import QUESTIONS, answers_of_the_library, ask_all_the_while, check, free_ports
from tests.serving import call, until

ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install 'ray[serve]'")
serve = pytest.importorskip("ray.serve", reason="Ray Serve isn't installed: pip install 'ray[serve]'")
pytestmark = pytest.mark.cluster

CPUS = 4  # places for replicas; they share what the machine has
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",  # a busy machine takes long to start a process
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "2",
}


@pytest.fixture(scope="module")
def answers() -> list[str]:
    return answers_of_the_library()


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def example(port: int) -> Iterator[ModuleType]:
    """The example, running."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(REPOSITORY / "examples"))
        ray.init(num_cpus=CPUS, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
        try:
            with suppress(
                TimeoutError
            ):  # on a busy machine its door takes longer than Ray waits, and comes all the same
                serve.start(http_options={"port": port})
            import ray_serve

            serve.run(ray_serve.app)
            yield ray_serve
        finally:
            serve.shutdown()
            ray.shutdown()
            sys.modules.pop("ray_serve", None)


def ask_during(port: int, work: Any) -> tuple[list[Reply], list[int]]:
    return asyncio.run(ask_all_the_while(port, work))


def replicas() -> set[str]:
    """Names of the running ones."""
    names = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    return {name for name in names if name.startswith("SERVE_REPLICA::")}


def running() -> int:
    """How many answer, as Ray counts them."""
    (deployment,) = serve.status().applications["default"].deployments.values()
    return int(deployment.replica_states.get("RUNNING", 0))


def answered(port: int) -> set[str]:
    """When each replica had its first request of chat, of those that can be found: the door asks any of them."""
    text = call(f"http://127.0.0.1:{port}", "/metrics").body.decode()
    return {line for line in text.splitlines() if line.startswith('smolvlm_http_requests_created{route="/v1/chat')}


def test_both_replicas_answer_as_the_library_does(example: ModuleType, port: int, answers: list[str]) -> None:
    seen: set[str] = set()

    def wait_for_both() -> None:
        until(lambda: len(seen.update(answered(port)) or seen) == 2)

    replies, asked = ask_during(port, wait_for_both)
    assert len(replies) >= len(QUESTIONS)
    check(replies, asked, answers)
    assert running() == 2


def test_a_rolling_restart_loses_no_request(example: ModuleType, port: int, answers: list[str]) -> None:
    before = replicas()
    assert len(before) == 2
    replies, asked = ask_during(port, lambda: serve.run(example.Replica.bind("nano")))
    check(replies, asked, answers)
    until(lambda: running() == 2)
    assert not before & replicas()


def test_a_replica_that_dies_is_replaced(example: ModuleType, port: int, answers: list[str]) -> None:
    before = replicas()
    victim = min(before)
    ray.kill(ray.get_actor(victim, namespace="serve"))
    until(lambda: running() == 2 and victim not in replicas() and len(replicas()) == 2)
    assert len(before & replicas()) == 1
    replies, asked = ask_during(port, lambda: until(lambda: running() == 2))
    assert replies
    for reply, number in zip(replies, asked, strict=True):
        assert reply.text.strip() == answers[number].strip()
