"""What a server tells of itself, its adapters, many clients at a time, and clients that leave."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError

import smolvlm
from smolvlm import LoraConfig, SmolVLMForConditionalGeneration
from smolvlm.server.run import Server
from smolvlm.server.settings import Limits
from smolvlm.vlm import VLM, load
from tests.adapted import teach
from tests.serving import (
    PICTURE,
    VIDEO,
    WAIT_S,
    Stream,
    call,
    client,
    image_part,
    metric,
    serving,
    until,
    user,
    video_part,
)

CHAT = "/v1/chat/completions"
LONG = {"messages": user("Tell a story."), "max_tokens": 3000, "temperature": 2, "seed": 1, "loop_guard": False}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load()


@pytest.fixture(scope="module")
def server(vlm: VLM) -> Iterator[Server]:
    with serving(vlm) as server:
        yield server


@pytest.fixture
def endless(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer ends by itself."""
    monkeypatch.setattr(vlm._driver, "_end_ids", frozenset())


# ---- what a server tells of itself ----


def test_models_are_listed_and_found_by_name(server: Server, vlm: VLM) -> None:
    with client(server) as openai:
        (model,) = openai.models.list().data
        assert model.id == "nano" and model.object == "model" and model.owned_by == "smolvlm"
        assert model.model_extra is not None and model.model_extra["max_model_len"] == vlm.context
        assert model.model_extra["capabilities"] == ["text", "image", "video"]
        assert openai.models.retrieve("nano").id == "nano"
    missing = call(server.url, "/v1/models/a/b")
    assert missing.status == 404 and missing.error["code"] == "model_not_found"


def test_costs_are_told_before_anything_runs(server: Server, vlm: VLM) -> None:
    body = {"messages": user("What?", image_part(PICTURE), video_part(VIDEO)), "model": "nano", "temperature": 1}
    told, expected = call(server.url, "/tokenize", body).json, vlm.tokens("What?", images=[PICTURE], videos=[VIDEO])
    assert (told["count"], told["max_model_len"], told["tokens"]) == (expected.total, vlm.context, None)
    for one, other in zip(told["media"], expected.media, strict=True):
        assert [one[name] for name in ("kind", "width", "height", "rows", "cols", "tiles", "tokens")] == [
            other.kind, other.width, other.height, other.rows, other.cols, other.tiles, other.tokens,
        ]  # fmt: skip
        assert tuple(one["timestamps_s"]) == other.timestamps_s
    told = call(server.url, "/tokenize", {"messages": user("What?")}).json
    assert len(told["tokens"]) == told["count"] == vlm.tokens("What?").total
    told = call(server.url, "/tokenize", {"prompt": "a red circle"}).json
    assert told["tokens"] == vlm.processor.tokenizer.encode("a red circle")
    assert call(server.url, "/tokenize", {}).status == 400
    assert call(server.url, "/tokenize", {"prompt": "a", "messages": user("a")}).status == 400


def test_health_readiness_and_version_are_told(server: Server) -> None:
    assert call(server.url, "/health").json == {"status": "ok"}
    assert call(server.url, "/ready").json == {"status": "ready"}
    assert call(server.url, "/version").json == {"version": smolvlm.__version__}
    assert call(server.url, "/nothing").status == 404 and call(server.url, "/health", {}).status == 405


def test_metrics_count_requests_tokens_and_tiles(server: Server) -> None:
    names = ("smolvlm_generation_tokens_total", "smolvlm_prompt_tokens_total", "smolvlm_works_answered_total")
    before = [metric(server.url, name) for name in names]
    usage = call(server.url, CHAT, {"messages": user("Who is there?"), "max_tokens": 3}).json["usage"]
    refused = call(server.url, CHAT, {"messages": 1})
    after = [metric(server.url, name) for name in names]
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown == [usage["completion_tokens"], usage["prompt_tokens"], 1] and refused.status == 400
    assert metric(server.url, "smolvlm_http_requests_total", route=CHAT, status="400") >= 1
    assert metric(server.url, "smolvlm_time_to_first_token_seconds_count") >= 1
    assert metric(server.url, "smolvlm_inter_token_latency_seconds_count") >= 1
    assert metric(server.url, "smolvlm_requests_running") == metric(server.url, "smolvlm_requests_waiting") == 0


