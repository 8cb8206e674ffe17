"""The hall: questions, streams, batches, features, decisions and chats on a tiny checkpoint with random weights.

Answers are meaningless, so they are compared: with processor and generation called by hand, and with each other.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm.errors import ContextLengthError, ImageError, InputError, ModelNotFoundError
from smolvlm.generation.generate import generate
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import LiveAdapter
from smolvlm.types import SamplingParams
from smolvlm.vlm import VLM, load, preview
from smolvlm.vlm.spelling import spell
from smolvlm.vlm.tiles import TileCache
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["torch", "native"])
def vlm(request: pytest.FixtureRequest, directory: Path) -> VLM:
    if request.param == "native" and not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    return load(directory, runtime=request.param)


@pytest.fixture(scope="module")
def model(directory: Path) -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration.from_pretrained(directory)


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def frames(seed: int, count: int = 3) -> list[Image.Image]:
    return [picture(seed + index, 32, 24) for index in range(count)]


class Calls:
    """Counts how often a model looks at pictures that it has not seen before, while it is entered."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm, self.count = vlm, 0

    def __enter__(self) -> Calls:
        self.vlm._tiles = TileCache(self._encode, self.vlm._driver.motor.join)
        return self

    def _encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None) -> object:
        self.count += 1
        return self.vlm._driver.encode(pixel_values, adapter)

    def __exit__(self, *_: object) -> None:
        self.vlm._tiles = TileCache(self.vlm._driver.encode, self.vlm._driver.motor.join)


# ---- asking ----


def test_an_answer_is_what_processor_and_generation_give_by_hand(
    vlm: VLM, model: SmolVLMForConditionalGeneration
) -> None:
    answer = vlm.ask("What is this?", images=[picture(1)], max_new_tokens=12)
    content = [{"type": "image", "image": picture(1)}, {"type": "text", "text": "What is this?"}]
    inputs = vlm.processor.prepare([{"role": "user", "content": content}])
    batch = {name: torch.from_numpy(array) for name, array in vlm.processor.collate([inputs]).items()}
    params = SamplingParams(max_new_tokens=12)
    (by_hand,) = generate(model, batch, params, eos_token_ids=[vlm.processor.tokenizer.eos_token_id])
    assert answer.token_ids == by_hand.token_ids and len(answer.token_ids) > 0
    assert answer.text == vlm.processor.tokenizer.decode(by_hand.token_ids, skip_special_tokens=True).lstrip()
    assert answer.finish_reason == by_hand.finish_reason
    assert answer.prompt_tokens == len(inputs.input_ids)
    in_prompt = int((inputs.input_ids == vlm.config.image_token_id).sum())
    assert answer.image_tokens == in_prompt == len(inputs.pixel_values) * 16
    assert 0 < answer.first_token_s <= answer.total_s
    assert str(answer) == answer.text


def test_a_question_with_pictures_is_a_user_turn_with_the_pictures_first(vlm: VLM) -> None:
    content = [
        {"type": "image", "image": picture(1)},
        {"type": "image", "image": picture(2)},
        {"type": "text", "text": "Which is red?"},
    ]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    by_messages = vlm.ask(messages=messages, max_new_tokens=8)
    by_question = vlm.ask("Which is red?", images=[picture(1), picture(2)], system="Be brief.", max_new_tokens=8)
    assert by_question.token_ids == by_messages.token_ids
    assert by_question.prompt_tokens == by_messages.prompt_tokens


def test_one_picture_needs_no_list(vlm: VLM) -> None:
    alone = vlm.ask("What?", images=picture(1), max_new_tokens=4)
    assert alone.token_ids == vlm.ask("What?", images=[picture(1)], max_new_tokens=4).token_ids


def test_streamed_pieces_join_to_the_answer_and_none_is_empty(vlm: VLM) -> None:
    stream = vlm.stream("What is this?", images=[picture(1)], max_new_tokens=24)
    with pytest.raises(InputError, match="isn't complete"):
        _ = stream.answer
    pieces = list(stream)
    whole = vlm.ask("What is this?", images=[picture(1)], max_new_tokens=24)
    assert "".join(pieces) == stream.answer.text == whole.text
    assert stream.answer.token_ids == whole.token_ids
    assert all(pieces) and len(pieces) > 3


