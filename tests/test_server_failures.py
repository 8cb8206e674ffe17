"""What clients are told when something fails: status and form, and nothing of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smolvlm

pytest.importorskip("fastapi")

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from smolvlm import errors
from smolvlm.server.failures import Failure, RequestError, describe, failure
from smolvlm.server.settings import Limits
from tests.serving import PICTURE, VIDEO, call, serving, user


@pytest.mark.parametrize(
    "error,status,kind,code",
    [
        (
            RequestError("m", status=404, param="model", code="model_not_found"),
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (RequestError("m", status=401, code="invalid_api_key"), 401, "invalid_request_error", "invalid_api_key"),
        (errors.BusyError("m"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.ContextLengthError("m"), 400, "invalid_request_error", "context_length_exceeded"),
        (errors.MemoryBudgetError("m"), 503, "server_error", "memory_budget_exceeded"),
        (errors.ImageError("m"), 400, "invalid_request_error", "invalid_image"),
        (errors.VideoError("m"), 400, "invalid_request_error", "invalid_video"),
        (errors.FetchError("m"), 422, "invalid_request_error", "media_not_fetched"),
        (errors.HostError("m"), 422, "invalid_request_error", "media_not_fetched"),
        (errors.MediaError("m"), 413, "invalid_request_error", "media_too_large"),
        (errors.PromptError("m"), 400, "invalid_request_error", "invalid_prompt"),
        (errors.InputError("m"), 400, "invalid_request_error", None),
        (HTTPException(405, "m"), 405, "invalid_request_error", None),
        (ClientDisconnect(), 499, "client_error", None),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, kind: str, code: str | None) -> None:
    found = describe(error)
    assert (found.status, found.body["error"]["type"], found.body["error"]["code"]) == (status, kind, code)
    assert set(found.body) == {"error"} and set(found.body["error"]) == {"message", "type", "param", "code"}
    assert ("Retry-After" in found.headers) == (status in (429, 503))


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), KeyError("secret"), errors.CheckpointError("secret"), MemoryError("secret")]
)
def test_anything_else_is_our_own_mistake_and_told_by_a_name_alone(error: Exception, caplog: Any) -> None:
    found = describe(error)
    assert found.status == 500 and "secret" not in json.dumps(found.body)
    assert "secret" in caplog.text


def test_a_wrong_field_is_named_and_what_was_sent_isnt_repeated() -> None:
    class Inner(BaseModel):
        size: int

    class Outer(BaseModel):
        inner: list[Inner]
        other: int

    for given, param, code in (
        ({"inner": [{"size": "secret"}], "other": 1}, "inner[0].size", "invalid_value"),
        ({"inner": []}, "other", "missing_required_parameter"),
        ({"inner": "secret", "other": 1}, "inner", "invalid_value"),
    ):
        with pytest.raises(ValidationError) as error:
            Outer.model_validate(given)
        found = describe(error.value).body["error"]
        assert (found["param"], found["code"]) == (param, code) and "secret" not in found["message"]


def test_messages_end_somewhere_and_are_text() -> None:
    assert len(failure(400, "x" * 100_000, None, None).body["error"]["message"]) == 2000
    assert json.dumps(failure(400, "\ud800", None, None).body)
    assert isinstance(failure(429, "x", None, None, 3), Failure)


# ---- by a real server ----


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("a-secret-place")
    (place / "good.png").write_bytes(PICTURE.read_bytes())
    (place / "bad.png").write_bytes(PICTURE.read_bytes()[:200])
    (place / "bad.mp4").write_bytes(VIDEO.read_bytes()[:3000])
    (place / "film.mp4").write_bytes(VIDEO.read_bytes())
    (place / "text.png").write_text("words")
    (place / "empty.png").write_bytes(b"")
    return place


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(smolvlm.load(), media_root=root, limits=Limits(workers=1, frames=64)) as server:
        yield server.url


def named(kind: str, name: str) -> list[dict[str, Any]]:
    return user("What is this?", {"type": kind, kind: {"url": f"file:{name}"}})


def ask(url: str, messages: Any, **more: Any) -> Any:
    return call(url, "/v1/chat/completions", {"messages": messages, "max_tokens": 5, **more})


def test_files_of_the_media_root_are_seen(url: str) -> None:
    assert ask(url, named("image_url", "good.png")).status == 200
    reply = ask(url, named("video_url", "film.mp4"))
    assert reply.status == 200 and reply.json["smolvlm"]["frames"][0]["source"] == "film.mp4"


@pytest.mark.parametrize(
    "kind,name",
    [("image_url", "bad.png"), ("video_url", "bad.mp4"), ("image_url", "text.png"), ("image_url", "empty.png"),
     ("image_url", "nothing.png"), ("image_url", "../x.png"), ("video_url", "good.png"), ("image_url", "film.mp4")],
)  # fmt: skip
def test_no_message_tells_where_files_are(url: str, root: Path, kind: str, name: str) -> None:
    reply = ask(url, named(kind, name))
    assert reply.status == 400 and reply.error["type"] == "invalid_request_error"
    for secret in (str(root), "a-secret-place", str(Path.home()), "site-packages", "Traceback"):
        assert secret not in reply.body.decode()
    assert name.rpartition("/")[2] in reply.error["message"]


def test_routes_that_arent_there_are_refused_in_the_form_of_the_service(url: str) -> None:
    reply = call(url, "/v1/nothing")
    assert reply.status == 404 and reply.error["message"] == "Invalid URL (GET /v1/nothing)"
    reply = call(url, "/v1/chat/completions")
    assert reply.status == 405 and reply.error["message"] == "Not allowed to GET on /v1/chat/completions."
    assert len(call(url, "/" + "x" * 5000).error["message"]) < 300


def test_bodies_that_make_no_sense_are_refused_by_their_field(url: str) -> None:
    for body, param in (
        (b"{", None), (b"[]", None), (b"{}", "messages"), ({"messages": 3}, "messages"),
        ({"messages": named("image_url", "good.png"), "temperature": "hot"}, "temperature"),
        ({"messages": user("x"), "n": 1000}, "n"), ({"messages": user("x"), "colour": "red"}, "colour"),
    ):  # fmt: skip
        reply = call(url, "/v1/chat/completions", body)
        assert reply.status == 400 and reply.error["param"] == param