def test_small_packets_are_sent_at_once(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=WAIT_S)
    connection.request("GET", "/health")
    connection.getresponse().read()
    (own,) = server.server_state.connections
    held = own.transport.get_extra_info("socket")  # type: ignore[union-attr]
    assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_the_page_is_there_unless_it_is_switched_off(server: Server, vlm: VLM) -> None:
    assert b"<html" in call(server.url, "/").body
    with serving(vlm, page=False) as other:
        assert call(other.url, "/").status == 404


def test_a_desk_that_died_is_not_well(vlm: VLM) -> None:
    with serving(vlm) as server:
        server.house.service.desk.close()
        assert call(server.url, "/health").status == 503 and call(server.url, "/ready").status == 503
        assert call(server.url, CHAT, {"messages": user("Hi")}).status == 503


def test_with_keys_only_those_who_have_one_are_answered(vlm: VLM) -> None:
    with serving(vlm, api_keys=("a-key-of-mine",)) as server:
        messages: Any = user("Hi")
        with client(server, api_key="another-key") as openai, pytest.raises(AuthenticationError):
            openai.chat.completions.create(model="nano", messages=messages, max_tokens=1)
        with client(server, api_key="a-key-of-mine") as openai:
            assert openai.chat.completions.create(model="nano", messages=messages, max_tokens=1).choices
        assert call(server.url, "/health").status == call(server.url, "/ready").status == 200
        assert call(server.url, "/metrics").status == call(server.url, "/v1/models").status == 401


# ---- adapters ----


def test_adapters_are_chosen_by_the_name_of_the_model_side_by_side(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        model = SmolVLMForConditionalGeneration.from_pretrained("nano")
        teach(smolvlm.add_adapter(model, LoraConfig(r=4, lora_alpha=100)), seed).save(tmp_path / name)
    served, library = load(), load()
    for vlm in (served, library):
        vlm.add_adapter("one", tmp_path / "one")
        vlm.add_adapter("two", tmp_path / "two")
    names = {"nano": None, "one": "one", "two": "two"}
    expected = {
        name: library.ask("What is this?", images=[PICTURE], max_new_tokens=12, adapter=adapter).text
        for name, adapter in names.items()
    }
    assert len(set(expected.values())) == 3
    with serving(served) as server, client(server) as openai, ThreadPoolExecutor(6) as threads:
        assert [one.id for one in openai.models.list().data] == list(names)

        def ask(name: str) -> tuple[str, str | None]:
            messages: Any = user("What is this?", image_part(PICTURE))
            done = openai.chat.completions.create(model=name, messages=messages, max_tokens=12)
            assert done.model == name
            return name, done.choices[0].message.content

        assert all(expected[name] == text for name, text in threads.map(ask, list(names) * 3))
        decided = {
            name: openai.decisions.create(
                model=name, input="x", questions=[{"type": "predicate", "instructions": "Is it?"}]
            ).answers[0].probability  # type: ignore[union-attr]
            for name in names
        }  # fmt: skip
        assert decided["one"] == pytest.approx(
            library.decide("x\nIs it?", adapter="one").probabilities["yes"], abs=1e-4
        )
        assert len(set(decided.values())) == 3


# ---- many at a time ----


def test_requests_are_answered_side_by_side_as_if_each_were_alone(server: Server) -> None:
    library = load()
    good = [
        ({"messages": user("Who are you?")}, library.ask("Who are you?").text),
        ({"messages": user("What is this?", image_part(PICTURE))}, library.ask("What is this?", images=[PICTURE]).text),
        ({"messages": user("What happens?", video_part(VIDEO))}, library.ask("What happens?", videos=[VIDEO]).text),
        ({"messages": user("Tell a story."), "temperature": 1.5, "seed": 3, "max_tokens": 20},
         library.ask("Tell a story.", temperature=1.5, seed=3, max_new_tokens=20).text),
    ]  # fmt: skip
    bad: list[dict[str, Any]] = [
        {"messages": user("x", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})},
        {"messages": user("x", {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}})},
        {"messages": user("word " * 9000)},
        {"messages": user("x"), "colour": 1},
    ]

    def ask(number: int) -> bool:
        if number % 3 == 0:
            return 400 <= call(server.url, CHAT, bad[number % len(bad)]).status < 500
        body, expected = good[number % len(good)]
        reply = call(server.url, CHAT, body)
        return bool(reply.status == 200 and reply.json["choices"][0]["message"]["content"] == expected)

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(ask, range(60)))


