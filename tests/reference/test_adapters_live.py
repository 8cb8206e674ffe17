"""What PEFT saved, beside the weights of our motors: the logits of its own unmerged model of transformers' SmolVLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.runtimes.motor import Motor, Span
from smolvlm.runtimes.native import NativeMotor
from smolvlm.runtimes.torch import TorchMotor
from tests.tiny import tiny_checkpoint, tiny_token_ids

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.*save_embedding_layers|.*tie_word_embeddings|.*tied")

SETTINGS: list[dict[str, Any]] = [
    {"target_modules": "all-linear", "r": 4, "lora_alpha": 16},
    {"target_modules": ["down_proj", "proj", "fc1"], "r": 3, "use_rslora": True, "rank_pattern": {"fc1": 7}},
    {"target_modules": ["lm_head", "k_proj"], "r": 4},  # brings a matrix of the head's own, the same as the model's
    {"target_modules": ["o_proj"], "r": 4, "modules_to_save": ["connector", "lm_head"]},
]
BOUND = 1e-4  # of the largest logit, as of test_model.py: float32 sums in another order


def taught(directory: Path, settings: dict[str, Any], seed: int) -> Any:
    """PEFT's adapter on transformers' model, every value moved from where it starts."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return wrapped


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("runtime", ["torch", "native"])
def test_adapters_of_peft_side_by_side_have_the_logits_of_its_unmerged_models(
    tmp_path: Path, runtime: str, tied: bool
) -> None:
    if runtime == "native" and not kernels.LIBRARY.is_file():
        pytest.skip("the kernels were not built: no C compiler")
    directory = tiny_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    image = tiny_token_ids()["<image>"]
    rng = np.random.default_rng(0)
    ids = np.concatenate([rng.integers(10, 500, 6), np.full(16, image), rng.integers(10, 500, 12)])
    pixels = rng.uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    motor: Motor
    if runtime == "native":
        motor = NativeMotor(directory, "float32", threads=1)
    else:
        motor = TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(directory))
    spans, expected = [], []
    for number, settings in enumerate(SETTINGS):
        theirs = taught(directory, settings, number)
        theirs.save_pretrained(tmp_path / str(number))
        live = motor.load_adapter(tmp_path / str(number))
        spans.append(Span(motor.open(len(ids)), ids, motor.encode(pixels, live)[0], live))
        with torch.no_grad():
            batch = {"input_ids": torch.from_numpy(ids)[None], "pixel_values": torch.from_numpy(pixels)[None]}
            expected.append(theirs(**batch).logits[0].numpy())
    logits = motor.forward(spans, range(len(ids) * len(spans)))
    assert np.abs(logits - np.concatenate(expected)).max() < BOUND * np.abs(expected).max()


def test_a_head_that_peft_writes_again_takes_no_memory(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "model", tie_word_embeddings=True)
    taught(directory, SETTINGS[2], 0).save_pretrained(tmp_path / "adapter")
    motor = TorchMotor(SmolVLMForConditionalGeneration.from_pretrained(directory))
    head = motor.model.lm_head.weight
    assert 0 < motor.load_adapter(tmp_path / "adapter").num_bytes < head.nbytes
    if kernels.LIBRARY.is_file():
        native = NativeMotor(directory, "float32", threads=1)
        assert 0 < native.load_adapter(tmp_path / "adapter").num_bytes < head.nbytes
