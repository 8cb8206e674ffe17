"""/v1/completions, /v1/responses and /v1/decisions against a real server. The oracle is the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from openai import BadRequestError, OpenAI
from openai.types.decision import Decision as OfficialDecision
from pydantic import BaseModel, ConfigDict

from smolvlm.server.run import Server
from smolvlm.types import Decision
from smolvlm.vlm import VLM, load
from tests.serving import PICTURE, VIDEO, call, client, data_uri, serving


@pytest.fixture(scope="module")
def vlm() -> VLM:
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


# ---- completions ----

BEGUN = "User: Who are you?\nAssistant: I am smolvlm-nano, a tiny"


def test_a_text_is_gone_on_with_its_first_space_included(openai: OpenAI, library: VLM) -> None:
    expected = library.ask(prompt=BEGUN, max_new_tokens=8)
    whole = openai.completions.create(model="nano", prompt=BEGUN, max_tokens=8)
    assert whole.object == "text_completion" and whole.id.startswith("cmpl-")
    (choice,) = whole.choices
    assert choice.text.lstrip() == expected.text and choice.finish_reason == expected.finish_reason
    assert choice.text.startswith(" "), "the text and what follows can be put together"
    assert whole.usage is not None and whole.usage.completion_tokens == len(expected.token_ids)
    *chunks, last = openai.completions.create(model="nano", prompt=[BEGUN], max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    assert last.choices[0].text == "" and last.choices[0].finish_reason == expected.finish_reason


def test_control_tokens_in_a_text_are_text(openai: OpenAI, vlm: VLM) -> None:
    whole = openai.completions.create(model="nano", prompt="a <end_of_utterance> b", max_tokens=1)
    plain = vlm.processor.tokenizer.encode_prompt("a <end_of_utterance> b")
    assert whole.usage is not None and whole.usage.prompt_tokens > len(plain)


def test_logprobs_of_completions_have_the_older_form(openai: OpenAI, library: VLM) -> None:
    expected = library.ask(prompt=BEGUN, max_new_tokens=4, logprobs=2).logprobs
    (choice,) = openai.completions.create(model="nano", prompt=BEGUN, max_tokens=4, logprobs=2).choices
    told = choice.logprobs
    assert told is not None and told.tokens == [one.token for one in expected]
    assert told.token_logprobs == pytest.approx([one.logprob for one in expected], abs=1e-4)
    assert told.top_logprobs is not None and all(len(one) == 2 for one in told.top_logprobs)
    assert told.text_offset == [len("".join(told.tokens[:count])) for count in range(4)]
    offsets = [
        offset
        for chunk in openai.completions.create(model="nano", prompt=BEGUN, max_tokens=4, logprobs=2, stream=True)
        if chunk.choices[0].logprobs
        for offset in chunk.choices[0].logprobs.text_offset or ()
    ]
    assert offsets == told.text_offset


@pytest.mark.parametrize(
    "fields",
    [{"echo": True}, {"suffix": "end"}, {"best_of": 2}, {"prompt": [1, 2]}, {"prompt": ["a", "b"]}, {"prompt": None}],
    ids=["echo", "suffix", "best_of", "ids", "several", "none"],
)
def test_what_completions_do_not_have_is_refused_by_name(fields: dict[str, Any], server: Server) -> None:
    reply = call(server.url, "/v1/completions", {"prompt": "a", "max_tokens": 1, **fields})
    assert reply.status == 400 and reply.error["param"] == next(iter(fields))
    assert next(iter(fields)) in reply.error["message"]


# ---- responses ----


def image(**more: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_uri(PICTURE), **more}


def test_responses_are_those_of_the_library(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("Who are you?")
    told = openai.responses.create(model="nano", input="Who are you?", metadata={"a": "b"})
    assert told.output_text == expected.text and told.status == "completed" and told.error is None
    assert told.model_extra is not None and told.model_extra["store"] is False, "nothing is kept, and so it says"
    assert told.metadata == {"a": "b"} and told.previous_response_id is None
    assert told.usage is not None
    assert (told.usage.input_tokens, told.usage.output_tokens) == (expected.prompt_tokens, len(expected.token_ids))
    assert told.usage.total_tokens == told.usage.input_tokens + told.usage.output_tokens
    expected = library.ask("What is this?", images=[PICTURE], system="Be brief.", detail="low")
    content = [image(detail="low"), {"type": "input_text", "text": "What is this?"}]
    told = openai.responses.create(
        model="nano",
        instructions="Be brief.",
        input=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
    )
    assert told.output_text == expected.text and told.instructions == "Be brief."


def test_a_response_that_is_cut_says_so(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("Who are you?", max_new_tokens=3)
    told = openai.responses.create(model="nano", input="Who are you?", max_output_tokens=3, temperature=0)
    assert told.output_text == expected.text and told.status == "incomplete"
    assert told.incomplete_details is not None and told.incomplete_details.reason == "max_output_tokens"
    assert told.max_output_tokens == 3


def test_events_of_a_response_come_in_the_official_order(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("Who are you?")
    events = list(openai.responses.create(model="nano", input="Who are you?", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        *["response.output_text.delta"] * deltas, "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert deltas > 3
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts) == expected.text
    first, last = events[0], events[-1]
    assert first.type == "response.created" and first.response.status == "in_progress" and not first.response.output
    assert last.type == "response.completed" and last.response.output_text == expected.text
    assert last.response.id == first.response.id and last.response.usage is not None
    with openai.responses.stream(model="nano", input="Who are you?") as stream:
        assert stream.get_final_response().output_text == expected.text


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")  # as the official client asks for it, whatever the class says

    colour: Literal["red", "green", "blue"]
    corners: Literal[3, 4, 5]


def test_a_response_follows_a_schema(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("What is this?", images=[PICTURE], schema=Shape)
    content = [image(), {"type": "input_text", "text": "What is this?"}]
    told = openai.responses.parse(model="nano", input=[{"role": "user", "content": content}], text_format=Shape)  # type: ignore[list-item, misc]
    assert told.output_parsed == expected.parsed and isinstance(told.output_parsed, Shape)


def test_a_response_tells_logprobs_when_they_are_included(openai: OpenAI, library: VLM) -> None:
    expected = library.ask("Who are you?", max_new_tokens=4, logprobs=2).logprobs
    told = openai.responses.create(
        model="nano",
        input="Who are you?",
        max_output_tokens=4,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )
    (part,) = told.output[0].content  # type: ignore[union-attr]
    assert [one.token for one in part.logprobs] == [one.token for one in expected]  # type: ignore[union-attr]
    assert [len(one.top_logprobs) for one in part.logprobs] == [2] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"background": True},
        {"tools": [{"type": "web_search"}]}, {"tool_choice": "required"}, {"reasoning": {"effort": "high"}},
        {"truncation": "auto"}, {"prompt": {"id": "x"}}, {"stop": "x"}, {"colour": 1}, {"temperature": 3},
        {"input": []}, {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
        {"text": {"verbosity": "high"}}, {"text": {"format": {"type": "xml"}}},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_what_responses_do_not_have_is_refused_by_name(fields: dict[str, Any], server: Server) -> None:
    reply = call(server.url, "/v1/responses", {"input": "Who are you?", "max_output_tokens": 1, **fields})
    assert reply.status == 400 and reply.error["param"].startswith(next(iter(fields)))


# ---- decisions ----


def decide(openai: OpenAI, given: Any, *questions: dict[str, Any]) -> OfficialDecision:
    return openai.decisions.create(model="nano", input=given, questions=questions)  # type: ignore[arg-type]


def mass(answer: Any) -> float:
    return float(answer.model_extra["label_mass"])


def alike(told: Any, expected: Decision) -> bool:
    shares = [one.probability for one in told.probabilities]
    return shares == pytest.approx(list(expected.probabilities.values()), abs=1e-4)


def test_decisions_are_those_of_the_library(openai: OpenAI, library: VLM) -> None:
    given = [{"role": "user", "content": [image()]}]
    told = decide(
        openai, given,
        {"type": "predicate", "name": "round", "instructions": "Is there a circle?"},
        {"type": "choice", "instructions": "Is it red, green or blue?",
         "choices": [{"value": "red"}, {"value": "green"}, {"value": "blue"}]},
        {"type": "score", "name": "many", "instructions": "Are there few, some or many shapes?",
         "levels": [{"label": "few"}, {"label": "some"}, {"label": "many"}]},
    )  # fmt: skip
    yes, colour, many = told.answers
    expected = library.decide("Is there a circle?", images=[PICTURE])
    assert yes.type == "predicate" and yes.name == "round"
    assert yes.probability == pytest.approx(expected.probabilities["yes"], abs=1e-4)
    assert mass(yes) == pytest.approx(expected.label_mass, abs=1e-4)
    expected = library.decide("Is it red, green or blue?", images=[PICTURE], choices=("red", "green", "blue"))
    assert colour.type == "choice" and colour.name is None and alike(colour, expected)
    assert colour.choice == expected.choice
    assert colour.confidence == max(one.probability for one in colour.probabilities)
    labels = ("few", "some", "many")
    expected = library.decide("Are there few, some or many shapes?", images=[PICTURE], choices=labels)
    assert many.type == "score" and many.name == "many" and alike(many, expected)
    assert [(one.label, one.value) for one in many.probabilities] == [("few", 0), ("some", 1), ("many", 2)]
    shares = list(expected.probabilities.values())
    assert many.score == pytest.approx(shares[1] + 2 * shares[2], abs=1e-4)
    assert told.model == "nano" and told.usage.output_tokens == 0
    assert told.usage.total_tokens == told.usage.input_tokens > 3 * 30


def test_what_the_instructions_leave_open_is_asked(openai: OpenAI, library: VLM) -> None:
    statement, choice, text = decide(
        openai, "The sky is blue.",
        {"type": "predicate", "instructions": "It is night."},
        {"type": "choice", "instructions": "Which is it?", "choices": [
            {"value": True, "description": "the sky is blue"}, {"value": False}]},
        {"type": "choice", "instructions": "Which is it?", "choices": [{"value": "day"}, {"value": "night"}]},
    ).answers  # fmt: skip
    expected = library.decide("The sky is blue.\nIt is night.\nIs this true?")
    assert statement.type == "predicate"
    assert statement.probability == pytest.approx(expected.probabilities["yes"], abs=1e-4)
    expected = library.decide("The sky is blue.\nWhich is it?\nyes: the sky is blue\nAnswer with one of: yes, no.")
    assert choice.type == "choice" and alike(choice, expected)
    assert [one.value for one in choice.probabilities] == [True, False] and isinstance(choice.choice, bool)
    expected = library.decide(
        "The sky is blue.\nWhich is it?\nAnswer with one of: day, night.", choices=("day", "night")
    )
    assert text.type == "choice" and alike(text, expected)


def test_media_of_many_questions_are_opened_once(
    openai: OpenAI, server: Server, library: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen = server.house.service.kitchen
    prepare, count = kitchen.prepare, [0]

    async def counting(order: Any) -> Any:
        count[0] += 1
        return await prepare(order)

    monkeypatch.setattr(kitchen, "prepare", counting)
    parts = [image(detail="high"), {"type": "video_url", "video_url": {"url": data_uri(VIDEO)}}, image()]
    blocks = [
        {"type": "image", "image": str(PICTURE), "detail": "high"}, {"type": "video", "video": str(VIDEO)},
        {"type": "image", "image": str(PICTURE)},
    ]  # fmt: skip
    asked = [f"Is there a {thing}?" for thing in ("star", "red circle", "green square", "blue triangle that is small")]
    questions = [{"type": "predicate", "instructions": one} for one in asked] * 3
    told = decide(openai, [{"role": "user", "content": parts}], *questions)
    assert count == [1]
    for question, answer in zip(asked * 3, told.answers, strict=True):
        messages = [{"role": "user", "content": [*blocks, {"type": "text", "text": question}]}]
        expected = library.decide(messages=messages)
        assert answer.type == "predicate"
        assert answer.probability == pytest.approx(expected.probabilities["yes"], abs=1e-3)
    assert told.model_extra is not None and len(told.model_extra["smolvlm"]["frames"]) == 1


def test_questions_may_have_pictures_and_json_of_their_own(openai: OpenAI, library: VLM) -> None:
    instructions = [{"type": "input_json", "data": {"a": 1}}, image(), {"type": "input_text", "text": "Is it a star?"}]
    answer, other = decide(
        openai, [{"role": "assistant", "content": "Hello."}],
        {"type": "predicate", "instructions": instructions}, {"type": "predicate", "instructions": "Is it?"},
    ).answers  # fmt: skip
    content = [
        {"type": "text", "text": json.dumps({"a": 1}, separators=(",", ":"))}, {"type": "image", "image": str(PICTURE)},
        {"type": "text", "text": "Is it a star?"},
    ]  # fmt: skip
    talk = [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": content}]
    expected = library.decide(messages=talk)
    assert answer.type == other.type == "predicate"
    assert answer.probability == pytest.approx(expected.probabilities["yes"], abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"questions": []}, "at least 1"),
        ({"questions": [{"type": "poem", "instructions": "x"}]}, "predicate"),
        ({"questions": [{"type": "predicate"}]}, "Missing required parameter"),
        ({"questions": [{"type": "choice", "instructions": "x", "choices": [{"value": "a"}]}]}, "at least 2"),
        ({"questions": [{"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": "a"}]}]}, "same"),
        ({"questions": [{"type": "choice", "instructions": "x", "choices": [{"value": 1}, {"value": 2}]}]}, "value"),
        ({"questions": [{"type": "predicate", "instructions": "x"}] * 401}, "401 questions"),
        ({"input": []}, "input"),
        ({"temperature": 1}, "Unknown parameter: 'temperature'"),
    ],
)
def test_decisions_that_cannot_be_made_are_refused(fields: dict[str, Any], message: str, server: Server) -> None:
    body = {"input": "x", "questions": [{"type": "predicate", "instructions": "Is it?"}], **fields}
    reply = call(server.url, "/v1/decisions", body)
    assert reply.status == 400 and message in reply.error["message"]


def test_a_decision_that_fails_is_an_error_of_the_official_client(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="at least"):
        decide(openai, "x", {"type": "choice", "instructions": "x", "choices": []})
