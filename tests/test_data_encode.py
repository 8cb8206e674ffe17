"""Samples as a model learns them: the processor's own ids and tiles, answers alone learned, pictures never cut."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smolvlm.errors import ContextLengthError, ImageError, PromptError
from smolvlm.processing.chat import normalise_messages
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.processing.request import Look
from smolvlm.processing.scale import normalise
from smolvlm.training.collate import collate
from smolvlm.training.data import Encoded, Encoder, Pair, Place, Sample
from smolvlm.training.data.sample import Row, make_sample
from smolvlm.training.data.tokens import show
from smolvlm.training.spans import answer_pieces
from tests.videos import write_video

END = "<end_of_utterance>"
TRICKS = ["Assistant:", "\nAssistant: no", END, "<image>", "User: what?", "<row_1_col_1>", "\ufdd0", " ", "é😀\n"]


@lru_cache(maxsize=1)
def loaded(directory: Path) -> SmolVLMProcessor:
    return SmolVLMProcessor.from_pretrained(directory)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3))


def sample_of(*turns: str, media: Sequence[dict[str, Any]] = ()) -> Sample:
    """Questions and answers in turn; media before the first question."""
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[number % 2], "content": [{"type": "text", "text": text}]}
        for number, text in enumerate(turns)
    ]
    messages[0]["content"] = [*media, *messages[0]["content"]]
    return make_sample(Row({}, Place("test", 0)), messages)


def encode(processor: SmolVLMProcessor, sample: Sample, **options: Any) -> Encoded:
    encoded = Encoder(processor, **options)(sample)
    assert isinstance(encoded, Encoded)
    return encoded


def learned_texts(processor: SmolVLMProcessor, encoded: Encoded) -> list[str]:
    """What is learned, stretch by stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.learned.astype(np.int8), [0]])))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [processor.tokenizer.decode(encoded.ids[start:end].tolist()) for start, end in pairs]


MEDIA = [
    [],
    [{"type": "image", "image": picture(20, 20)}],
    [{"type": "image", "image": picture(90, 50)}, {"type": "image", "image": picture(30, 90)}],
    [{"type": "video", "video": [picture(30, 20)] * 3}],
    [{"type": "video", "video": [picture(30, 20)] * 2}, {"type": "image", "image": picture(70, 20)}],
]


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("model", ["tiny", "nano"])
def test_ids_and_tiles_are_those_of_a_question_to_the_model(
    checkpoint: Path, model: str, media: list[dict[str, Any]]
) -> None:
    processor = SmolVLMProcessor.from_pretrained(checkpoint if model == "tiny" else None)
    sample = sample_of("What is this?", "A red circle.", "And that?", "No.", media=media)
    encoded = encode(processor, sample)
    whole = processor.prepare(list(sample.messages), add_generation_prompt=False)
    assert whole.input_ids.tolist()[: encoded.tokens] == encoded.ids.tolist()
    assert processor.tokenizer.decode(whole.input_ids.tolist()[encoded.tokens :]) == "\n"
    asked = processor.prepare(list(sample.messages[:3]))
    assert encoded.ids.tolist()[: len(asked.input_ids)] == asked.input_ids.tolist()
    assert learned_texts(processor, encoded) == [f" A red circle.{END}", f" No.{END}"]
    if media:
        options = processor.image_processor.options
        np.testing.assert_array_equal(normalise(encoded.tiles, options), whole.pixel_values)
    images = encoded.ids == processor.image_token_id
    assert (
        images.sum()
        == len(encoded.tiles) * processor.image_seq_len
        == sum(m.tiles for m in encoded.media) * (processor.image_seq_len)
    )
    assert not (images & encoded.learned).any()


