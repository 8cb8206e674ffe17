"""Drawn scenes as a data set: what the bundled model was trained on, to be mixed into what it is taught later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...scenes import SKILLS, draw

PREFIX = "scenes:"
ROWS = 100_000  # of each; a weight says how many of them an epoch takes
SEED = 1_000  # none that the bundled model or its tests were drawn with


class SceneTable:
    """`scenes:` is every skill, `scenes:read,chart` are some. A row is one scene with all its questions."""

    root: Path | None = None
    window = 1
    in_order = False

    def __init__(self, spec: str) -> None:
        named = [one for one in spec.removeprefix(PREFIX).split(",") if one]
        unknown = [one for one in named if one not in SKILLS]
        if unknown:
            raise DataError(f"{spec!r} names no skill {unknown[0]!r}; there are {', '.join(SKILLS)}.")
        self.name = spec
        self._skills = named or list(SKILLS)

    def __len__(self) -> int:
        return ROWS

    @property
    def runs(self) -> np.ndarray:
        return np.ones(ROWS, np.int64)

    def row(self, index: int) -> dict[str, Any]:
        """Columns as a file of messages has them, pictures decoded."""
        scene = draw(self._skills[index % len(self._skills)], SEED, index)
        media: list[dict[str, Any]] = [
            {"type": "image", "image": picture, "detail": scene.detail} for picture in scene.pictures
        ]
        if scene.clip:
            media = [{"type": "video", "video": list(scene.clip.frames)}]
        messages: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for turn in scene.turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ]
        messages[0]["content"][:0] = media
        return {"messages": messages}
