"""What every motor is held to, and the models and questions that this is done with."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from smolvlm import scenes
from smolvlm.errors import InputError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.runtimes.motor import Motor, Span
from tests.tiny import tiny_config, tiny_weights


def write(directory: Path, config: dict[str, object]) -> Path:
    """A checkpoint directory with the weights of tiny_weights."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tiny_weights(config), directory / "model.safetensors")
    return directory


def odd_config() -> dict[str, object]:
    """Heads of 72 as in the 2.2B model, tiles that patches don't fill, sizes that fill no panel, tied embeddings."""
    config = copy.deepcopy(tiny_config(image_size=64, patch_size=10, scale_factor=3, tie_word_embeddings=True))
    config["vision_config"] |= {"hidden_size": 144, "intermediate_size": 172}
    config["text_config"] |= {"hidden_size": 96, "intermediate_size": 200, "num_attention_heads": 3,
                              "num_key_value_heads": 3, "head_dim": 40}  # fmt: skip
    return config


def read_all(motor: Motor, ids: np.ndarray, pieces: Sequence[int]) -> np.ndarray:
    """Logits of all tokens, read in pieces."""
    slot, at, logits = motor.open(len(ids)), 0, []
    for count in pieces:
        logits.append(motor.forward([Span(slot, ids[at : at + count])], range(count)))
        at += count
    assert slot.length == len(ids)
    return np.concatenate(logits)


def holds_towers(motor: Motor, model: SmolVLMForConditionalGeneration, bound: float) -> None:
    """Features and logits equal the PyTorch model's. bound: a share of the largest value."""
    rng = np.random.default_rng(0)
    side = model.config.vision_config.image_size
    pixels = rng.uniform(-1, 1, (3, 3, side, side)).astype(np.float32)
    ids = rng.integers(10, 500, 140)
    with torch.inference_mode():
        features = model.get_image_features(torch.from_numpy(pixels)[None]).numpy()
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    seen = motor.encode(pixels)
    assert seen.shape == features.shape
    assert np.abs(seen - features).max() < bound * np.abs(features).max()
    read = read_all(motor, ids, (100, 1, 1, 30, 7, 1))
    assert np.abs(read - logits).max() < bound * np.abs(logits).max()


def holds_sequences_apart(motor: Motor) -> None:
    """Sequences that are read together get the logits of each alone."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, 500, count) for count in (70, 1, 19, 1)]
    slots = [motor.open(100) for _ in prompts]
    ends = np.cumsum([len(prompt) for prompt in prompts]) - 1
    together = motor.forward([Span(slot, ids) for slot, ids in zip(slots, prompts, strict=True)], ends)
    alone = [read_all(motor, prompt, (len(prompt),))[-1] for prompt in prompts]
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-5 * np.abs(alone).max())
    for step in range(3):  # single tokens of all slots, of which the last are never wanted
        more = [np.array([20 + row + step]) for row in range(4)]
        together = motor.forward([Span(slot, ids) for slot, ids in zip(slots, more, strict=True)], [0, 2])
        prompts = [np.append(prompt, ids) for prompt, ids in zip(prompts, more, strict=True)]
        alone = [read_all(motor, prompts[at], (len(prompts[at]),))[-1] for at in (0, 2)]
        np.testing.assert_allclose(together, alone, rtol=0, atol=2e-5 * np.abs(alone).max())


def forgets_what_was_set_back(motor: Motor) -> None:
    """A slot whose length is set back goes on from there, and a full one refuses more."""
    slot = motor.open(256)
    motor.forward([Span(slot, np.arange(10, 30))], [])
    first = motor.forward([Span(slot, np.array([5]))], [0])
    slot.length = 20
    motor.forward([Span(slot, np.array([77, 78]))], [])
    slot.length = 20
    assert (motor.forward([Span(slot, np.array([5]))], [0]) == first).all()
    with pytest.raises(InputError, match="slot of 256"):
        motor.forward([Span(slot, np.arange(236))], [0])


def copies_a_prefix(motor: Motor, tokens: int) -> None:
    """A copied prefix goes on as the original does; what can't be copied is refused."""
    source, target = motor.open(110), motor.open(300)
    ids = np.random.default_rng(0).integers(10, 500, 110)
    motor.forward([Span(source, ids[:101])], [])
    motor.copy_prefix(source, target, tokens)
    source.length = tokens
    expected = motor.forward([Span(source, ids[tokens : tokens + 3])], [2])
    assert (motor.forward([Span(target, ids[tokens : tokens + 3])], [2]) == expected).all()
    with pytest.raises(InputError, match="can't be copied"):
        motor.copy_prefix(source, target, 1)
    with pytest.raises(InputError, match="can't be copied"):
        motor.copy_prefix(source, motor.open(300), source.length + 1)


def question(skill: str, index: int, max_new_tokens: int) -> dict[str, object]:
    """The first question about a drawn scene, as ask() takes it."""
    scene = scenes.draw(skill, 5, index, "test")
    asked: dict[str, object] = {"question": scene.turns[0].question, "detail": scene.detail}
    if scene.clip:
        asked["videos"] = [list(scene.clip.frames)]
    elif scene.pictures:
        asked["images"] = list(scene.pictures)
    return {**asked, "max_new_tokens": max_new_tokens}
