"""Bodies and connections that are too large, too slow, or none: by raw sockets against a real server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

import smolvlm

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.doors import KEY, LIMITS, bearer, error_of, guarded, head, port_of, read_all, status_of, talk
from tests.serving import call, until


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with guarded(smolvlm.load()) as server:
        yield server.url


def test_a_body_beyond_the_limit_is_refused_by_its_announced_length(url: str) -> None:
    for length in ("20001", "1000000000000", "9" * 20):
        answer = talk(url, head(None, f"Content-Length: {length}", "Expect: 100-continue"))
        assert status_of(answer) == 413 and error_of(answer)["code"] == "body_too_large"
        assert b"100 Continue" not in answer


def test_a_client_that_sends_it_all_first_still_sees_the_refusal(url: str) -> None:
    reply = call(url, "/v1/chat/completions", b" " * 5_000_000, **bearer(KEY))
    assert reply.status == 413


def test_a_body_that_hides_its_length_is_stopped_at_the_limit(url: str) -> None:
    chunks = [b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(200)]
    answer = talk(url, head(None, "Transfer-Encoding: chunked"), *chunks)
    assert status_of(answer) == 413 and b"connection: close" in answer.lower()


def test_a_body_at_the_limit_is_read(url: str) -> None:
    body = json.dumps({"messages": []}).encode()
    reply = call(url, "/v1/chat/completions", body + b" " * (20_000 - len(body)), **bearer(KEY))
    assert reply.status == 400 and reply.error["param"] == "messages"


def test_compressed_bodies_are_refused(url: str) -> None:
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        reply = call(
            url, "/v1/chat/completions", b"\x1f\x8b" + b"\0" * 50, **bearer(KEY), **{"Content-Encoding": coding}
        )
        assert reply.status == 415


def test_a_body_that_stalls_is_refused_after_the_time_for_a_piece(url: str) -> None:
    started = time.monotonic()
    answer = talk(url, head(100) + b"{")
    assert status_of(answer) == 408 and error_of(answer)["code"] == "body_too_slow"
    assert 0.9 < time.monotonic() - started < 10


def test_a_body_that_drips_is_refused_after_the_time_for_all_of_it(url: str) -> None:
    started = time.monotonic()
    answer = talk(url, head(1000), *[b"{"] * 60, pause_s=0.2)
    assert status_of(answer) == 408
    assert 2.5 < time.monotonic() - started < 20


def test_headers_that_drip_are_hung_up_on(url: str) -> None:
    for first in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "):
        started = time.monotonic()
        answer = talk(url, first, *[b"x"] * 30, pause_s=0.1) if first else talk(url)
        assert status_of(answer) == 408 and time.monotonic() - started < 15


def test_headers_that_drip_in_a_second_request_are_hung_up_on_too(url: str) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(url, whole, *[whole[index : index + 1] for index in range(30)], pause_s=0.1)
    assert answer.count(b"HTTP/1.1 200") == 1 and answer.count(b"HTTP/1.1 408") == 1


def test_two_requests_after_each_other_are_answered_on_one_connection(url: str) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(url, whole, whole, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX\x01: y\r\n\r\n",
        b"\r\n" * 3000,
    ],
)  # fmt: skip
def test_what_is_not_http_gets_an_error_in_our_form(url: str, raw: bytes) -> None:
    answer = talk(url, raw)
    assert status_of(answer) in (400, 408) and error_of(answer)["type"] == "invalid_request_error"
    assert b"Traceback" not in answer


@pytest.mark.parametrize("pieces", [1, 3])
def test_headers_beyond_the_limit_are_refused(url: str, pieces: int) -> None:
    long = [b"X: " + b"x" * 2000 + b"\r\n"] * 4
    parts = [b"".join(long)] if pieces == 1 else long
    answer = talk(url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n", *parts, b"\r\n", pause_s=0.05)
    assert status_of(answer) in (400, 431) and "error" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_chunk_that_is_none_ends_the_connection_and_nothing_else(url: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = talk(url, head(None, "Transfer-Encoding: chunked"), b"zz\r\nnot a chunk\r\n")
    assert status_of(answer) in (0, 400)
    assert call(url, "/health").status == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_connections_beyond_the_limit_are_told_to_come_back(url: str) -> None:
    opened = []
    try:
        for _ in range(LIMITS["connections"] + 3):
            opened.append(socket.create_connection(("127.0.0.1", port_of(url)), timeout=10))
        answers = [read_all(connection) for connection in opened]
    finally:
        for connection in opened:
            connection.close()
    assert {status_of(answer) for answer in answers} == {408, 503}
    busy = next(answer for answer in answers if status_of(answer) == 503)
    assert b"retry-after: 1" in busy.lower() and error_of(busy)["code"] == "too_many_connections"
    until(lambda: call(url, "/health").status == 200)


def test_bodies_that_are_too_much_together_are_told_to_come_back(url: str) -> None:
    half = head(19_000) + b" " * 18_000
    opened = []
    try:
        for _ in range(3):
            opened.append(socket.create_connection(("127.0.0.1", port_of(url)), timeout=10))
            opened[-1].sendall(half)
        statuses = [status_of(read_all(connection)) for connection in opened]
    finally:
        for connection in opened:
            connection.close()
    assert sorted(statuses) in ([408, 408, 429], [408, 429, 429])
    until(lambda: call(url, "/v1/chat/completions", {"messages": []}, **bearer(KEY)).status == 400)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(url: str) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as connection:
            connection.sendall(head(15_000) + b" " * 12_000)
    time.sleep(0.2)
    body = json.dumps({"messages": []}).encode() + b" " * 15_000
    assert call(url, "/v1/chat/completions", body, **bearer(KEY)).status == 400
