"""A server's first moments and its last: a model that still loads, an orderly end, an end that is not waited for."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from smolvlm.cli import main
from smolvlm.errors import ConfigError
from smolvlm.server.run import Server
from smolvlm.server.settings import Limits, Settings
from smolvlm.vlm import VLM, load
from tests.serving import WAIT_S, Reply, Stream, call, metric, serving, until, user, wait_until_ready

CHAT = "/v1/chat/completions"
LONG = {"messages": user("Tell a story."), "max_tokens": 3000, "temperature": 2, "seed": 1, "loop_guard": False}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load()


def test_a_server_that_still_loads_says_so() -> None:
    go_on = threading.Event()

    def slow() -> VLM:
        assert go_on.wait(WAIT_S)
        return load()

    server = Server(slow, Settings(port=0, limits=Limits(workers=1)))
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    until(lambda: call(server.url, "/ready").json == {"status": "loading"})
    assert call(server.url, "/ready").status == 503 and call(server.url, "/health").status == 200
    reply = call(server.url, CHAT, {"messages": user("Hi")})
    assert reply.status == 503 and reply.error["code"] == "loading" and "retry-after" in reply.headers
    go_on.set()
    wait_until_ready(server.url)
    assert call(server.url, CHAT, {"messages": user("Hi"), "max_tokens": 1}).status == 200
    server.drain()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_server_that_still_loads_can_be_stopped() -> None:
    go_on = threading.Event()
    server = Server(lambda: load() if go_on.wait(WAIT_S) else load(), Settings(port=0, limits=Limits(workers=1)))
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    until(lambda: call(server.url, "/ready").json == {"status": "loading"})
    server.drain()
    thread.join(WAIT_S / 2)
    assert not thread.is_alive() and not go_on.is_set()
    go_on.set()


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def fail() -> VLM:
        raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        Server(fail, Settings(port=0, limits=Limits(workers=1))).serve_until_stopped()


def test_an_adapter_with_the_name_of_the_model_is_refused(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLM, "adapters", ("nano",))
    with pytest.raises(ConfigError, match="both called 'nano'"):
        Server(vlm, Settings(port=0, limits=Limits(workers=1))).serve_until_stopped()


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 2
    assert f"can't listen on 127.0.0.1, port {port}" in capsys.readouterr().err


class Served:
    """`smolvlm serve` in a process of its own, ready."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "smolvlm", "serve", "--port", "0", "--workers", "1", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
        assert self.process.stderr is not None
        self.url = re.findall(r"http://[\d.:]+", self.process.stderr.readline())[0]
        wait_until_ready(self.url)

    def end(self) -> int:
        try:
            return self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            assert self.process.stderr is not None
            self.process.stderr.close()


def test_sigterm_finishes_what_is_being_answered_and_takes_no_more() -> None:
    served = Served("--grace-s", str(WAIT_S))
    with ThreadPoolExecutor(8) as threads:
        body = {**LONG, "max_tokens": 400, "stream": True, "structured_outputs": {"regex": "[a-z]{3000}"}}
        waiting = [threads.submit(call, served.url, CHAT, body) for _ in range(4)]
        until(lambda: metric(served.url, "smolvlm_requests_running") == 4)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: call(served.url, "/ready").json == {"status": "draining"})
        assert call(served.url, "/ready").status == 503 and call(served.url, "/health").status == 200
        reply = call(served.url, CHAT, {"messages": user("Hi")})
        assert reply.status == 503 and reply.error["code"] == "shutting_down"
        replies: list[Reply] = [one.result(WAIT_S) for one in waiting]
    for one in replies:
        assert one.events[-1] == "[DONE]" and one.events[-2]["choices"][0]["finish_reason"] == "length"
    assert served.end() == 0


def test_a_server_that_leaves_still_answers_for_a_while(vlm: VLM) -> None:
    with serving(vlm, leave_s=1.5, grace_s=WAIT_S) as server:
        stream = Stream(server.url, {**LONG, "structured_outputs": {"regex": "[a-z]{5000}"}})
        server.drain()
        until(lambda: call(server.url, "/ready").json == {"status": "draining"})
        assert call(server.url, CHAT, {"messages": user("Hi"), "max_tokens": 1}).status == 200
        until(lambda: call(server.url, CHAT, {"messages": user("Hi"), "max_tokens": 1}).status == 503)
        stream.leave()


def test_what_takes_longer_than_the_grace_is_cut_off_with_an_error() -> None:
    served = Served("--grace-s", "0.2")
    stream = Stream(served.url, {**LONG, "structured_outputs": {"regex": "[a-z]{5000}"}})
    served.process.send_signal(signal.SIGINT)
    *_, last = [line for line in stream.rest().decode().splitlines() if line]
    assert set(json.loads(last.removeprefix("data: "))) == {"error"} and "cut" in last
    assert served.end() == 0
