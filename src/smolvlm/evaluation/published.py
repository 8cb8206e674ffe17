"""Published scores, and the protocol they were measured with. The tables are published.toml's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from .task import Protocol

_FIRST = ("smolvlm-instruct", "smolvlm-256m", "smolvlm-500m", "smolvlm-base", "smolvlm-synthetic", "smolvlm-dpo")
_SMALL = ("256m", "500m")  # of the first generation; these see 512 pixels, the 2.2B model 384


@dataclass(frozen=True)
class Table:
    """A published table. scores: name of a model -> task or other column -> value; a task's is in per cent.

    unsure: columns that only digests of the source confirm.
    """

    title: str
    source: str
    scores: Mapping[str, Mapping[str, float]]
    note: str = ""
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """One published score, in per cent, and the table that it stands in."""

    value: float
    table: Table
    unsure: bool = False


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """All tables, in the order in which a score is looked for."""
    content = tomllib.loads(files(__package__).joinpath("published.toml").read_text(encoding="utf-8"))
    return tuple(Table(**{**table, "unsure": tuple(table.get("unsure", ()))}) for table in content["tables"])


def published_score(checkpoint: str, task: str) -> Published | None:
    """The published score of a checkpoint, None when there is none. checkpoint: id on the hub, or a directory's path.

    Only the last part of it counts, so that a copy in a directory of its name is recognised; a fine-tuned model under
    another name has no published score.
    """
    name = _last_part(checkpoint)
    for table in tables():
        for model, scores in table.scores.items():
            if model.lower() == name and task in scores:
                return Published(scores[task], table, task in table.unsure)
    return None


def protocol_of(checkpoint: str) -> Protocol:
    """The protocol of the published tables for a checkpoint, by its name as VLMEvalKit's classes have it.

    SmolVLM's prompts for the first generation, with 50 frames of a video; SmolVLM2's for all others, with at most 64,
    one a second. Frames are 384 pixels long for the 2.2B models, 512 for the rest and for unknown names.
    """
    name = _last_part(checkpoint)
    if name.startswith(_FIRST):
        return Protocol(wrapper="smolvlm", frame_side=512 if any(size in name for size in _SMALL) else 384, frames=50)
    return Protocol(wrapper="smolvlm2", frame_side=384 if "smolvlm2-2.2b" in checkpoint.lower() else 512, frames=64)


def _last_part(checkpoint: str) -> str:
    return checkpoint.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
