"""POST /v1/chat/completions against a real server, asked by the official client. The oracle is the library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from openai import APIError, APIStatusError, BadRequestError, NotFoundError, OpenAI
from PIL import Image
from pydantic import BaseModel, ConfigDict

from smolvlm.server.run import Server
from smolvlm.types import Answer
from smolvlm.vlm import VLM, load
from tests.serving import PICTURE, VIDEO, call, client, data_uri, image_part, serving, user, video_part


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """What is served."""
    return load()


@pytest.fixture(scope="module")
def library() -> VLM:
    """The oracle: another one, so that nothing is known to both."""
    return load()


@pytest.fixture(scope="module")
def server(vlm: VLM) -> Iterator[Server]:
    with serving(vlm) as server:
        yield server


@pytest.fixture(scope="module")
def openai(server: Server) -> Iterator[OpenAI]:
    with client(server) as openai:
        yield openai


def frames(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 60, 80, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


ASKED: list[tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # messages, fields of the body, what the library is asked, its options
    (user("Who are you?"), {}, {"question": "Who are you?"}, {}),
    ([{"role": "user", "content": "Who are you?"}], {"max_tokens": 3}, {"question": "Who are you?"},
     {"max_new_tokens": 3}),
    (user("What is this?", image_part(PICTURE)), {}, {"question": "What is this?", "images": [PICTURE]}, {}),
    (user("What is this?", image_part(PICTURE, detail="low")), {"max_completion_tokens": 12},
     {"question": "What is this?", "images": [PICTURE], "detail": "low"}, {"max_new_tokens": 12}),
    (user("Compare.", image_part(PICTURE), image_part(frames(1)[0])), {},
     {"question": "Compare.", "images": [PICTURE, frames(1)[0]]}, {}),
    (user("What happens?", video_part(VIDEO)), {}, {"question": "What happens?", "videos": [VIDEO]}, {}),
    (user("What happens?", {"type": "video", "frames": [data_uri(one) for one in frames(3)], "fps": 2.0}), {},
     {"messages": [{"role": "user", "content": [{"type": "video", "video": frames(3), "fps": 2.0},
                                                {"type": "text", "text": "What happens?"}]}]}, {}),
    (user("What happens?", video_part(VIDEO)), {"extra_body": {"fps": 4, "max_frames": 3}},
     {"question": "What happens?", "videos": [VIDEO], "fps": 4, "max_frames": 3}, {}),
    ([{"role": "system", "content": "Be brief."}, *user("Tell a story."),
      {"role": "assistant", "content": "A red circle."}, *user("And then?")],
     {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_tokens": 20, "extra_body": {"top_k": 40, "min_p": 0.01,
                                                                                    "repetition_penalty": 1.1}},
     {"messages": [{"role": "system", "content": "Be brief."}, *user("Tell a story."),
                   {"role": "assistant", "content": "A red circle."}, *user("And then?")]},
     {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_new_tokens": 20, "top_k": 40, "min_p": 0.01,
      "repetition_penalty": 1.1}),
    (user("Who are you?"), {"stop": ["tiny", "model"]}, {"question": "Who are you?"}, {"stop": ["tiny", "model"]}),
    (user("Who are you?"), {"stop": "vision"}, {"question": "Who are you?"}, {"stop": "vision"}),
]  # fmt: skip


def by_library(library: VLM, asked: dict[str, Any], options: dict[str, Any]) -> Answer:
    return library.ask(**asked, **{"max_new_tokens": 1024, "loop_guard": True, **options})


@pytest.mark.parametrize("case", range(len(ASKED)))
def test_answers_are_those_of_the_library_whole_and_streamed(case: int, openai: OpenAI, library: VLM) -> None:
    messages, fields, asked, options = ASKED[case]
    expected = by_library(library, asked, options)
    whole = openai.chat.completions.create(model="nano", messages=messages, **fields)  # type: ignore[call-overload]
    (choice,) = whole.choices
    assert (choice.message.content, choice.finish_reason) == (expected.text, expected.finish_reason)
    assert choice.message.role == "assistant" and choice.logprobs is None and whole.object == "chat.completion"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        expected.prompt_tokens, len(expected.token_ids),
    )  # fmt: skip
    assert whole.usage.prompt_tokens_details.image_tokens == expected.image_tokens
    chunks = list(openai.chat.completions.create(model="nano", messages=messages, stream=True, **fields))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == [
        expected.finish_reason
    ]


def test_frames_that_were_seen_are_told(openai: OpenAI, library: VLM) -> None:
    messages = user("What happens?", video_part(VIDEO))
    (expected,) = library.ask("What happens?", videos=[VIDEO]).frames
    whole = openai.chat.completions.create(model="nano", messages=messages)  # type: ignore[arg-type]
    (told,) = whole.model_extra["smolvlm"]["frames"]  # type: ignore[index]
    assert tuple(told["timestamps_s"]) == expected.timestamps_s and tuple(told["indices"]) == expected.indices
    assert told["duration_s"] == expected.duration_s and told["source"]
    *_, last = openai.chat.completions.create(model="nano", messages=messages, stream=True)  # type: ignore[call-overload]
    assert last.model_extra["smolvlm"]["frames"] == [told]
    other = openai.chat.completions.create(model="nano", messages=user("Who are you?"))  # type: ignore[arg-type]
    assert "smolvlm" not in other.model_extra


def test_chunks_come_in_the_order_of_the_official_service(server: Server) -> None:
    body: dict[str, Any] = {"messages": user("Who are you?"), "stream": True, "max_tokens": 4}
    for usage in (False, True):
        reply = call(server.url, "/v1/chat/completions", {**body, "stream_options": {"include_usage": usage}})
        assert reply.status == 200 and reply.headers["content-type"].startswith("text/event-stream")
        *chunks, done = reply.events
        assert done == "[DONE]"
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert all(len({chunk[name] for chunk in chunks}) == 1 for name in ("id", "created", "model"))
        if usage:
            *chunks, cost = chunks
            assert cost["choices"] == [] and cost["usage"]["completion_tokens"] == 4
            assert cost["usage"]["total_tokens"] == cost["usage"]["prompt_tokens"] + 4
        assert [chunk.get("usage", "absent") for chunk in chunks] == [None if usage else "absent"] * len(chunks)
        first, *middle, last = [chunk["choices"][0] for chunk in chunks]
        assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert all(set(one["delta"]) == {"content"} and one["delta"]["content"] for one in middle) and middle
        assert last["delta"] == {} and last["finish_reason"] == "length"
        assert {one["finish_reason"] for one in (first, *middle)} == {None}


def test_several_answers_of_one_request_are_told_apart(openai: OpenAI, library: VLM) -> None:
    fields: dict[str, Any] = {"n": 3, "seed": 5, "temperature": 2.0, "max_tokens": 12}
    expected = [
        by_library(library, {"question": "Tell a story."}, {"seed": 5 + n, "temperature": 2.0, "max_new_tokens": 12})
        for n in range(3)
    ]
    whole = openai.chat.completions.create(model="nano", messages=user("Tell a story."), **fields)  # type: ignore[call-overload]
    assert [choice.message.content for choice in whole.choices] == [one.text for one in expected]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({one.text for one in expected}) > 1
    assert whole.usage.completion_tokens == sum(len(one.token_ids) for one in expected)
    assert whole.usage.prompt_tokens == expected[0].prompt_tokens
    texts = ["", "", ""]
    for chunk in openai.chat.completions.create(  # type: ignore[call-overload]
        model="nano", messages=user("Tell a story."), stream=True, **fields
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [one.text for one in expected]


def test_logprobs_are_those_of_the_library(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("Who are you?", max_new_tokens=6, logprobs=2).logprobs
    fields: dict[str, Any] = {"max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    (choice,) = openai.chat.completions.create(model="nano", messages=user("Who are you?"), **fields).choices  # type: ignore[call-overload]
    streamed = [
        one
        for chunk in openai.chat.completions.create(  # type: ignore[call-overload]
            model="nano", messages=user("Who are you?"), stream=True, **fields
        )
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content
    ]
    assert len(expected) == 6
    for told in (choice.logprobs.content, streamed):
        assert [one.token for one in told] == [one.token for one in expected]
        assert [bytes(one.bytes) for one in told] == [one.bytes for one in expected]
        assert [one.logprob for one in told] == pytest.approx([one.logprob for one in expected], abs=1e-4)
        assert [[top.token for top in one.top_logprobs] for one in told] == [
            [top.token for top in one.top] for one in expected
        ]


# ---- answers that follow a rule ----


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")  # as the official client asks for it, whatever the class says

    colour: Literal["red", "green", "blue"]
    corners: Literal[3, 4, 5]


def test_a_pydantic_model_is_parsed(openai: OpenAI, library: VLM) -> None:
    messages = user("Which shape is this?", image_part(PICTURE))
    done = openai.chat.completions.parse(
        model="nano",
        messages=messages,
        response_format=Shape,
        max_tokens=40,
        temperature=0,  # type: ignore[arg-type]
    )
    assert isinstance(done.choices[0].message.parsed, Shape)
    expected = library.ask("Which shape is this?", images=[PICTURE], schema=Shape, max_new_tokens=40)
    assert done.choices[0].message.parsed == expected.parsed


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"schema": {"type": "object"}}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "shape", "strict": True,
                                                                     "schema": Shape.model_json_schema()}}},
         {"schema": Shape}),
        ({"response_format": {"type": "json_schema", "schema": Shape.model_json_schema()}}, {"schema": Shape}),
        ({"response_format": {"type": "json_object", "schema": Shape.model_json_schema()}}, {"schema": Shape}),
        ({"extra_body": {"structured_outputs": {"json": Shape.model_json_schema()}}}, {"schema": Shape}),
        ({"extra_body": {"structured_outputs": {"regex": "(red|blue) (circle|square)"}}},
         {"regex": "(red|blue) (circle|square)"}),
        ({"extra_body": {"structured_outputs": {"choice": ["a cat", "a dog"]}}}, {"choices": ["a cat", "a dog"]}),
    ],
    ids=["text", "object", "schema", "llama", "llama-object", "json", "regex", "choice"],
)  # fmt: skip
def test_answers_follow_rules_as_in_the_library(
    fields: dict[str, Any], rule: dict[str, Any], openai: OpenAI, library: VLM
) -> None:
    expected = library.ask("What is this?", images=[PICTURE], max_new_tokens=30, **rule)
    whole = openai.chat.completions.create(  # type: ignore[call-overload]
        model="nano", messages=user("What is this?", image_part(PICTURE)), max_tokens=30, **fields
    )
    assert whole.choices[0].message.content == expected.text


# ---- what is refused ----


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"colour": 1}, "colour", "Unrecognized request argument supplied: colour"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "at the same time"),
        ({"n": 99}, "n", "1 to"),
        ({"stop": ["a"] * 99}, "stop", "stop"),
        ({"top_logprobs": 2}, "top_logprobs", "only allowed when 'logprobs' is enabled"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when 'stream' is enabled"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_schema'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
         "response_format.json_schema.schema", "Missing required parameter"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}},
         None, "can't be"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs",
         "one of them"),
        ({"structured_outputs": {"regex": "a+"}, "stop": "b"}, None, "stop"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "'user'"),
        ({"messages": user("x", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})}, None,
         "picture"),
        ({"messages": user("x", {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}})}, None,
         "fetches nothing"),
        ({"messages": user("word " * 9000)}, None, "tokens"),
        *(({name: value}, name, f"{name} can't be had from this server") for name, value in {
            "tools": [{"type": "function"}], "tool_choice": "required", "audio": {"voice": "x"},
            "modalities": ["text", "audio"], "logit_bias": {"5": 1}, "frequency_penalty": 0.5, "presence_penalty": -1,
            "store": True, "reasoning_effort": "high", "verbosity": "high", "web_search_options": {"x": 1},
            "functions": [{"name": "f"}],
        }.items()),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(
    fields: dict[str, Any], param: str | None, message: str, server: Server
) -> None:
    reply = call(server.url, "/v1/chat/completions", {"messages": user("Who are you?"), "max_tokens": 2, **fields})
    assert reply.status == 400 or (reply.status == 422 and param is None)
    error = reply.error
    assert error["type"] == "invalid_request_error" and message in error["message"]
    assert param is None or error["param"] == param
    assert "Traceback" not in reply.body.decode()


def test_fields_that_ask_for_nothing_are_ignored(openai: OpenAI, library: VLM) -> None:
    idle: dict[str, Any] = {
        "tools": [], "tool_choice": "auto", "functions": [], "audio": None, "modalities": ["text"], "logit_bias": {},
        "frequency_penalty": 0, "presence_penalty": 0.0, "store": False, "reasoning_effort": None, "user": "me",
        "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": True, "safety_identifier": "me",
        "prompt_cache_key": "k", "verbosity": "medium", "seed": None, "stop": None, "n": None, "logprobs": False,
        "response_format": None, "temperature": None, "top_p": None, "max_tokens": None,
    }  # fmt: skip
    whole = openai.chat.completions.create(model="nano", messages=user("Who are you?"), extra_body=idle)  # type: ignore[arg-type]
    assert whole.choices[0].message.content == library.ask("Who are you?").text


def test_a_model_that_is_not_served_is_not_found(openai: OpenAI, server: Server) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as failure:
        openai.chat.completions.create(model="gpt-9", messages=user("Who are you?"))  # type: ignore[arg-type]
    assert failure.value.code == "model_not_found" and failure.value.param == "model"
    for body in ({}, {"model": ""}, {"model": None}, {"model": "nano"}):
        reply = call(server.url, "/v1/chat/completions", {"messages": user("Hi"), "max_tokens": 1, **body})
        assert reply.status == 200 and reply.json["model"] == "nano"


def test_a_body_that_is_no_object_of_json_is_refused(server: Server) -> None:
    for body in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"messages": NaN}', b"null"):
        reply = call(server.url, "/v1/chat/completions", body, "POST")
        assert reply.status == 400 and reply.error["message"]


def test_errors_come_as_the_classes_of_the_official_client(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as failure:
        openai.chat.completions.create(model="nano", messages=user("x"), temperature=9)  # type: ignore[arg-type]
    assert failure.value.param == "temperature"
    assert issubclass(BadRequestError, APIStatusError)


def test_a_fault_in_the_middle_of_a_stream_is_its_last_event(
    openai: OpenAI, server: Server, vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, count = vlm._driver.motor.forward, [0]

    def failing(*arguments: Any) -> np.ndarray:
        count[0] += 1
        if count[0] > 3:
            raise FloatingPointError("a secret of ours")
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(vlm._driver.motor, "forward", failing)
        body = {"messages": user("Who are you?"), "stream": True}
        reply = call(server.url, "/v1/chat/completions", body)
        count[0] = 0
        with pytest.raises(APIError, match="failed"):
            list(openai.chat.completions.create(model="nano", messages=user("Hello"), stream=True))  # type: ignore[arg-type]
    assert reply.status == 200 and set(reply.events[-1]) == {"error"} and len(reply.events) >= 3
    assert reply.events[-1]["error"]["type"] == "server_error" and "secret" not in reply.body.decode()
    assert call(server.url, "/v1/chat/completions", {"messages": user("Hi"), "max_tokens": 2}).status == 200
