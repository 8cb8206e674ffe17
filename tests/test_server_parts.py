"""Messages of OpenAI's clients -> orders: every form of a part, every check, and no stranger's text as a path."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("pydantic")

from smolvlm.server.bodies import JSON_ITEMS, check_questions, check_sampling, check_schema, load_json
from smolvlm.server.failures import RequestError
from smolvlm.server.parts import SMALL, Order, read_chat, read_prompt, read_responses_input
from smolvlm.server.settings import Limits, Settings
from smolvlm.server.sources import Access, Reference
from smolvlm.server.worker import fill_all


def png(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


BASE64 = base64.b64encode(png()).decode()
URI = f"data:image/png;base64,{BASE64}"
SETTINGS = Settings()
ACCESS = Access.of(SETTINGS)


def chat(*parts: Any, settings: Settings = SETTINGS, role: str = "user") -> Order:
    return read_chat([{"role": role, "content": list(parts)}], settings)


def block(part: Any, settings: Settings = SETTINGS) -> dict[str, Any]:
    return chat(part, settings=settings).blocks[0]


def refused(part: Any, settings: Settings = SETTINGS) -> RequestError:
    with pytest.raises(RequestError) as error:
        chat(part, settings=settings)
    return error.value


# ---- forms ----


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "image_url", "image_url": URI},
        {"image_url": {"url": URI}},
        {"image_url": URI},
        {"type": "input_image", "image_url": URI},
        {"type": "input_image", "image_url": {"url": URI}, "file_id": None},
        {"type": "image", "image": URI},
        {"type": "image", "image": BASE64},
        {"type": "image", "url": URI},
        {"type": "image", "base64": BASE64},
        {"type": "image", "image": {"url": URI}},
        {"type": "image_url", "image_url": {"url": BASE64}},
        {"type": "image_url", "image_url": {"url": URI.replace("data:image/png", "DATA:IMAGE/PNG;charset=x")}},
        {"type": "image_url", "image_url": {"url": f"data:;base64,{BASE64}"}},
        {"type": "image_url", "image_url": {"url": f" \n{URI}"}},
        {"type": "image_url", "image_url": {"url": f"{BASE64[:40]}\n{BASE64[40:]}"}},
        {"type": "image_url", "image_url": {"url": BASE64.replace("+", "-").replace("/", "_").rstrip("=")}},
        {"type": "image_url", "image_url": {"url": URI}, "cache_control": {"type": "ephemeral"}},
    ],
)
def test_every_form_of_a_picture_is_read_and_opens(part: dict[str, Any]) -> None:
    order = chat(part)
    assert order.blocks[0]["type"] == "image" and isinstance(order.blocks[0]["source"], Reference)
    filled = fill_all(order, ACCESS)[0]["content"][0]  # type: ignore[index]
    assert filled["image"].content == png() and filled["image"].name == "picture 1"


VIDEO = base64.b64encode(b"\0\0\0\x18ftypisom" + b"\0" * 40).decode()
VIDEO_URI = f"data:video/mp4;base64,{VIDEO}"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": VIDEO_URI}},
        {"type": "video_url", "video_url": VIDEO_URI},
        {"video_url": {"url": VIDEO_URI}},
        {"type": "video", "video": VIDEO_URI},
        {"type": "video", "video": VIDEO},
        {"type": "video", "url": VIDEO_URI},
        {"type": "input_video", "input_video": {"data": VIDEO, "format": "mp4"}},
        {"type": "input_video", "input_video": {"url": VIDEO_URI}},
        {"type": "input_video", "video_url": VIDEO_URI},
        {"type": "video", "video": {"base64": VIDEO}},
    ],
)
def test_every_form_of_a_video_is_read(part: dict[str, Any]) -> None:
    order = chat(part)
    assert order.blocks[0]["type"] == "video"
    assert fill_all(order, ACCESS)[0]["content"][0]["video"].content == base64.b64decode(VIDEO)  # type: ignore[index]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "frames": [URI, URI, URI]},
        {"type": "video", "video": [URI, URI, URI]},
        {"type": "video_url", "video_url": [URI, {"url": URI}, {"type": "image_url", "image_url": {"url": URI}}]},
        {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{BASE64},{BASE64},{BASE64}"}},
    ],
)
def test_a_list_of_frames_is_a_video(part: dict[str, Any]) -> None:
    order = chat({**part, "fps": 2})
    frames = fill_all(order, ACCESS)[0]["content"][0]["video"]  # type: ignore[index]
    assert [frame.content for frame in frames] == [png()] * 3
    assert [frame.name for frame in frames] == ["frame 0 of video 1", "frame 1 of video 1", "frame 2 of video 1"]
    assert order.blocks[0]["fps"] == 2


@pytest.mark.parametrize("given,meant", [("low", "low"), ("auto", "auto"), ("high", "high"), ("original", "high")])
def test_detail_is_read_inside_and_beside(given: str, meant: str) -> None:
    assert block({"type": "image_url", "image_url": {"url": URI, "detail": given}})["detail"] == meant
    assert block({"type": "input_image", "image_url": URI, "detail": given})["detail"] == meant
    assert "detail" not in block({"type": "input_image", "image_url": URI, "detail": None})


def test_options_of_a_video_are_read() -> None:
    part = {"type": "video_url", "video_url": {"url": VIDEO_URI, "fps": 0.5}, "max_frames": 7}
    read = block(part)
    assert (read["fps"], read["max_frames"]) == (0.5, 7)
    frames = block({"type": "video", "frames": [URI, URI], "timestamps_s": [0, 2.5]})
    assert frames["timestamps_s"] == [0, 2.5]


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_text_is_text(kind: str) -> None:
    assert block({"type": kind, "text": "héllo <image>"}) == {"type": "text", "text": "héllo <image>"}


def test_conversations_keep_their_order_and_roles() -> None:
    order = read_chat(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"image_url": URI}]},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [], "annotations": []},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "b"},
        ],
        SETTINGS,
    )  # fmt: skip
    assert [message["role"] for message in order.messages] == ["system", "user", "assistant", "assistant", "user"]
    assert [str(one.get("text", one["type"])) for one in order.blocks] == ["Be brief.", "a", "image", "", "no", "b"]


def test_the_input_of_responses_is_a_text_or_messages() -> None:
    order = read_responses_input("Hi", "Be brief.", SETTINGS)
    assert [(message["role"], message["content"]) for message in order.messages] == [
        ("system", [{"type": "text", "text": "Be brief."}]), ("user", [{"type": "text", "text": "Hi"}]),
    ]  # fmt: skip
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": URI, "detail": "low"}]}
    ]
    assert read_responses_input(items, None, SETTINGS).blocks[0]["detail"] == "low"


def test_json_parts_become_their_text() -> None:
    read = read_responses_input(
        [{"role": "user", "content": [{"type": "input_json", "data": {"ä": [1, None]}}]}], None, SETTINGS
    )
    assert read.blocks[0]["text"] == '{"ä":[1,null]}'


def test_small_orders_are_told_from_large_ones() -> None:
    assert read_chat([{"role": "user", "content": "Hello"}], SETTINGS).is_small
    assert read_prompt("Once upon a time", SETTINGS).is_small
    assert not chat({"type": "image_url", "image_url": URI}).is_small
    assert not read_chat([{"role": "user", "content": "x" * SMALL}], SETTINGS).is_small
    assert not read_chat([{"role": "user", "content": ""}] * 400, SETTINGS).is_small


# ---- refusals ----


@pytest.mark.parametrize(
    "messages,param",
    [
        (None, "messages"), ([], "messages"), ({}, "messages"), ("Hi", "messages"), ([None], "messages[0]"),
        (["Hi"], "messages[0]"), ([[]], "messages[0]"), ([{}], "messages[0].role"),
        ([{"role": "tool", "content": "x"}], "messages[0].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"), ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"), ([{"role": "user",
        "content": []}], "messages[0].content"),
        ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
        ([{"role": "user", "content": "x", "colour": "red"}], "messages[0].colour"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{}]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": [None]}], "messages[0].content[0]"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": {}}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text", "text": "x", "size": 3}]}], "messages[0].content[0].size"),
        ([{"role": "system", "content": [{"type": "image_url", "image_url": URI}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "image_url",
        "image_url": {}}]}], "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": 3}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "image_url",
        "image_url": [URI]}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], "messages[0].content[0].file_id"),
        ([{"role": "user", "content": [{"type": "image", "image": URI, "url": URI}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "video", "frames": []}]}], "messages[0].content[0].frames"),
        ([{"role": "user", "content": [{"type": "video", "frames": [3]}]}], "messages[0].content[0].frames[0]"),
        ([{"role": "user", "content": [{"type": "input_json", "data": "x"}]}], "messages[0].content[0].data"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_place(messages: Any, param: str) -> None:
    with pytest.raises(RequestError) as error:
        read_chat(messages, SETTINGS)
    assert (error.value.param, error.value.status) == (param, 400)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "options",
    [
        {"detail": "tiny"}, {"detail": 3}, {"max_image_tokens": 0}, {"max_image_tokens": 1.5},
        {"max_image_tokens": True},
        {"max_image_tokens": 10**40}, {"colour": "red"},
    ],
)  # fmt: skip
def test_options_of_a_picture_are_checked(options: dict[str, Any]) -> None:
    assert refused({"type": "image_url", "image_url": {"url": URI}, **options}).status == 400


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0}, {"fps": -1}, {"fps": "1"}, {"fps": True}, {"fps": float("inf")}, {"fps": float("nan")},
        {"fps": 1e9},
        {"max_frames": 0}, {"max_frames": 257}, {"max_frames": 2.0}, {"max_frames": "3"}, {"timestamps_s": 3},
        {"timestamps_s": [-1]}, {"timestamps_s": ["0"]}, {"timestamps_s": [float("inf")]}, {"timestamps_s": [1e300]},
        {"timestamps_s": [True]}, {"timestamps_s": [0]},
    ],
)  # fmt: skip
def test_options_of_a_video_are_checked(options: dict[str, Any]) -> None:
    assert refused({"type": "video_url", "video_url": {"url": VIDEO_URI}, **options}).status == 400


@pytest.mark.parametrize(
    "limit,messages,status",
    [
        ({"messages": 2}, [{"role": "user", "content": "x"}] * 3, 400),
        ({"parts": 2}, [{"role": "user", "content": [{"type": "text", "text": "x"}] * 3}], 400),
        ({"text_chars": 9}, [{"role": "user", "content": "x" * 5}] * 2, 413),
        ({"images": 2}, [{"role": "user", "content": [{"type": "image_url", "image_url": URI}]}] * 3, 400),
        ({"images": 0}, [{"role": "user", "content": [{"type": "image_url", "image_url": URI}]}], 400),
        ({"videos": 1}, [{"role": "user", "content": [{"type": "video_url", "video_url": VIDEO_URI}] * 2}], 400),
        ({"frames": 3}, [{"role": "user", "content": [{"type": "video", "frames": [URI] * 4}]}], 400),
        ({"frames": 5, "videos": 2}, [{"role": "user", "content": [{"type": "video", "frames": [URI] * 3}] * 2}], 400),
        (
            {"frames": 3},
            [{"role": "user", "content": [{"type": "video", "video": f"data:video/jpeg;base64,{'A,' * 9}"}]}],
            400,
        ),
        ({"encoded_bytes": 60}, [{"role": "user", "content": [{"type": "image_url", "image_url": URI}]}], 413),
        ({"encoded_bytes": 60}, [{"role": "user", "content": [{"type": "image_url", "image_url": BASE64}]}], 413),
    ],
)
def test_limits_are_kept_before_anything_is_decoded(
    limit: dict[str, int], messages: list[Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base64, "b64decode", None)  # whoever decodes fails
    with pytest.raises(RequestError) as error:
        read_chat(messages, Settings(limits=Limits(**limit)))
    assert error.value.status == status


def test_frames_of_the_whole_request_are_limited() -> None:
    with pytest.raises(RequestError):
        read_chat([{"role": "user", "content": "x"}], SETTINGS, {"max_frames": 257})


@pytest.mark.parametrize("prompt", [None, "", 3, ["a", "b"], [1, 2], {}])
def test_a_prompt_is_one_text(prompt: object) -> None:
    with pytest.raises(RequestError) as error:
        read_prompt(prompt, SETTINGS)
    assert error.value.param == "prompt"


# ---- bodies ----


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b"{", b"[1,]", b"{'a':1}", b"\xff\xfe{}", b"\x00", b"nul", b'"\\ud800"', b"[NaN]", b"[Infinity]",
        b"1" * 5000, b'{"a":1}x', b'"a\nb"', b"\xef\xbb\xbf{}",
        b"[" * 150 + b"]" * 150, b'{"a":' * 150 + b"1" + b"}" * 150,
        b"[" * 500_000, b"[" + b"[]," * 300_000 + b"[]]",
    ],
)  # fmt: skip
def test_bodies_that_are_not_json_or_too_much_of_it_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        load_json(body, Limits())
    assert error.value.status in (400, 413) and len(str(error.value)) < 300


def test_json_within_the_limits_is_read() -> None:
    assert load_json(b' {"a": [1, 2.5, "\\u00e9", null, true]} ', Limits()) == {"a": [1, 2.5, "é", None, True]}
    assert load_json(b"[" * 64 + b"]" * 64, Limits()) is not None
    with pytest.raises(RequestError):
        load_json(b"[" * 65 + b"]" * 65, Limits())
    wide = json.dumps([0] * (JSON_ITEMS - 2)).encode()
    assert len(load_json(wide, Limits())) == JSON_ITEMS - 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "n,max_tokens,stop,top",
    [(0, None, [], None), (9, None, [], None), (1, 501, [], None), (1, None, ["x"] * 17, None), (1, None, [""], None),
     (1, None, ["x" * 257], None), (1, None, [], 21), (1, None, [], -1)],
)  # fmt: skip
def test_how_much_may_be_written_is_limited(n: int, max_tokens: int | None, stop: list[str], top: int | None) -> None:
    with pytest.raises(RequestError):
        check_sampling(n, max_tokens, stop, top, Limits(max_tokens=500, stop=16))
    check_sampling(8, 500, ["x" * 256] * 16, 20, Limits(max_tokens=500, stop=16))


def test_schemas_and_decisions_are_limited() -> None:
    with pytest.raises(RequestError):
        check_schema({"enum": ["x" * 70_000]}, Limits())
    with pytest.raises(RequestError):
        check_schema("é" * 40_000, Limits())
    check_schema({"type": "object"}, Limits())
    for counts in ((401, 1, 1), (1, 256, 1), (1, 1, 256)):
        with pytest.raises(RequestError):
            check_questions(*counts, Limits())
    check_questions(400, 255, 255, Limits())


def test_json_parts_are_limited() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"a": deep}
    for data in (deep, {"a": list(range(10_001))}, {"a": "x" * 262_144}):
        with pytest.raises(RequestError):
            chat({"type": "input_json", "data": data})
