"""Greedy and penalised answers of a padded batch with pictures, against transformers' own generate, fp32, 64 steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.generation.generate import generate
from smolvlm.types import SamplingParams
from tests.tiny import tiny_checkpoint
from tests.tiny_batches import request, tiny_model, together

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.reference

STEPS = 64


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_left_padded_batch_with_pictures_gives_the_references_tokens(theirs: Any, penalty: float) -> None:
    items = [request(1, 12, tiles=2), request(2, 5, tiles=1), request(3, 30, tiles=3)]
    if penalty != 1:  # the reference penalises padding as if it were text, so a batch has no oracle
        items = items[:1]
    batch = together(items)
    params = SamplingParams(max_new_tokens=STEPS, repetition_penalty=penalty)
    ours = generate(tiny_model(), batch, params, eos_token_ids=())
    with torch.inference_mode():
        expected = theirs.generate(
            **batch, do_sample=False, max_new_tokens=STEPS, min_new_tokens=STEPS, repetition_penalty=penalty,
            eos_token_id=None,
        )  # fmt: skip
    new = expected[:, batch["input_ids"].shape[1] :]
    assert [list(row.token_ids) for row in ours] == new.tolist()