@pytest.mark.usefixtures("endless")
def test_too_many_requests_are_told_to_come_back(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm._driver._engine.scheduler, "most_running", 1)
    with serving(vlm, limits=Limits(workers=1, queue=1)) as server:
        streams = [Stream(server.url, {**LONG, "seed": 1})]
        waiting = ThreadPoolExecutor(1).submit(call, server.url, CHAT, {**LONG, "max_tokens": 2})
        until(lambda: metric(server.url, "smolvlm_requests_waiting") == 1)
        reply = call(server.url, CHAT, {**LONG, "max_tokens": 2})
        assert reply.status == 429 and int(reply.headers["retry-after"]) > 0
        assert reply.error["code"] == "rate_limit_exceeded"
        streams[0].leave()
        assert waiting.result(WAIT_S).status == 200


# ---- clients that leave ----


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, {**LONG, "n": 2}), ("/v1/completions", {"prompt": "a", "max_tokens": 3000, "loop_guard": False}),
     ("/v1/responses", {"input": "a", "max_output_tokens": 3000, "loop_guard": False})],
    ids=["chat", "completions", "responses"],
)  # fmt: skip
def test_a_client_that_leaves_a_stream_ends_its_work(path: str, body: dict[str, Any], server: Server) -> None:
    cancelled = metric(server.url, "smolvlm_works_cancelled_total")
    stream = Stream(server.url, body, path)
    assert metric(server.url, "smolvlm_requests_running") == body.get("n", 1)
    stream.leave()
    until(lambda: metric(server.url, "smolvlm_works_cancelled_total") == cancelled + body.get("n", 1))
    assert metric(server.url, "smolvlm_requests_running") == 0 and server.house.service.inside == 0


@pytest.mark.usefixtures("endless")
def test_a_client_that_leaves_before_its_answer_is_whole_ends_its_work(server: Server) -> None:
    cancelled = metric(server.url, "smolvlm_works_cancelled_total")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=WAIT_S)
    connection.request("POST", CHAT, json.dumps(LONG))
    until(lambda: metric(server.url, "smolvlm_requests_running") == 1)
    connection.close()
    until(lambda: metric(server.url, "smolvlm_works_cancelled_total") == cancelled + 1)
    assert server.house.service.inside == 0


def test_a_client_that_leaves_while_its_media_are_opened_ends_that(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def slow(order: object) -> None:
        begun.set()
        try:
            import asyncio

            await asyncio.sleep(WAIT_S)
        finally:
            ended.set()

    monkeypatch.setattr(server.house.service.kitchen, "prepare", slow)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=WAIT_S)
    connection.request("POST", CHAT, json.dumps({"messages": user("What?", image_part(PICTURE))}))
    assert begun.wait(WAIT_S)
    connection.close()
    assert ended.wait(WAIT_S)
    until(lambda: server.house.service.inside == 0)
