"""What is made again for the backward pass gives the gradients of what is kept, and isn't in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from smolvlm import LoraConfig, add_adapter
from smolvlm.model import remade
from smolvlm.model.remade import through
from tests.adapted import new_model, teach
from tests.tiny_batches import request

NEVER = 2**40


def gradients(worth: int, patch: pytest.MonkeyPatch, autocast: bool, adapted: bool) -> dict[str, Tensor]:
    patch.setattr(remade, "WORTH", worth)
    model = new_model().train()
    if adapted:
        teach(add_adapter(model, LoraConfig(r=4, target_modules=("all-linear",))))
    batch = request(0, 24, tiles=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(**batch, labels=batch["input_ids"]).loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch, autocast: bool, adapted: bool) -> None:
    """But for the order of sums: a norm's parts are added up before they meet the residual."""
    kept, made = (gradients(worth, monkeypatch, autocast, adapted) for worth in (NEVER, 0))
    assert kept.keys() == made.keys() and len(kept) > 10
    for name, gradient in kept.items():
        if name.endswith("k_proj.bias"):
            continue  # of nought but rounding: softmax takes no notice of what all keys share
        away = (gradient - made[name]).norm() / gradient.norm()
        assert away < (2e-2 if autocast else 1e-5), (name, away)


@pytest.mark.parametrize("worth", [NEVER, 0])
def test_what_is_made_is_gone_once_it_was_used(monkeypatch: pytest.MonkeyPatch, worth: int) -> None:
    monkeypatch.setattr(remade, "WORTH", worth)
    linear, x = nn.Linear(256, 8), torch.rand(64, 256, requires_grad=True)
    made: list[weakref.ref[torch.UntypedStorage]] = []

    def use(active: Tensor) -> Tensor:
        made.append(weakref.ref(active.untyped_storage()))
        result: Tensor = linear(active)
        return result

    out = through(torch.relu, (x,), use)
    assert (made[0]() is None) == (worth == 0)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x.detach() > 0) * linear.weight.sum(0))


def test_what_it_was_made_from_is_let_go_by_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remade, "WORTH", 0)
    x = torch.rand(64, 256, requires_grad=True)
    between = x * 2
    kept = weakref.ref(between.untyped_storage())
    loss = through(torch.relu, (between,), nn.Linear(256, 8)).sum()
    del between
    assert kept() is not None
    loss.backward()
    assert kept() is None


@pytest.mark.parametrize("worth", [NEVER, 0])
def test_norms_that_are_trained_in_float32_fit_between_layers_of_bfloat16(
    monkeypatch: pytest.MonkeyPatch, worth: int
) -> None:
    monkeypatch.setattr(remade, "WORTH", worth)
    model, batch = new_model().to(dtype=torch.bfloat16).train(), request(0, 24, tiles=2)
    before = model(**batch).logits.detach()
    names = ["norm", "layer_norm1", "layer_norm2", "input_layernorm", "post_attention_layernorm"]
    adapter = add_adapter(model, LoraConfig("text", modules_to_save=names))
    after = model(**batch, labels=batch["input_ids"])
    assert (after.logits - before).norm() < 0.02 * before.norm()
    after.loss.backward()
    norms = [one for name, one in model.named_parameters() if "norm" in name and one.requires_grad]
    assert adapter.targets.saved and all(one.dtype == torch.float32 and one.grad is not None for one in norms)
