"""What must hold for any request: company, padding, cache and streaming change nothing, every feature has its place.

Equal means equal tokens in fp32. In bf16 the order of additions may turn a choice, but only one that was nearly even:
see the last test, which prints how often that happened.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm.generation.generate import generate
from smolvlm.types import SamplingParams
from smolvlm.vlm import VLM, load
from tests.tiny import tiny_checkpoint
from tests.tiny_batches import Batch, request, tiny_model, together

EXAMPLES = 40
NEVER = ()


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


# A prompt (its random seed, number of text tokens, number of tiles) and how to answer it.
prompts = st.tuples(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 4))
params = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(1, 10),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 5, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 2**63 - 1),
)
answered = st.tuples(prompts, params)


def tokens(batch: Batch, how: SamplingParams | list[SamplingParams], **options: bool) -> list[tuple[int, ...]]:
    return [row.token_ids for row in generate(tiny_model(), batch, how, eos_token_ids=NEVER, **options)]


@settings(max_examples=EXAMPLES)
@given(st.lists(answered, min_size=2, max_size=5))
def test_a_batch_equals_single_calls(requests: list[tuple[tuple[int, int, int], SamplingParams]]) -> None:
    items = [request(*prompt) for prompt, _ in requests]
    how = [chosen for _, chosen in requests]
    singles = [tokens(item, chosen)[0] for item, chosen in zip(items, how, strict=True)]
    assert tokens(together(items), how) == singles


@settings(max_examples=EXAMPLES)
@given(answered)
def test_cached_equals_uncached(asked: tuple[tuple[int, int, int], SamplingParams]) -> None:
    item = request(*asked[0])
    assert tokens(item, asked[1]) == tokens(item, asked[1], use_cache=False)


@settings(max_examples=EXAMPLES)
@given(answered, st.integers(1, 50))
def test_left_padding_changes_nothing(asked: tuple[tuple[int, int, int], SamplingParams], padding: int) -> None:
    item = request(*asked[0])
    ids = item["input_ids"]
    filling = torch.full((1, padding), 7)
    mask = torch.cat([torch.zeros_like(filling), torch.ones_like(ids)], dim=1)
    padded = {**item, "input_ids": torch.cat([filling, ids], dim=1), "attention_mask": mask}
    assert tokens(padded, asked[1]) == tokens(item, asked[1])


words = st.text(max_size=30)
stops = st.lists(st.text(alphabet="aeo €", min_size=1, max_size=3), max_size=2)


@settings(max_examples=EXAMPLES)
@given(words.filter(str.strip), stops, st.integers(0, 2**32), st.sampled_from([0.0, 2.0]))
def test_streaming_equals_final(vlm: VLM, question: str, stop: list[str], seed: int, temperature: float) -> None:
    asked = {"max_new_tokens": 16, "stop": stop, "seed": seed, "temperature": temperature}
    stream = vlm.stream(question, **asked)  # type: ignore[arg-type]
    pieces = list(stream)
    final = vlm.ask(question, **asked)  # type: ignore[arg-type]
    assert "".join(pieces) == stream.answer.text == final.text
    assert stream.answer.token_ids == final.token_ids
    whole = vlm.processor.tokenizer.decode(final.token_ids, skip_special_tokens=True)
    assert final.text == before_first_stop(whole, stop).lstrip()


def before_first_stop(text: str, stops: list[str]) -> str:
    """The text before the stop text that is complete first."""
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        return text
    read = text[: min(ends)]
    return min((read[: -len(stop)] for stop in stops if read.endswith(stop)), key=len)


modes = st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
sides = st.integers(1, 400)


@settings(max_examples=3 * EXAMPLES)
@given(sides, sides, modes, st.sampled_from(["low", "auto", "high"]), st.sampled_from([None, 16, 40, 100]))
def test_a_picture_has_as_many_places_in_the_prompt_as_features(
    vlm: VLM, width: int, height: int, mode: str, detail: str, most: int | None
) -> None:
    image = Image.new(mode, (width, height))
    look = {"detail": detail, "max_image_tokens": most}
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
    inputs = vlm.processor.prepare([{"role": "user", "content": content}], **look)  # type: ignore[arg-type]
    places = int((inputs.input_ids == vlm.config.image_token_id).sum())
    features = vlm.encode(images=[image], **look).values  # type: ignore[arg-type]
    assert places == features.shape[0] * features.shape[1]  # type: ignore[attr-defined]
    assert most is None or places <= most
    report = vlm.tokens("What?", images=[image], **look)  # type: ignore[arg-type]
    assert (report.total, report.tiles) == (len(inputs.input_ids), features.shape[0])  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def halved() -> torch.nn.Module:
    return copy.deepcopy(tiny_model()).to(torch.bfloat16)


def test_in_bf16_a_batch_differs_only_where_the_choice_was_nearly_even(capsys: pytest.CaptureFixture[str]) -> None:
    """The yardstick: fp32 logits along the answer of the single call. Allowed: a gap between the two best of less
    than twice the largest bf16 error of a logit there."""
    how = SamplingParams(max_new_tokens=16)
    rng = np.random.default_rng(0)
    items = [request(int(rng.integers(10**6)), int(rng.integers(1, 40)), int(rng.integers(0, 4))) for _ in range(24)]
    model = halved()
    singles = [generate(model, item, how, eos_token_ids=NEVER)[0].token_ids for item in items]  # type: ignore[arg-type]
    turned = 0
    for start in range(0, len(items), 6):
        batch = together(items[start : start + 6])
        rows = generate(model, batch, how, eos_token_ids=NEVER)  # type: ignore[arg-type]
        for item, single, row in zip(items[start:], singles[start:], rows, strict=False):
            if row.token_ids != single:
                turned += 1
                place = next(at for at, (a, b) in enumerate(zip(single, row.token_ids, strict=True)) if a != b)
                gap, error = _gap_and_error(item, single[:place])
                assert gap < 2 * error, f"the two best logits lie {gap:.3f} apart, the bf16 error is {error:.3f}"
    with capsys.disabled():
        print(f"\nbf16: {turned} of {len(items)} greedy answers differ between batch and single call, all nearly even")


def _gap_and_error(item: Batch, answer: tuple[int, ...]) -> tuple[float, float]:
    ids = torch.cat([item["input_ids"], torch.tensor([answer], dtype=torch.long)], dim=1)
    with torch.inference_mode():
        exact = tiny_model()(**{**item, "input_ids": ids}, use_cache=False).logits[0, -1]
        rough = halved()(**{**item, "input_ids": ids}, use_cache=False).logits[0, -1].float()
    best = exact.topk(2).values
    return float(best[0] - best[1]), float((exact - rough).abs().max())