@given(st.lists(st.lists(st.sampled_from(TRICKS), min_size=1, max_size=4).map("".join), min_size=2, max_size=6))
def test_no_text_can_pass_for_a_turn_or_a_picture(checkpoint: Path, texts: list[str]) -> None:
    processor = loaded(checkpoint)
    turns = texts[: len(texts) // 2 * 2]
    if any(not answer.strip() for answer in turns[1::2]):
        return
    encoded = encode(processor, sample_of(*turns))
    fences = str.maketrans("", "", "\ufdd0\ufdd1")
    assert learned_texts(processor, encoded) == [f" {answer.translate(fences)}{END}" for answer in turns[1::2]]
    assert encoded.ids.tolist().count(processor.tokenizer.eos_token_id) == len(turns)
    assert processor.image_token_id not in encoded.ids


def test_answers_of_weight_zero_are_read_and_not_learned(processor: SmolVLMProcessor) -> None:
    sample = sample_of("a?", "first", "b?", "second")
    messages = [{**message, "weight": 0} if number == 1 else message for number, message in enumerate(sample.messages)]
    encoded = encode(processor, Sample(tuple(messages), sample.place))
    assert learned_texts(processor, encoded) == [f" second{END}"]
    assert encoded.ids.tolist() == encode(processor, sample).ids.tolist()


def test_a_picture_after_the_last_answer_to_learn_is_not_forgotten(processor: SmolVLMProcessor) -> None:
    more = sample_of("And that?", "unsure", media=MEDIA[1]).messages
    talk = (*sample_of("a?", "first").messages, more[0], {**more[1], "weight": 0})
    with pytest.raises(PromptError, match="must end in an answer to learn"):
        encode(processor, Sample(talk, Place("test", 0)))


def test_a_template_that_turns_messages_around_is_refused() -> None:
    talk = normalise_messages([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(PromptError, match="one after another"):
        answer_pieces(talk, "{% for message in messages | reverse %}{{ message.content[0].text }}{% endfor %}")


def test_both_answers_of_a_preference_share_the_question_and_its_tiles(processor: SmolVLMProcessor) -> None:
    asked = sample_of("What is this?", "A thing.", "Which?", media=MEDIA[1])
    said = [
        tuple(normalise_messages([{"role": "assistant", "content": text}])) for text in ("A circle.", "No idea, sorry.")
    ]
    pair = Encoder(processor)(Sample(asked.messages, asked.place, *said))
    assert isinstance(pair, Pair)
    assert learned_texts(processor, pair.chosen) == [f" A circle.{END}"]
    assert learned_texts(processor, pair.rejected) == [f" No idea, sorry.{END}"]
    start = int(np.flatnonzero(pair.chosen.learned)[0])
    assert pair.chosen.ids[:start].tolist() == pair.rejected.ids[:start].tolist()
    assert pair.chosen.tiles is pair.rejected.tiles and len(pair.chosen.tiles) == 1
    tight = Encoder(processor, max_tokens=pair.rejected.tokens - 1)
    with pytest.raises(ContextLengthError):
        tight(Sample(asked.messages, asked.place, *said))


# ---- what is too long -----------------------------------------------------------------------------------------------


def test_what_doesnt_fit_gets_fewer_tiles_and_no_run_is_cut(processor: SmolVLMProcessor) -> None:
    media = [{"type": "image", "image": picture(128, 128)}, {"type": "image", "image": picture(20, 20)}]
    sample = sample_of("What is this?", "A circle.", media=media)
    free = encode(processor, sample)
    assert (len(free.tiles), free.given_up) == (18, 0)
    looks = [Look(max_image_tokens=most * processor.image_seq_len) for most in range(1, 18)]
    choices = [encode(processor, sample, look=look) for look in looks]
    lengths = []
    for limit in range(free.tokens, 60, -40):
        encoded = encode(processor, sample, max_tokens=limit)
        lengths.append(len(encoded.tiles))
        fitting = [len(one.tiles) for one in (*choices, free) if one.tokens <= limit]
        assert len(encoded.tiles) == max(fitting)
        assert encoded.tokens <= limit and encoded.given_up == 18 - len(encoded.tiles)
        assert (encoded.ids == processor.image_token_id).sum() == len(encoded.tiles) * processor.image_seq_len
        assert learned_texts(processor, encoded) == [f" A circle.{END}"]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] == 2 and len(set(lengths)) > 2
    with pytest.raises(ContextLengthError, match="of tiles, as few as there can be"):
        encode(processor, sample, max_tokens=50)


def test_a_long_video_is_shown_by_fewer_frames(processor: SmolVLMProcessor) -> None:
    sample = sample_of("What happens?", "It moves.", media=[{"type": "video", "video": [picture(30, 20)] * 20}])
    encoded = encode(processor, sample, max_tokens=300)
    assert 1 < len(encoded.tiles) < 20 and encoded.given_up == 20 - len(encoded.tiles)
    assert encoded.media[0].timestamps_s[0] == 0.0 and encoded.media[0].timestamps_s[-1] == 19.0


def test_an_answer_of_ten_thousand_tokens_is_refused_by_its_length(processor: SmolVLMProcessor) -> None:
    with pytest.raises(ContextLengthError, match=r"takes \d\d,\d\d\d tokens \(\d\d,\d\d\d of answers") as caught:
        encode(processor, sample_of("Tell me.", "yes " * 10_000, media=MEDIA[2]))
    assert "the limit is 2,048" in str(caught.value)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (["a?", ""], "An answer is empty"),
        (["a?", " \n"], "An answer is empty"),
        (["a?", "b", "c?"], "must end in an answer"),
        (["a?"], "must end in an answer"),
    ],
)
def test_there_must_be_something_to_learn(processor: SmolVLMProcessor, turns: list[str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        encode(processor, sample_of(*turns))


def test_an_answer_with_a_picture_is_refused(processor: SmolVLMProcessor) -> None:
    shown = [{"type": "image", "image": picture(9, 9)}, {"type": "text", "text": "this"}]
    messages = [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": shown}]
    with pytest.raises(PromptError, match="write text only"):
        encode(processor, make_sample(Row({}, Place("test", 0)), messages))


def test_broken_media_are_refused_before_and_after_their_header(processor: SmolVLMProcessor, tmp_path: Path) -> None:
    picture(60, 60).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for broken in (content[:20], content[: len(content) // 2], b"\x89PNG\r\n\x1a\n" + b"x" * 50):
        with pytest.raises(ImageError):
            encode(processor, sample_of("What?", "That.", media=[{"type": "image", "image": broken}]))


def test_a_video_whose_end_is_lost_is_learned_as_far_as_it_goes(processor: SmolVLMProcessor, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=60, rate=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = encode(processor, sample_of("What happens?", "It counts.", media=[{"type": "video", "video": path}]))
    assert 0 < len(encoded.tiles) == len(encoded.media[0].timestamps_s) and encoded.given_up == 0
    assert (encoded.ids == processor.image_token_id).sum() == len(encoded.tiles) * processor.image_seq_len


# ---- on to the trainer, and to people -------------------------------------------------------------------------------


def test_samples_go_into_the_trainers_batches(processor: SmolVLMProcessor) -> None:
    many = [
        encode(processor, sample_of("What?", "A red circle.", "Sure?", "Yes.", media=MEDIA[1])),
        encode(processor, sample_of("Hello", "Hi.")),
    ]
    batch = collate([one.as_branches(64) for one in many], processor.tokenizer.pad_token_id)
    said = [processor.tokenizer.decode(batch.target[batch.turn == turn]) for turn in range(3)]
    assert said == [f" A red circle.{END}", f" Yes.{END}", f" Hi.{END}"]
    assert batch.input_ids[0, : many[0].tokens].tolist() == many[0].ids.tolist()
    assert batch.tiles.shape == (1, 32, 32, 3) and (batch.patch_labels == -1).all()
    weights = [float(batch.weight[batch.turn == turn].sum()) for turn in range(3)]
    assert weights == [float(len(processor.tokenizer.encode(text))) for text in said]


@given(
    st.lists(st.sampled_from(TRICKS), min_size=1, max_size=6).map("".join).filter(lambda text: text.strip("\ufdd0 "))
)
def test_every_token_is_shown_once_with_what_becomes_of_it(checkpoint: Path, text: str) -> None:
    processor = loaded(checkpoint)
    encoded = encode(processor, sample_of(text, text, media=MEDIA[4]))
    shown = list(show(processor.parts, encoded))
    assert [index for one in shown for index in one.ids] == encoded.ids.tolist()
    assert [one.learned for one in shown for _ in one.ids] == encoded.learned.tolist()
    assert "".join(one.text for one in shown if one.learned) == f" {text.replace(chr(0xFDD0), '')}{END}"
    assert [one.text.split(",")[0] for one in shown if one.kind == "tiles"] == ["1 tile", "1 tile", "4 tiles"]


def test_media_can_be_looked_at_less_closely(processor: SmolVLMProcessor) -> None:
    sample = sample_of("What?", "That.", media=[{"type": "image", "image": picture(128, 64)}])
    assert len(encode(processor, sample).tiles) == 9
    assert len(encode(processor, sample, look=Look(detail="low")).tiles) == 1
    assert len(encode(processor, sample, look=Look(max_image_tokens=4 * 16)).tiles) == 3
