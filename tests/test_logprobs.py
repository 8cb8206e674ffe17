"""Log probabilities of an answer's tokens: those of the PyTorch model's own logits, and those of the text told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smolvlm
from smolvlm.errors import InputError
from smolvlm.generation.likelihood import Likely, likely
from smolvlm.generation.sampling import Sampler
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.types import Answer, SamplingParams, TokenLogprob
from smolvlm.vlm import VLM
from smolvlm.vlm.answers import Writer
from tests.tiny import tiny_checkpoint

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["torch", "native", "onnx"])
def vlm(request: pytest.FixtureRequest, directory: Path) -> VLM:
    if request.param == "native" and not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install 'smolvlm[onnx]'")
    return smolvlm.load(directory, runtime=request.param, dtype="float32")


@pytest.fixture(scope="module")
def plain(directory: Path) -> VLM:
    return smolvlm.load(directory, runtime="torch", dtype="float32")


@pytest.fixture(scope="module")
def processor() -> SmolVLMProcessor:
    return SmolVLMProcessor.from_pretrained("nano")


def oracle(plain: VLM, answer: Answer, question: str, images: list[Image.Image]) -> torch.Tensor:
    """(tokens, vocabulary): from one forward of the PyTorch model over prompt and answer."""
    blocks = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
    inputs = plain.processor.prepare([{"role": "user", "content": blocks}])
    ids = np.concatenate([inputs.input_ids, answer.token_ids])
    pixels = None if inputs.pixel_values is None else torch.from_numpy(inputs.pixel_values)[None]
    with torch.inference_mode():
        logits = plain.model(torch.from_numpy(ids)[None], pixel_values=pixels).logits[0]
    return logits[len(inputs.input_ids) - 1 : -1].double().log_softmax(dim=-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.3, "top_k": 7, "seed": 3},
        {"repetition_penalty": 1.5, "temperature": 0.7, "seed": 1},
        {"regex": "[a-z ]{5,30}", "temperature": 1.0, "seed": 2},
        {"images": [PICTURE]},
    ],
)
def test_they_are_those_of_the_models_own_logits(vlm: VLM, plain: VLM, options: dict) -> None:
    """Whatever else chose the token. The tolerance is float32's: logits of other kernels differ in the last places."""
    answer = vlm.ask("What is it?", max_new_tokens=25, logprobs=4, **options)
    expected = oracle(plain, answer, "What is it?", options.get("images", []))
    assert len(answer.logprobs) == len(answer.token_ids) - (answer.token_ids[-1] in vlm._end_ids)
    for token, token_id, row in zip(answer.logprobs, answer.token_ids, expected, strict=False):
        assert token.token_id == token_id
        assert token.logprob == pytest.approx(row[token_id].item(), abs=2e-4)
        best = row.topk(4)
        assert [one.logprob for one in token.top] == pytest.approx(best.values.tolist(), abs=2e-4)
        assert [one.token_id for one in token.top] == best.indices.tolist()


def test_nothing_is_reckoned_that_nobody_asks_for(plain: VLM) -> None:
    assert plain.ask("What?", max_new_tokens=3).logprobs == ()
    chosen = plain.ask("What?", max_new_tokens=3, logprobs=0).logprobs
    assert len(chosen) == 3 and all(token.top == () for token in chosen)
    assert Sampler(SamplingParams()).is_argmax and not Sampler(SamplingParams(logprobs=0)).is_argmax


def test_of_equal_tokens_the_lower_ids_are_named() -> None:
    logits = np.array([1.0, 3.0, 3.0, 0.0, 3.0], np.float32)
    assert likely(logits, 3, 2).top_ids == (1, 2)
    assert likely(logits, 3, 9).top_ids == (1, 2, 4, 0, 3)  # no more than there are
    assert np.exp(likely(logits, 0, 5).top_logprobs).sum() == pytest.approx(1)


def test_a_batch_and_a_stream_say_what_ask_says(vlm: VLM) -> None:
    options = {"max_new_tokens": 12, "temperature": 1.0, "seed": 5, "logprobs": 2}
    alone = vlm.ask("What is it?", **options)  # type: ignore[arg-type]
    stream = vlm.stream("What is it?", **options)  # type: ignore[arg-type]
    assert "".join(stream) == alone.text
    batch = vlm.ask_batch([{"question": "What is it?", **options}, {"question": "And now?"}])  # type: ignore[typeddict-item]
    for other in (stream.answer, batch[0]):
        assert other.token_ids == alone.token_ids
        found, expected = flat(other), flat(alone)
        assert [token.token_id for token in found] == [token.token_id for token in expected]
        assert [token.logprob for token in found] == pytest.approx([token.logprob for token in expected], abs=1e-4)
    assert batch[1].logprobs == ()


