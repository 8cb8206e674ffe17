"""Streaming text: whole characters, stop texts across tokens, and pieces that join to the decoded whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.processing.text_stream import TextStream
from smolvlm.processing.tokenizer import SmolVLMTokenizer
from tests.tiny import write_tiny_tokenizer


def stream(pieces: list[bytes], stop: tuple[str, ...] = (), **options: bool) -> tuple[list[str], TextStream]:
    """The released text of tokens whose bytes are `pieces`, one string a token and one for the end."""
    text = TextStream(pieces.__getitem__, stop, **options)
    released = [text.push(index) for index in range(len(pieces))]
    return [*released, text.finish()], text


def test_a_character_of_four_bytes_comes_out_whole() -> None:
    bird = "🦜".encode()
    released, _ = stream([b"a", bird[:1], bird[1:3], bird[3:] + b"b"])
    assert released == ["a", "", "", "🦜b", ""]


def test_a_character_cut_by_the_end_becomes_one_replacement_mark() -> None:
    released, text = stream([b"a", "€".encode()[:2]])
    assert released == ["a", "", "\ufffd"]
    assert text.text == "a\ufffd" == (b"a" + "€".encode()[:2]).decode(errors="replace")


def test_a_stop_text_across_tokens_ends_the_answer_and_is_not_part_of_it() -> None:
    released, text = stream([b"one ", b"ST", b"OP", b" two"], stop=("STOP",))
    assert released == ["one ", "", "", "", ""]
    assert text.stopped and text.text == "one "


def test_text_that_only_looked_like_a_stop_text_is_released() -> None:
    released, text = stream([b"one ", b"ST", b"ART"], stop=("STOP",))
    assert released == ["one ", "", "START", ""]
    assert not text.stopped


def test_held_back_text_is_released_at_the_end() -> None:
    assert stream([b"one ST"], stop=("STOP",))[0] == ["one ", "ST"]


def test_the_stop_text_that_is_complete_first_wins_however_tokens_are_cut() -> None:
    for pieces in ([b"xaby"], [b"x", b"a", b"b", b"y"], [b"xa", b"by"]):
        assert stream(pieces, stop=("aby", "b"))[1].text == "xa"


def test_spaces_before_the_answer_are_dropped_but_not_those_inside() -> None:
    assert stream([b" ", b"\n", b" Yes", b" it is "], strip_start=True)[0] == ["", "", "Yes", " it is ", ""]


@given(
    raw=st.one_of(st.text().map(lambda text: text.encode("utf-8", "replace")), st.binary(max_size=40)),
    cuts=st.lists(st.integers(0, 60), max_size=20),
    stop=st.lists(st.text(alphabet="ab€🦜", min_size=1, max_size=3), max_size=3).map(tuple),
)
def test_pieces_joined_are_the_decoded_whole_up_to_the_first_stop(
    raw: bytes, cuts: list[int], stop: tuple[str, ...]
) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(raw)), len(raw)]
    released, text = stream([raw[start:end] for start, end in zip(edges, edges[1:], strict=False)], stop)
    whole = raw.decode(errors="replace")
    ends = [whole.find(word) + len(word) for word in stop if word in whole]
    if ends:
        first = min(ends)
        whole = min((whole[: first - len(w)] for w in stop if whole[:first].endswith(w)), key=len)
    assert "".join(released) == text.text == whole


@pytest.mark.parametrize("vocabulary", ["tiny", "released"])
def test_streamed_tokens_are_the_tokenizers_own_decoding(
    vocabulary: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if vocabulary == "tiny":
        write_tiny_tokenizer(tmp_path)
        tokenizer = SmolVLMTokenizer.from_directory(tmp_path)
    else:
        tokenizer = SmolVLMTokenizer.from_directory(request.getfixturevalue("shared") / "data" / "tokenizer")
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(0, len(tokenizer), rng.integers(1, 30)).tolist()
        text = TextStream(tokenizer.token_bytes)
        pieces = [text.push(token_id) for token_id in ids] + [text.finish()]
        assert "".join(pieces) == tokenizer.backend.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("stop", [(), ("zzz",)])
def test_nothing_is_held_back_without_need(stop: tuple[str, ...]) -> None:
    assert stream([b"Hello", b" there"], stop)[0] == ["Hello", " there", ""]
