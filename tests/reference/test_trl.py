"""Preference training of TRL and of ours: the same loss and gradient on the same pairs; what TRL trains loads here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.training.collate import Batch, collate
from smolvlm.training.objectives import Trainee, preference_loss
from smolvlm.training.recipe import Preference
from smolvlm.training.samples import Branch, Sample
from tests.tiny import tiny_checkpoint

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROWS = [
    {"prompt": "User: What is it?\nAssistant:", "chosen": " A red circle.", "rejected": " blue"},
    {"prompt": "User: How many shapes are there?\nAssistant:", "chosen": " three", "rejected": " There are a square."},
]
BETA = 0.3


def trainer_on(directory: Path, output: Path) -> Any:
    model, reference = (
        transformers.SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=torch.float32) for _ in range(2)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # away from the reference, where the loss isn't ln 2
            parameter.add_(0.02 * torch.randn_like(parameter))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    settings = trl.DPOConfig(
        output_dir=str(output), max_steps=2, per_device_train_batch_size=2, beta=BETA, learning_rate=1e-3,
        use_cpu=True, bf16=False, report_to=[], save_strategy="no", max_length=None, gradient_checkpointing=False,
        disable_tqdm=True,
    )  # fmt: skip
    return trl.DPOTrainer(
        model, reference, args=settings, train_dataset=datasets.Dataset.from_list(ROWS), processing_class=tokenizer
    )


def batch_of(inputs: dict[str, torch.Tensor]) -> Batch:
    """TRL's batch, better answers first and then the worse, as pairs that share their question."""
    samples = []
    count = len(inputs["input_ids"]) // 2
    for number in range(count):
        said = []
        for row in (number, number + count):
            real = inputs["attention_mask"][row].bool()
            said.append((inputs["input_ids"][row][real].tolist(), inputs["completion_mask"][row][real].tolist()))
        start = said[0][1].index(1)
        branches = tuple(
            Branch(tuple(ids[start:]), tuple(bool(one) for one in mask[start:]), (kind,))
            for kind, (ids, mask) in zip(("chosen", "rejected"), said, strict=True)
        )
        tiles, labels = np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 0, 3), np.int16)
        samples.append(Sample("pair", tuple(said[0][0][:start]), branches, tiles, labels))
    return collate(samples, 2)


def test_the_preference_loss_and_its_gradient_are_trls(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "tiny")
    trainer = trainer_on(directory, tmp_path / "run")
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    expected = dict(trainer.model.named_parameters())["model.text_model.layers.1.mlp.up_proj.weight"].grad

    ours = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32")
    ours.load_state_dict({name: value for name, value in trainer.model.state_dict().items() if "inv_freq" not in name})
    reference = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32")
    loss = preference_loss(Trainee(ours, torch.float32, reference=reference), batch_of(inputs), Preference(BETA)) / 2
    loss.backward()
    assert abs(loss.item() - 0.6931) > 0.01, "it is away from the start"
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.model.text_model.layers[1].mlp.up_proj.weight.grad, expected, rtol=1e-3, atol=1e-6)


def test_what_trl_trained_loads_here_with_its_logits(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "tiny")
    trainer = trainer_on(directory, tmp_path / "run")
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    ours = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "trained", dtype="float32")
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, trainer.model.eval()(ids).logits, rtol=0, atol=1e-4)