def flat(answer: Answer) -> list[TokenLogprob]:
    return [one for token in answer.logprobs for one in (token, *token.top)]


def test_what_is_no_count_is_refused() -> None:
    for value in (-1, 21, 1.5, True, "2"):
        with pytest.raises(InputError, match="logprobs=.*0 to 20"):
            SamplingParams(logprobs=value)  # type: ignore[arg-type]


# ---- which tokens: a writer that is told tokens by hand ----


def write(processor: SmolVLMProcessor, token_ids: list[int], stop: tuple[str, ...] = ()) -> tuple[Writer, list]:
    """A finished writer, and what it told after each token and at the end."""
    ends = [processor.tokenizer.end_of_utterance_token_id]
    writer = Writer(processor.tokenizer, stop, ends, started=0.0, prompt_tokens=1, image_tokens=0, frames=())
    told = []
    for number, token_id in enumerate(token_ids):
        writer.note(Likely(-float(number), (token_id,), (-float(number),)))
        stopped = writer.take(token_id)
        told.append(writer.drain())
        if stopped:
            break
    writer.finish("stop")
    told.append(writer.drain())
    assert writer.drain() == ("", ())
    return writer, told


def test_tokens_are_told_with_their_text_and_join_to_it(processor: SmolVLMProcessor) -> None:
    encode = processor.tokenizer.encode
    ids = [*encode(" Zwölf Boxkämpfer 🥊 ü"), processor.tokenizer.end_of_utterance_token_id]
    writer, told = write(processor, ids)
    assert writer.answer is not None
    assert "".join(text for text, _ in told) == writer.answer.text == "Zwölf Boxkämpfer 🥊 ü"
    assert tuple(token for _, tokens in told for token in tokens) == writer.answer.logprobs
    assert [token.token_id for token in writer.answer.logprobs] == ids[:-1]
    assert [token.logprob for token in writer.answer.logprobs] == [-float(number) for number in range(len(ids) - 1)]
    assert b"".join(token.bytes for token in writer.answer.logprobs).decode() == " Zwölf Boxkämpfer 🥊 ü"
    for text, tokens in told:  # a part of a character waits for the rest of it
        assert text.strip() == b"".join(token.bytes for token in tokens).decode().strip()


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("red, blue. And", (".",), "red, blue"),
        ("red, blue. And", ("blue",), "red, "),
        ("red, blue. And", ("red",), ""),
        ("red, blue. And", ("e. A",), "red, blu"),  # begins inside a token
        ("red, blue. And", ("And more",), "red, blue. And"),  # begins and never comes
        ("red", ("d",), "re"),
    ],
)
def test_tokens_behind_a_stop_text_are_not_told(
    processor: SmolVLMProcessor, text: str, stop: tuple[str, ...], kept: str
) -> None:
    writer, told = write(processor, processor.tokenizer.encode(text), stop)
    assert writer.answer is not None and writer.answer.text == kept
    tokens = writer.answer.logprobs
    assert tuple(token for _, part in told for token in part) == tokens
    joined = b"".join(token.bytes for token in tokens).decode()
    assert joined.startswith(kept)
    assert not tokens or len(joined) - len(tokens[-1].token) < max(len(kept), 1), "the last one is needed"


def test_special_tokens_are_told_by_name_and_have_no_bytes(processor: SmolVLMProcessor) -> None:
    tokenizer = processor.tokenizer
    writer, _ = write(processor, [*tokenizer.encode("a"), tokenizer.image_token_id, *tokenizer.encode("b")])
    assert writer.answer is not None and writer.answer.text == "ab"
    assert [(token.token, token.bytes) for token in writer.answer.logprobs] == [
        ("a", b"a"),
        ("<image>", b""),
        ("b", b"b"),
    ]
    assert tokenizer.token_text(10**6) == ""
    part = tokenizer.encode("🥊")[0]
    assert tokenizer.token_text(part) == "\ufffd"


def test_a_token_at_the_end_without_text_is_told(processor: SmolVLMProcessor) -> None:
    tokenizer = processor.tokenizer
    half = tokenizer.encode("🥊")[:-1]
    for last in ([tokenizer.image_token_id], half):
        writer, told = write(processor, [*tokenizer.encode("a"), *last])
        assert writer.answer is not None
        assert [token.token_id for token in writer.answer.logprobs] == [*tokenizer.encode("a"), *last]
        assert [token.token_id for token in told[-1][1]] == last