def test_a_stop_text_ends_the_answer_before_itself(vlm: VLM) -> None:
    whole = vlm.ask("What is this?", images=[picture(1)], max_new_tokens=24)
    stop = whole.text[8:11]
    assert len(stop) == 3
    cut = vlm.ask("What is this?", images=[picture(1)], max_new_tokens=24, stop=stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop" and len(cut.token_ids) < len(whole.token_ids)


def test_a_stream_may_be_left_and_asked_around(vlm: VLM) -> None:
    stream = vlm.stream("Who are you?", max_new_tokens=24)
    first = next(stream)
    between = vlm.ask("Who are you?", max_new_tokens=24).text  # would wait for ever if a stream kept the lock
    assert first + "".join(stream) == between
    abandoned = vlm.stream("Who are you?", max_new_tokens=24)
    next(abandoned)
    abandoned.close()
    assert vlm.ask("Who are you?", max_new_tokens=24).text == between


def test_a_batch_gives_the_answers_of_single_calls_whatever_they_hold(vlm: VLM) -> None:
    requests = [
        {"question": "What is this?", "images": [picture(1)]},
        {"question": "Who are you?", "temperature": 1.0, "seed": 4},
        {"question": "Which?", "images": [picture(2), picture(3, 200, 90)], "max_new_tokens": 3},
        {"question": "What moves?", "videos": [frames(4)], "temperature": 0.8, "top_p": 0.9, "seed": 5},
        {"question": "And this?", "features": vlm.encode(images=[picture(6)])},
    ]
    singles = [vlm.ask(**{"max_new_tokens": 10, **request}) for request in requests]  # type: ignore[arg-type]
    for batch_size in (1, 2, 8):
        batch = vlm.ask_batch([{"max_new_tokens": 10, **request} for request in requests], batch_size=batch_size)  # type: ignore[list-item]
        assert [answer.token_ids for answer in batch] == [answer.token_ids for answer in singles]
        assert [answer.text for answer in batch] == [answer.text for answer in singles]


def test_an_answer_about_a_video_says_which_frames_were_seen(vlm: VLM) -> None:
    answer = vlm.ask("What moves?", videos=[frames(4)], max_new_tokens=2)
    (seen,) = answer.frames
    assert seen.indices == (0, 1, 2) and len(seen.timestamps_s) == 3
    assert answer.image_tokens == 3 * 16


def test_threads_get_the_answers_they_would_get_alone(vlm: VLM) -> None:
    alone = [vlm.ask("What?", images=[picture(seed)], max_new_tokens=10).text for seed in range(4)]
    found: dict[int, str] = {}

    def work(seed: int) -> None:
        found[seed] = vlm.ask("What?", images=[picture(seed)], max_new_tokens=10).text

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [found[seed] for seed in range(4)] == alone


# ---- features ----


def test_features_are_made_once_and_answer_like_the_pictures(vlm: VLM) -> None:
    with Calls(vlm) as calls:
        features = vlm.encode(images=[picture(1), picture(2)], videos=[frames(4)])
        assert calls.count > 0
        calls.count = 0
        answers = [vlm.ask(question, features=features, max_new_tokens=8) for question in ("What?", "Where?")]
        assert calls.count == 0
    for question, answer in zip(("What?", "Where?"), answers, strict=True):
        direct = vlm.ask(question, images=[picture(1), picture(2)], videos=[frames(4)], max_new_tokens=8)
        assert answer.token_ids == direct.token_ids and answer.frames == direct.frames
        assert answer.image_tokens == direct.image_tokens


def test_features_of_other_weights_are_refused(vlm: VLM, tmp_path: Path) -> None:
    other = load(tiny_checkpoint(tmp_path, seed=1))
    with pytest.raises(InputError, match="other weights"):
        other.ask("What?", features=vlm.encode(images=[picture(1)]))


def test_features_and_pictures_cannot_be_mixed(vlm: VLM) -> None:
    with pytest.raises(InputError, match="features= hold the pictures already"):
        vlm.ask("What?", images=[picture(1)], features=vlm.encode(images=[picture(1)]))


# ---- decisions ----


def test_a_decision_is_the_softmax_over_first_tokens_of_all_spellings(
    vlm: VLM, model: SmolVLMForConditionalGeneration
) -> None:
    decision = vlm.decide("Is it red?", images=[picture(1)])
    encode = vlm.processor.tokenizer.encode
    inputs = vlm.processor.prepare(
        [{"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "Is it red?"}]}]
    )
    with torch.inference_mode():
        batch = {name: torch.from_numpy(array) for name, array in vlm.processor.collate([inputs]).items()}
        chances = model(**batch).logits[0, -1].double().softmax(-1)
    words = {"yes": ("yes", "Yes", "YES"), "no": ("no", "No", "NO")}
    starts = {choice: {encode(space + word)[0] for word in words[choice] for space in ("", " ")} for choice in words}
    shared = starts["yes"] & starts["no"]  # the lone space in front of capitals, which says nothing
    mass = {choice: float(sum(chances[token_id] for token_id in starts[choice] - shared)) for choice in words}
    total = mass["yes"] + mass["no"]
    assert decision.label_mass == pytest.approx(total, rel=1e-4)
    assert decision.probabilities == pytest.approx({choice: part / total for choice, part in mass.items()}, rel=1e-4)
    assert decision.choice == max(mass, key=mass.__getitem__)
    assert sum(decision.probabilities.values()) == pytest.approx(1)


def test_choices_that_share_their_beginning_are_decided_whole(vlm: VLM) -> None:
    decision = vlm.decide("Which?", choices=["a red circle", "a red square", "a red"], images=[picture(1)])
    assert set(decision.probabilities) == {"a red circle", "a red square", "a red"}
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert 0 < decision.label_mass < 1


def test_spellings_are_with_and_without_space_in_four_cases() -> None:
    spelled = spell(["yes", "no"], lambda text: list(text.encode()), end_id=0)
    assert {bytes(one).decode() for one in spelled[0]} == {"yes", "YES", "Yes", " yes", " YES", " Yes"}


def test_a_first_token_that_several_choices_share_decides_nothing() -> None:
    whole_words = {" yes": [1], " no": [2]}
    spelled = spell(["yes", "no"], lambda text: whole_words.get(text, list(text.encode())), end_id=0)
    assert [{one[0] for one in spellings} for spellings in spelled] == [
        {1, ord("y"), ord("Y")},
        {2, ord("n"), ord("N")},
    ]


def test_choices_that_differ_in_case_only_are_taken_exactly() -> None:
    spelled = spell(["a", "A"], lambda text: list(text.encode()), end_id=0)
    assert [{bytes(one).decode() for one in spellings} for spellings in spelled] == [{"a", " a"}, {"A", " A"}]


def test_a_choice_that_begins_another_ends_with_the_end_token() -> None:
    spelled = spell(["red", "red circle"], lambda text: list(text.encode()), end_id=0)
    assert all(one[-1] == 0 for spellings in spelled for one in spellings)
    assert all(one[-1] != 0 for one in spell(["red", "blue"], lambda text: list(text.encode()), end_id=0)[0])


@pytest.mark.parametrize("choices", [["yes"], [], "yes", ["yes", ""], ["yes", "yes"], ["yes", " yes"]], ids=str)
def test_choices_that_cannot_be_told_apart_are_refused(vlm: VLM, choices: list[str]) -> None:
    with pytest.raises(InputError, match="choices="):
        vlm.decide("Is it red?", choices=choices)


# ---- tokens and the context ----


def test_the_preview_counts_what_an_answer_then_takes(vlm: VLM, directory: Path) -> None:
    asked = {"images": [picture(1), picture(2, 200, 90)], "videos": [frames(4)], "system": "Be brief."}
    report = vlm.tokens("Which?", **asked)  # type: ignore[arg-type]
    answer = vlm.ask("Which?", **asked, max_new_tokens=1)  # type: ignore[arg-type]
    assert report.total == answer.prompt_tokens
    assert report.left == vlm.context - report.total
    assert [media.kind for media in report.media] == ["image", "image", "video"]
    assert preview(directory, "Which?", **asked) == report  # type: ignore[arg-type]


def test_more_pictures_than_fit_are_refused_with_the_number_that_fits(tmp_path: Path) -> None:
    small = load(tiny_checkpoint(tmp_path, context=256))
    cost = small.tokens("What?", images=[picture(1)], detail="low").image
    text = small.tokens("What?").total
    fit = (256 - text - 1) // cost
    assert small.ask("What?", images=[picture(1)] * fit, detail="low", max_new_tokens=1).finish_reason
    with pytest.raises(ContextLengthError, match=rf"256.*first {fit} of {fit + 1} "):
        small.ask("What?", images=[picture(1)] * (fit + 1), detail="low", max_new_tokens=1)


def test_an_answer_ends_where_the_context_ends(tmp_path: Path) -> None:
    small = load(tiny_checkpoint(tmp_path, context=64))
    answer = small.ask("Who are you?", max_new_tokens=500)
    assert answer.finish_reason == "stop" or answer.prompt_tokens + len(answer.token_ids) == 64


# ---- chats ----


def test_a_chat_is_the_same_as_its_messages_and_encodes_pictures_once(vlm: VLM) -> None:
    chat = vlm.chat(system="Be brief.")
    with Calls(vlm) as calls:
        first = chat.ask("What is this?", images=[picture(1)], max_new_tokens=6)
        after_first = calls.count
        second = chat.ask("And where?", max_new_tokens=6)
        assert calls.count == after_first
    user = [{"type": "image", "image": picture(1)}, {"type": "text", "text": "What is this?"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": user},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And where?"},
    ]
    assert second.token_ids == vlm.ask(messages=messages, max_new_tokens=6).token_ids
    assert chat.transcript() == [
        {"role": "user", "text": "[image] What is this?"},
        {"role": "assistant", "text": first.text},
        {"role": "user", "text": "And where?"},
        {"role": "assistant", "text": second.text},
    ]
    chat.reset()
    assert chat.transcript() == []


def test_a_turn_that_fails_or_is_left_leaves_no_trace(vlm: VLM) -> None:
    chat = vlm.chat()
    with pytest.raises(ImageError):
        chat.ask("What?", images=["there is no such file.png"])
    stream = chat.stream("What?", images=[picture(1)], max_new_tokens=20)
    next(stream)
    stream.close()
    assert chat.transcript() == []
    assert chat.ask("Who are you?", max_new_tokens=5).token_ids == vlm.ask("Who are you?", max_new_tokens=5).token_ids


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a question.*or messages"),
        ({"question": "What?", "messages": [{"role": "user", "content": "What?"}]}, "either a question"),
        ({"messages": [{"role": "user", "content": "What?"}], "images": ["a.png"]}, "put images= and videos="),
        ({"messages": [{"role": "system", "content": "x"}], "system": "y"}, "leave system= out"),
        ({"question": 5}, "must be a text"),
        ({"question": "What?", "max_tokens": 5}, "no option 'max_tokens'.*'max_new_tokens'"),
        ({"question": "What?", "image": "a.png"}, "no option 'image'.*'images'"),
        ({"question": "What?", "zzz": 1}, "no option 'zzz'.*It has: adapter, allow_url"),
        ({"question": "What?", "temperature": -1}, "temperature=-1"),
        ({"question": "What?", "detail": "medium"}, "detail='medium'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_with_the_right_ones(vlm: VLM, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vlm.ask(**arguments)  # type: ignore[arg-type]


def test_bad_input_is_raised_by_stream_at_once(vlm: VLM) -> None:
    with pytest.raises(ImageError):
        vlm.stream("What?", images=["there is no such file.png"])


# ---- loading ----


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_everything_is_reachable_from_the_package(directory: Path) -> None:
    vlm = smolvlm.load(directory)
    assert isinstance(vlm, smolvlm.VLM)
    assert isinstance(vlm.ask("Who are you?", max_new_tokens=2), smolvlm.Answer)


@pytest.mark.parametrize("name", ["images", "videos"])
def test_none_among_the_media_is_named(vlm: VLM, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}\[0\] is None"):
        vlm.ask("What is this?", **{name: [None]})
