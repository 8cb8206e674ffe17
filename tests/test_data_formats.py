"""Published layouts of training data -> one form: nothing is lost, media keep their order, what can't be is told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from smolvlm.errors import DataError, PromptError
from smolvlm.processing.chat import blocks_of
from smolvlm.training.data.formats import FORMATS, convert
from smolvlm.training.data.sample import Place, Row, Sample

PLACE = Place("some.jsonl", 3)


def sample_of(columns: dict[str, Any], format: str = "") -> Sample:
    return convert(Row(columns, PLACE), format)[1]


def flat(sample: Sample) -> list[str]:
    """The conversation as "role: text" with media as [image source]."""
    lines = []
    for message in sample.messages:
        parts = [
            str(block["text"]) if block["type"] == "text" else f"[{block['type']} {block['source']}]"
            for block in blocks_of(message)
        ]
        lines.append(f"{message['role']}: {''.join(parts)}")
    return lines


LLAVA = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
ROWS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "cauldron": (
        {
            "images": ["a.png", "b.png"],
            "texts": [
                {"user": "Which is red?", "assistant": "The first.", "source": "x"},
                {"user": "And <image>?", "assistant": "The second.", "source": "x"},
            ],
            "relevance_ratings": [4, 5],
        },
        [
            "user: [image a.png][image b.png]Which is red?",
            "assistant: The first.",
            "user: And <image>?",
            "assistant: The second.",
        ],
    ),
    "llava": (
        {"id": 1, "image": "a.jpg", "conversations": LLAVA},
        ["user: [image a.jpg]What is it?", "assistant: A cat."],
    ),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    ],
                },
                {"role": "assistant", "content": "A dog."},
            ]
        },
        ["system: Be brief.", "user: What is this?[image data:image/png;base64,AAAA]", "assistant: A dog."],
    ),
    "prompt": (
        {"prompt": "Say hello.", "completion": [{"role": "assistant", "content": "Hello."}]},
        ["user: Say hello.", "assistant: Hello."],
    ),
    "preference": (
        {
            "images": ["a.jpg"],
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}],
            "rejected": "A dog.",
        },
        ["user: [image a.jpg]What is it?"],
    ),
    "videofeedback": (
        {
            "id": "1",
            "images": ["p1_00.jpg", "p1_01.jpg"],
            "text prompt": "A train leaves.",
            "video link": "https://x/1.mp4",
            "visual quality": 3,
            "temporal consistency": 4,
            "dynamic degree": 2,
            "text-to-video alignment": 3,
            "factual consistency": 1,
            "conversations": [{"from": "human", "value": "<image>"}],
        },
        [
            "user: [video ['p1/p1_00.jpg', 'p1/p1_01.jpg']]Caption the video.",
            "assistant: A train leaves.",
            "user: Score the video from 1 to 4 in visual quality, temporal consistency, dynamic degree, "
            "text-to-video alignment, factual consistency.",
            "assistant: visual quality: 3\ntemporal consistency: 4\ndynamic degree: 2\ntext-to-video alignment: 3\n"
            "factual consistency: 1",
        ],
    ),
    "sharegpt4video": (
        {
            "video_id": "v",
            "video_path": "panda/v.mp4",
            "timestamp": ["00:00:00.000", "00:00:04.000"],
            "keyframe": [0, 96],
            "zip_folder": "panda_1.zip",
            "captions": [
                {"idx": "0", "content": "A door."},
                {"idx": "0-1", "content": "It opens."},
                {"idx": "-1", "content": "A door opens."},
            ],
        },
        [
            "user: [video panda/v.mp4]Describe the video.",
            "assistant: A door opens.",
            "user: What is shown at 00:00:00.000?",
            "assistant: A door.",
            "user: What is shown at 00:00:04.000?",
            "assistant: It opens.",
        ],
    ),
    "vript": (
        {
            "meta": {"video_id": "339dXVNQXac", "video_title": "t", "num_clips": 2, "integrity": True},
            "data": {
                "339dXVNQXac-Scene-001": {
                    "voiceover": ["hi"],
                    "caption": {
                        "shot_type": "close-up",
                        "camera_movement": "still",
                        "content": "A pan.",
                        "scene_title": "Kitchen",
                    },
                },
                "339dXVNQXac-Scene-002": {"caption": {"content": "An egg."}},
            },
        },
        [
            "user: [video 339dXVNQXac.mp4]Write the script of the video, scene by scene.",
            "assistant: Scene 1\nTitle: Kitchen\nShot: close-up\nCamera: still\nContent: A pan.\n\n"
            "Scene 2\nContent: An egg.",
        ],
    ),
    "moviechat": (
        {
            "info": {"video_path": "1.mp4", "fps": 24, "num_frame": 9624},
            "caption": "A man rows.",
            "global": [{"question": "Man or woman?", "answer": "Man."}],
            "breakpoint": [{"question": "What is the vehicle?", "answer": "A boat.", "time": 2232}],
        },
        [
            "user: [video 1.mp4]Describe the video.",
            "assistant: A man rows.",
            "user: Man or woman?",
            "assistant: Man.",
            "user: At 01:33: What is the vehicle?",
            "assistant: A boat.",
        ],
    ),
    "finevideo": (
        {
            "mp4": b"film",
            "json": {
                "content_metadata": {
                    "description": "A race.",
                    "qAndA": [{"question": "Who wins?", "answer": "The red car."}],
                    "scenes": [
                        {
                            "title": "Start",
                            "activities": [
                                {
                                    "description": "Cars wait.",
                                    "timestamp": {"start_timestamp": "00:00:00.000", "end_timestamp": "00:00:05.000"},
                                },
                                {"description": "They go."},
                            ],
                        }
                    ],
                }
            },
        },
        [
            "user: [video b'film']Describe the video.",
            "assistant: A race.",
            "user: Who wins?",
            "assistant: The red car.",
            "user: What happens in scene 1 (Start)?",
            "assistant: 00:00:00.000 - 00:00:05.000: Cars wait.\nThey go.",
        ],
    ),
    "vqa": (
        {"image": "a.jpg", "question": "How many?", "multiple_choice_answer": "2", "answers": ["3", "2", "2"]},
        ["user: [image a.jpg]How many?", "assistant: 2"],
    ),
    "caption": (
        {"file_name": "clip.MP4", "text": "It rains."},
        ["user: [video clip.MP4]Describe the video.", "assistant: It rains."],
    ),
    "text": ({"text": "Once upon a time."}, ["assistant: Once upon a time."]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_as_published_is_recognised_and_nothing_of_it_is_lost(name: str) -> None:
    columns, expected = ROWS[name]
    found, sample = convert(Row(columns, PLACE))
    assert found == name
    assert flat(sample) == expected
    assert sample.place == PLACE
    assert sample_of(columns, name) == sample


def test_a_preference_keeps_both_answers_apart_from_the_question() -> None:
    sample = sample_of(ROWS["preference"][0])
    assert [blocks_of(answer[0])[0]["text"] for answer in (sample.chosen, sample.rejected)] == ["A cat.", "A dog."]
    asked = [{"role": "user", "content": "Why?"}]
    talks = [[*asked, {"role": "assistant", "content": said}] for said in ("Because.", "No.")]
    for columns in (
        {"chosen": talks[0], "rejected": talks[1]},
        {"prompt": asked, "chosen": talks[0], "rejected": talks[1]},
    ):
        implicit = sample_of(columns)
        assert flat(implicit) == ["user: Why?"] and len(implicit.chosen) == len(implicit.rejected) == 1
    with pytest.raises(PromptError, match="needs a question and two answers"):
        sample_of({"chosen": talks[0], "rejected": talks[0]})


def llava(*values: str, **media: Any) -> list[str]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]
    return flat(sample_of({"conversations": turns, **media}))


def test_places_may_stand_anywhere_and_take_media_in_order() -> None:
    assert llava("Is <image> like\n<image>\nor <image>?", "No.", image=["a", "b", "c"])[0] == (
        "user: Is [image a] like\n[image b]or [image c]?"
    )
    assert llava("First <image>", "Yes.", "And <image>?", "No.", image=["a", "b"])[2] == "user: And [image b]?"
    mixed = llava("<video>\nLike <image>?", "No.", image="a", video="v.mp4")
    assert mixed[0] == "user: [video v.mp4]Like [image a]?"


def test_without_places_media_come_first() -> None:
    assert llava("What?", "That.", image=["a", "b"])[0] == "user: [image a][image b]What?"
    turns = [{"from": "system", "value": "Brief."}, *LLAVA]
    turns[1] = {"from": "human", "value": "What?"}
    assert flat(sample_of({"conversations": turns, "video": "v"}))[:2] == ["system: Brief.", "user: [video v]What?"]


def test_a_video_may_be_called_an_image_where_there_are_no_images() -> None:
    assert llava("<image>\nWhat happens?", "It falls.", video="v.mp4")[0] == "user: [video v.mp4]What happens?"
    assert llava("What happens?", "It falls.", image="niah/v.mp4")[0] == "user: [video niah/v.mp4]What happens?"


def test_an_answer_may_speak_of_tags() -> None:
    assert (
        llava("<image>\nHow do I write it?", "As <image> or <video>.", image="a")[1]
        == "assistant: As <image> or <video>."
    )
    assert llava("How do I show a film in HTML?", "Use <video>.")[1] == "assistant: Use <video>."


@pytest.mark.parametrize(
    ("values", "media", "message"),
    [
        (("<image> and <image>?", "No."), {"image": "a"}, "places for 2 images, but the row holds 1 image"),
        (("<image>?", "No."), {"image": ["a", "b"]}, "places for 1 image, but the row holds 2 images"),
        (("<image>?", "No."), {}, "places for 1 image, but the row holds no media"),
        (("<video>?", "No."), {"image": "a"}, "places for 1 video, but the row holds 1 image"),
    ],
)
def test_a_wrong_number_of_places_is_refused(values: tuple[str, ...], media: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        llava(*values, **media)


def test_media_beside_messages_fill_their_blocks_or_come_first() -> None:
    place = {"type": "image", "text": None}
    talk = [
        {"role": "user", "content": [place, {"type": "text", "text": "or"}, place]},
        {"role": "assistant", "content": "b"},
    ]
    assert flat(sample_of({"messages": talk, "images": ["a", "b"]}))[0] == "user: [image a]or[image b]"
    plain = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    assert flat(sample_of({"messages": plain, "images": ["a", "b"]}))[0] == "user: [image a][image b]What?"
    placed = [{"role": "user", "content": "Is <image>\nred?"}, plain[1]]
    assert flat(sample_of({"messages": placed, "images": ["a"]}))[0] == "user: Is [image a]red?"
    assert flat(sample_of({"messages": placed}))[0] == "user: Is <image>\nred?"
    for images in (["a"], ["a", "b", "c"]):
        with pytest.raises(PromptError, match="place"):
            sample_of({"messages": talk, "images": images})


def test_of_several_answers_the_commonest_is_taken() -> None:
    said = [{"answer": "two", "answer_id": 1}, {"answer": "2", "answer_id": 2}, {"answer": "2", "answer_id": 3}]
    assert flat(sample_of({"image": "a", "question": "How many?", "answers": said}))[1] == "assistant: 2"
    assert flat(sample_of({"image": "a", "question": "How many?", "answers": ["x", "y"]}))[1] == "assistant: x"


def test_columns_that_fit_nothing_are_told_what_each_format_would_need() -> None:
    with pytest.raises(DataError) as caught:
        convert(Row({"picture": "a", "question": "Why?"}, PLACE))
    text = str(caught.value)
    assert "No format fits the columns picture, question." in text
    assert text.index("vqa needs") < text.index("cauldron needs")  # the nearest first
    assert "vqa needs 'multiple_choice_answer' or 'answer' or 'answers' or 'label'." in text
    assert all(f"{name} needs" in text for name in FORMATS)


def test_a_format_that_is_none_is_named() -> None:
    with pytest.raises(DataError, match="no format 'lava'; there are cauldron"):
        convert(Row({}, PLACE), "lava")


@pytest.mark.parametrize(
    ("format", "columns"),
    [
        ("cauldron", {"texts": [3]}),
        ("cauldron", {"texts": [{"user": "a"}]}),
        ("cauldron", {"texts": [{"user": "a", "assistant": 7}]}),
        ("llava", {"conversations": [{"from": "alien", "value": "hi"}]}),
        ("llava", {"conversations": ["hi"]}),
        ("llava", {"conversations": "hi"}),
        ("messages", {"messages": "hi"}),
        ("messages", {"messages": [7]}),
        ("messages", {"messages": [{"role": "tool", "content": "4"}]}),
        ("messages", {"messages": []}),
        ("vqa", {"question": "half a character: \ud800", "answer": "no"}),
        ("vqa", {"question": "What?", "answer": "\ud800"}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}),
        ("preference", {"prompt": 3, "chosen": "a", "rejected": "b"}),
        ("vript", {"meta": {}, "data": []}),
        (
            "moviechat",
            {"info": {"video_path": "1.mp4", "fps": 0}, "breakpoint": [{"question": "", "answer": "", "time": 1}]},
        ),
        ("finevideo", {"mp4": b"", "json": {}}),
        ("sharegpt4video", {"captions": [{"idx": "x", "content": "a"}], "video_path": "a"}),
        ("vqa", {"question": "a", "answer": None}),
        ("caption", {"image": [], "text": "a"}),
        ("text", {"other": "a"}),
    ],
)
def test_rows_of_a_wrong_shape_are_refused_and_nothing_crashes(format: str, columns: dict[str, Any]) -> None:
    with pytest.raises((DataError, PromptError)):
        sample_of(columns, format)
