"""The bundled model for tests of documents and examples: its own files once it is trained, else random weights of its
geometry under its own vocabulary, so that grids, token counts and error messages are the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from smolvlm import hub
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.training import read_recipe
from smolvlm.training.checkpoints import export
from smolvlm.training.loop import make_processor, model_config, vocabulary_directory
from smolvlm.types import SamplingParams

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLED = REPOSITORY / "src" / "smolvlm" / "assets" / "nano"
DEMO = REPOSITORY / "src" / "smolvlm" / "assets" / "demo"
MOST_TOKENS = 12  # random weights never end an answer by themselves


def put_in_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make load() find a model: nothing to do when the bundled one is there, else a stand-in with short answers."""
    if (BUNDLED / "model.safetensors").is_file():
        return
    recipe = read_recipe(REPOSITORY / "recipes" / "nano.toml")
    processor = make_processor(recipe, vocabulary_directory(recipe))
    torch.manual_seed(0)
    export(SmolVLMForConditionalGeneration(model_config(recipe, processor.tokenizer)), processor, directory)
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", directory)
    check = SamplingParams.__post_init__

    def check_and_shorten(self: SamplingParams) -> None:
        check(self)
        object.__setattr__(self, "max_new_tokens", min(self.max_new_tokens, MOST_TOKENS))

    monkeypatch.setattr(SamplingParams, "__post_init__", check_and_shorten)
