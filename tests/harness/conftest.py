from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import smolvlm

NANO = Path(smolvlm.__file__).parent / "assets" / "nano"


@pytest.fixture()
def copy_of_nano() -> Callable[[Path], Path]:
    """The bundled checkpoint in a folder of its own, as after fine-tuning."""
    return lambda folder: Path(shutil.copytree(NANO, folder))
