"""Who gets in and who doesn't: keys, hosts, origins; what every answer carries; what becomes of those that go wrong."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import smolvlm

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from smolvlm.errors import ConfigError
from smolvlm.server import guard
from smolvlm.server.failures import RequestError
from smolvlm.server.guard import Guard, check_key, host_of, protect
from smolvlm.server.settings import Limits, Settings
from tests.doors import KEY, OTHER_KEY, bearer, error_of, guarded, status_of, talk
from tests.serving import call


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with guarded(smolvlm.load()) as server:
        yield server.url


# ---- keys ----


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/version", "/openapi.json", "/v1/nothing", "/nothing"])
def test_nothing_is_told_without_a_key(url: str, path: str) -> None:
    for headers in ({}, bearer("wrong-key"), bearer(KEY[:-1]), bearer(KEY + "x"), {"Authorization": KEY}, bearer("")):
        reply = call(url, path, **headers)
        assert reply.status == 401 and reply.error["code"] == "invalid_api_key"
        assert KEY not in reply.body.decode()


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_each_key_opens(url: str, key: str) -> None:
    assert call(url, "/v1/models", **bearer(key)).status == 200
    assert call(url, "/v1/nothing", **bearer(key)).status == 404


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/main.js", "/page.css"])
def test_the_page_and_the_state_need_no_key(url: str, path: str) -> None:
    assert call(url, path).status == 200


def test_only_reading_them_needs_no_key(url: str) -> None:
    assert call(url, "/health", b"{}").status == 401


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    keys = [guard._digest(key) for key in (KEY, OTHER_KEY)]
    check_key("GET", "/v1/models", {"authorization": f"Bearer {KEY}"}, keys)
    assert len(compared) == 2 and {len(one) for pair in compared for one in pair} == {32}


# ---- hosts and origins ----


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "[::1]:8000", "vlm.example", "VLM.example.:80", "127.9.9.9"]
)
def test_names_of_this_server_are_answered(url: str, host: str) -> None:
    answer = talk(url, f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
def test_other_names_are_not_so_that_no_page_can_point_its_own_here(url: str, host: str) -> None:
    answer = talk(url, f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) == 403 and error_of(answer)["code"] == "host_refused"


@pytest.mark.parametrize(
    "header,name",
    [
        ("a.example:80", "a.example"),
        ("A.EXAMPLE", "a.example"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("a.", "a"),
        ("", ""),
    ],
)
def test_a_host_is_read_without_its_port(header: str, name: str) -> None:
    assert host_of(header) == name


def test_a_server_for_everybody_answers_to_all_names_unless_told_some() -> None:
    guard.check_host({"host": "any.example"}, Settings(host="0.0.0.0"))
    named = Settings(host="0.0.0.0", hosts=("vlm.example",))
    guard.check_host({"host": "vlm.example:8000"}, named)
    with pytest.raises(RequestError):
        guard.check_host({"host": "any.example"}, named)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1:1",
        "file://",
        "//",
        "http://[",
    ],
)
def test_pages_elsewhere_get_nothing_done(url: str, origin: str) -> None:
    reply = call(url, "/v1/chat/completions", {"messages": []}, Origin=origin, **bearer(KEY))
    assert reply.status == 403 and reply.error["code"] == "origin_refused"
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "host,settings,allowed",
    [
        ("10.0.0.5:8000", {}, True), ("[fd00::5]:8000", {}, True), ("vlm.example:8000", {}, False),
        ("vlm.example:8000", {"hosts": ("vlm.example",)}, True), ("vlm.example:8000", {"api_keys": (KEY,)}, True),
        ("evil.example:8000", {"hosts": ("vlm.example",)}, False),
    ],
)  # fmt: skip
def test_a_page_under_a_name_that_may_be_anybodys_is_ours_only_with_a_key(
    host: str, settings: dict[str, Any], allowed: bool
) -> None:
    """A page elsewhere points its own name at a server without keys that the whole network reaches."""
    exposed = Settings(host="0.0.0.0", **settings)
    headers = {"host": host, "origin": f"http://{host}"}
    if allowed:
        guard.check_origin("POST", headers, exposed)
    else:
        with pytest.raises(RequestError, match="--cors-origin"):
            guard.check_origin("POST", headers, exposed)
    guard.check_origin("POST", {"host": host}, exposed)  # no browser


def test_our_own_page_and_the_pages_that_are_allowed_get_through(url: str) -> None:
    for origin in (url, "https://app.example", "http://vlm.example"):
        reply = call(url, "/v1/chat/completions", {"messages": []}, Origin=origin, **bearer(KEY))
        assert reply.status == 400 and reply.error["param"] == "messages"


def test_only_the_pages_that_are_allowed_may_read_the_answer(url: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = call(url, "/v1/models", method="OPTIONS", Origin="https://app.example", **asked)
    assert allowed.status == 200 and allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in allowed.headers
    refused = call(url, "/v1/models", method="OPTIONS", Origin="https://evil.example", **asked)
    assert "access-control-allow-origin" not in refused.headers
    reply = call(url, "/v1/models", Origin="https://app.example", **bearer("wrong-key"))
    assert reply.status == 401 and reply.headers["access-control-allow-origin"] == "https://app.example"


def test_no_page_elsewhere_may_read_anything_by_default() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    headers = ask(protect(app, Settings()), [(b"origin", b"https://evil.example")])[0]["headers"]
    assert not [name for name, _ in headers if name.startswith(b"access-control")]


# ---- answers ----


def test_every_answer_has_the_headers_that_keep_browsers_careful(url: str) -> None:
    replies = [call(url, path, **bearer(KEY)) for path in ("/", "/v1/models", "/v1/nothing", "/health")]
    replies += [call(url, "/v1/models"), call(url, "/v1/chat/completions", b"x", **bearer(KEY))]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "no-referrer"
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and "*" not in policy
        assert reply.headers["x-request-id"].startswith("req-")
        assert "cache-control" in reply.headers and "server" not in reply.headers
    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)


# ---- what the wrapper does around an application ----


Sent = list[dict[str, Any]]


def ask(
    app: Any, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"", scope: dict[str, Any] | None = None
) -> Sent:
    """One request to an ASGI application."""
    sent: Sent = []
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    request = {"type": "http", "method": "POST", "path": "/x", "headers": lines, **(scope or {})}
    asyncio.run(asyncio.wait_for(app(request, receive, send), 30))
    return sent


def begun(kind: str, then: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if kind:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
            await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await then()

    return app


async def wait_forever() -> None:
    await asyncio.sleep(60)


async def stumble() -> None:
    raise RuntimeError("secret: /etc/shadow")


def test_the_body_arrives_in_one_piece() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    wrapped = Guard(app, Settings())
    assert ask(wrapped, body=b"abc")[0]["status"] == 204
    assert seen == [{"type": "http.request", "body": b"abc", "more_body": False}]
    assert wrapped.bytes_held == 0


def test_a_request_that_takes_too_long_is_ended_with_504() -> None:
    refused: list[int] = []
    sent = ask(Guard(begun("", wait_forever), Settings(limits=Limits(request_s=0.1)), refused.append))
    assert sent[0]["status"] == 504 and json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"
    assert refused == [504]


def test_a_stream_that_takes_too_long_ends_with_an_event_that_says_so() -> None:
    sent = ask(Guard(begun("text/event-stream", wait_forever), Settings(limits=Limits(request_s=0.1))))
    assert sent[0]["status"] == 200 and not sent[-1]["more_body"]
    assert json.loads(sent[-1]["body"].removeprefix(b"data: "))["error"]["code"] == "request_timeout"


def test_any_other_answer_that_takes_too_long_breaks_off() -> None:
    broken: list[bool] = []
    scope = {guard.ABORT: lambda: broken.append(True)}
    sent = ask(Guard(begun("application/json", wait_forever), Settings(limits=Limits(request_s=0.1))), scope=scope)
    assert len(sent) == 2 and broken == [True]


def test_a_client_that_doesnt_read_the_end_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LAST_WORDS_S", 0.1)
    broken: list[bool] = []

    async def full(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    wrapped = Guard(begun("text/event-stream", wait_forever), Settings(limits=Limits(request_s=0.1)))
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], guard.ABORT: lambda: broken.append(True)}
    asyncio.run(asyncio.wait_for(wrapped(scope, receive, full), 20))
    assert broken == [True]


def test_a_mistake_of_ours_is_told_by_a_name_alone(caplog: pytest.LogCaptureFixture) -> None:
    sent = ask(Guard(begun("", stumble), Settings()))
    error = json.loads(sent[1]["body"])["error"]
    name = dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert sent[0]["status"] == 500 and error["type"] == "server_error" and name in error["message"]
    assert "secret" not in sent[1]["body"].decode() and "RuntimeError" not in sent[1]["body"].decode()
    assert name in caplog.text and "secret" in caplog.text


def test_a_mistake_that_the_application_answered_itself_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    from fastapi import FastAPI

    from smolvlm.server.failures import install

    app = FastAPI()
    install(app)

    @app.post("/x")
    async def route() -> None:
        raise RuntimeError("surprise")

    sent = ask(Guard(app, Settings()), scope={"query_string": b"", "raw_path": b"/x", "root_path": ""})
    assert sent[0]["status"] == 500 and json.loads(sent[1]["body"])["error"]["code"] == "internal_error"
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_web_sockets_are_closed() -> None:
    sent: Sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    asyncio.run(Guard(begun("", stumble), Settings())({"type": "websocket", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000}, {"api_keys": ("short",)}, {"api_keys": ("has a space",)}, {"url_ports": (0,)},
        {"url_ports": ()},
        {"allowed_networks": ("10.0.0.300/8",)}, {"media_root": __file__}, {"allowed_url_hosts": ("a.example",)},
        {"limits": {"body_bytes": 0}}, {"limits": {"body_bytes": 1.5}}, {"limits": {"queue": -1}},
        {"limits": {"n": True}},
        {"limits": {"request_s": 0}}, {"limits": {"request_s": float("inf")}}, {"limits": {"decode_s": float("nan")}},
        {"limits": {"images": -1}}, {"limits": {"workers": "many"}},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    from pathlib import Path

    with pytest.raises(ConfigError):
        if "limits" in wrong:
            Limits(**wrong["limits"])
        else:
            Settings(**{name: Path(value) if name == "media_root" else value for name, value in wrong.items()})


def test_the_table_of_limits_in_the_documents_is_that_of_the_code() -> None:
    from dataclasses import fields
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "server.md").read_text(encoding="utf-8")
    rows = [
        line.split("|") for line in text.partition("## Limits")[2].partition("\n## ")[0].split("\n") if "`--" in line
    ]
    told = {row[3].strip(" `").removeprefix("--").replace("-", "_"): row[2].strip() for row in rows}
    assert set(told) == {one.name for one in fields(Limits)}
    for name, default in told.items():
        if name != "workers":
            value = getattr(Limits(), name)
            assert default == ("null" if value is None else f"{value:,.10g}"), name
