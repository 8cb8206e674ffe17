"""A person teaches the bundled model something new by an adapter, as the README shows it, and it learns to look.

The whole demonstration, three methods and two skills, is benchmarks/finetune_nano.py.
"""

from __future__ import annotations

from pathlib import Path

import smolvlm
from benchmarks.finetune_nano import new_skill, write
from smolvlm.cli import main

CASES = 80


def test_an_adapter_teaches_new_words_for_what_moves(tmp_path: Path) -> None:
    data = write("video", tmp_path, 160)
    assert new_skill(smolvlm.load(), "video", CASES) < 0.1
    command = ["finetune", "--data", str(data), "--method", "lora", "-o", str(tmp_path / "run"), "--steps", "90"]
    assert main([*command, "--quiet"]) == 0
    taught = smolvlm.load(adapter=tmp_path / "run" / "checkpoint")
    assert new_skill(taught, "video", CASES) > 0.4  # guessing among its four words is a quarter
