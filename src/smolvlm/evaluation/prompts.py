"""The texts of prompts.toml, where each stands once with its source. What is done with them is left to who asks."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any


def prompt_texts(section: str) -> dict[str, Any]:
    """A table of prompts.toml."""
    texts: dict[str, Any] = _tables()[section]
    return texts


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))
