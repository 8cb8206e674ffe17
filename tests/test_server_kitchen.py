"""The media workers: what they give back, and that one which hangs, dies or lies hurts one request alone."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import BusyError, ImageError, MediaError, PromptError
from smolvlm.server.failures import RequestError
from smolvlm.server.kitchen import Kitchen, WorkerError
from smolvlm.server.settings import Limits, Settings
from tests.cooks import Cook, order

DEMO = Path(__file__).parents[1] / "src" / "smolvlm" / "assets" / "demo"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are tested where processes can be forked")


def settings(**limits: Any) -> Settings:
    return Settings(limits=Limits(**{"workers": 2, "decode_s": 60.0, **limits}))


def cooking(
    work: Callable[[Kitchen], Awaitable[Any]], processor: Any = None, context: int = 4096, **limits: Any
) -> Any:
    kitchen = Kitchen(processor or Cook(), settings(**limits), context=context)
    try:
        return asyncio.run(asyncio.wait_for(work(kitchen), 120))
    finally:
        kitchen.close()


def test_each_order_gets_its_own_answer() -> None:
    async def work(kitchen: Kitchen) -> list[Any]:
        return await asyncio.gather(*(kitchen.prepare(order(f"echo {number} {number % 4}")) for number in range(40)))

    for number, inputs in enumerate(cooking(work)):
        assert inputs.input_ids.tolist() == [number]
        if number % 4:
            assert inputs.pixel_values.shape[0] == number % 4 and (inputs.pixel_values == number).all()
        else:
            assert inputs.pixel_values is None


def test_large_pixels_come_over_whole() -> None:
    async def work(kitchen: Kitchen) -> Any:
        return await kitchen.prepare(order("echo 7 30000"))

    pixels = cooking(work, context=30_001).pixel_values  # 23 MB, many times what a pipe holds
    assert pixels.shape == (30_000, 3, 8, 8) and (pixels == 7).all()


@pytest.mark.parametrize("kind", [ImageError, PromptError, BusyError])
def test_errors_of_the_library_arrive_as_what_they_are(kind: type[Exception]) -> None:
    word = {ImageError: "refuse", PromptError: "confuse", BusyError: "stall"}[kind]

    async def work(kitchen: Kitchen) -> Any:
        with pytest.raises(kind):
            await kitchen.prepare(order(word))
        return kitchen.died, kitchen.killed

    assert cooking(work) == (0, 0)


def test_a_mistake_of_ours_arrives_with_its_trace_and_ends_no_worker() -> None:
    async def work(kitchen: Kitchen) -> Any:
        first = await kitchen.prepare(order("process"))
        with pytest.raises(WorkerError, match="a mistake of ours"):
            await kitchen.prepare(order("stumble"))
        return first.input_ids[0] == (await kitchen.prepare(order("process"))).input_ids[0]

    assert cooking(work, workers=1)


def test_a_worker_that_hangs_is_killed_at_the_deadline_and_the_others_work_on() -> None:
    async def work(kitchen: Kitchen) -> Any:
        await asyncio.gather(*(kitchen.prepare(order("sleep 0.2")) for _ in range(2)))  # both are up
        started = time.monotonic()
        hanging = asyncio.create_task(kitchen.prepare(order("hang")))
        await asyncio.sleep(0.1)
        healthy = [(await kitchen.prepare(order(f"echo {number}"))).input_ids[0] for number in range(5)]
        between = time.monotonic() - started
        with pytest.raises(RequestError) as error:
            await hanging
        return healthy, between, time.monotonic() - started, error.value, kitchen.killed

    healthy, between, total, error, killed = cooking(work, decode_s=3.0)
    assert healthy == [0, 1, 2, 3, 4] and between < total
    assert (error.status, error.code, killed) == (422, "media_too_slow", 1)
    assert 2.9 < total < 30


@pytest.mark.parametrize("word", ["die", "crash"])
def test_a_worker_that_dies_hurts_its_own_request_alone(word: str) -> None:
    async def work(kitchen: Kitchen) -> Any:
        orders = [order(word if number % 5 == 2 else f"echo {number} 1") for number in range(20)]
        return await asyncio.gather(*map(kitchen.prepare, orders), return_exceptions=True), kitchen.died

    answers, died = cooking(work)
    for number, answer in enumerate(answers):
        if number % 5 == 2:
            assert isinstance(answer, RequestError) and (answer.status, answer.code) == (422, "media_crashed")
        else:
            assert answer.input_ids.tolist() == [number]
    assert died == 4


def test_a_worker_killed_while_it_decodes_is_replaced() -> None:
    async def work(kitchen: Kitchen) -> Any:
        process = int((await kitchen.prepare(order("process"))).input_ids[0])
        busy = asyncio.create_task(kitchen.prepare(order("sleep 60")))
        await asyncio.sleep(0.3)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RequestError, match="died"):
            await busy
        return process, int((await kitchen.prepare(order("process"))).input_ids[0])

    before, after = cooking(work, workers=1)
    assert before != after


def test_a_worker_killed_while_it_had_nothing_to_do_costs_nobody_anything() -> None:
    async def work(kitchen: Kitchen) -> Any:
        process = int((await kitchen.prepare(order("process"))).input_ids[0])
        os.kill(process, signal.SIGKILL)
        await asyncio.sleep(0.3)
        return [(await kitchen.prepare(order(f"echo {number}"))).input_ids[0] for number in range(3)]

    assert cooking(work, workers=1) == [0, 1, 2]


def test_a_worker_that_answers_nonsense_is_replaced() -> None:
    async def work(kitchen: Kitchen) -> Any:
        with pytest.raises(RequestError):
            await kitchen.prepare(order("lie"))
        return (await kitchen.prepare(order("echo 3"))).input_ids[0]

    assert cooking(work, workers=1) == 3


def test_a_worker_takes_no_more_memory_than_it_may() -> None:
    if sys.platform != "linux":
        pytest.skip("memory of a process is bounded on Linux")

    async def work(kitchen: Kitchen) -> Any:
        await kitchen.prepare(order("swell 100"))
        with pytest.raises(MediaError, match="more memory"):
            await kitchen.prepare(order("swell 2000"))
        return kitchen.died, (await kitchen.prepare(order("echo 3"))).input_ids[0]

    assert cooking(work, workers=1, worker_bytes=1_000_000_000) == (0, 3)


def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    async def work(kitchen: Kitchen) -> Any:
        await kitchen.prepare(order("process"))
        busy, waiting = (asyncio.create_task(kitchen.prepare(order(f"sleep {60 + i}"))) for i in range(2))
        await asyncio.sleep(0.3)
        state = kitchen.working, kitchen.waiting
        busy.cancel()
        waiting.cancel()
        await asyncio.wait((busy, waiting))
        started = time.monotonic()
        assert (await kitchen.prepare(order("echo 3"))).input_ids[0] == 3
        return state, kitchen.killed, time.monotonic() - started

    state, killed, seconds = cooking(work, workers=1)
    assert state == (1, 1) and killed == 1 and seconds < 30


def test_orders_fail_at_once_when_no_worker_can_be_started(caplog: pytest.LogCaptureFixture) -> None:
    async def work(kitchen: Kitchen) -> Any:
        for _ in range(2):
            with pytest.raises(RequestError, match="died"):
                await kitchen.prepare(order("echo 1"))

    class Stubborn(Cook):
        def __reduce__(self) -> Any:
            raise TypeError("can't be sent")

    cooking(work, Stubborn(), workers=1)
    assert "No media worker can be started" in caplog.text


def test_only_so_many_may_wait() -> None:
    async def work(kitchen: Kitchen) -> Any:
        await kitchen.prepare(order("process"))
        while kitchen.working:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(kitchen.prepare(order("sleep 1"))) for _ in range(3)]
        await asyncio.sleep(0.3)
        with pytest.raises(BusyError):
            await kitchen.prepare(order("echo 1"))
        return await asyncio.gather(*waiting)

    assert len(cooking(work, workers=1, queue=2)) == 3


def test_closing_ends_the_processes_and_those_who_wait() -> None:
    async def work(kitchen: Kitchen) -> Any:
        process = int((await kitchen.prepare(order("process"))).input_ids[0])
        waiting = [asyncio.create_task(kitchen.prepare(order("sleep 60"))) for _ in range(3)]
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await asyncio.to_thread(kitchen.close)
        answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
        return process, time.monotonic() - started, answers

    process, seconds, answers = cooking(work, workers=1)
    assert all(isinstance(answer, RequestError) for answer in answers) and seconds < 20
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


SCRIPT = """
import asyncio, sys
from smolvlm.server.kitchen import Kitchen
from smolvlm.server.settings import Limits, Settings
from tests.cooks import Cook, order

async def main():
    kitchen = Kitchen(Cook(), Settings(limits=Limits(workers=1)), context=9)
    print(int((await kitchen.prepare(order("process"))).input_ids[0]), flush=True)
    print("torch" in sys.modules, flush=True)
    if sys.argv[1] == "hang":
        await kitchen.prepare(order("hang"))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["leave", "hang"])
def test_workers_go_when_the_server_goes_however_it_ends(how: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "main.py"), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert process.stdout.readline() == "False\n"
        if how == "hang":
            time.sleep(0.5)
            process.kill()
        process.wait(30)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlives its server")


def test_threads_and_processes_are_gone_after_closing() -> None:
    before = threading.active_count()

    async def work(kitchen: Kitchen) -> Any:
        return await kitchen.prepare(order("echo 1"))

    cooking(work)
    gc.collect()
    assert threading.active_count() <= before
    assert not [one for one in multiprocessing.active_children() if one.name == "smolvlm-media"]
