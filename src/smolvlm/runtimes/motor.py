"""The seam between the engine and whatever runs the model: sequences live in slots, new tokens come in spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import SmolVLMConfig
from ..errors import InputError
from .machine import available_memory


@dataclass(eq=False)
class Slot:
    """Room for one sequence. length: tokens that are in it; setting it back forgets what came later.

    memory: the motor's own.
    """

    capacity: int
    memory: Any = field(repr=False)
    length: int = 0


@dataclass(eq=False)
class LiveAdapter:
    """An adapter that a motor holds beside its weights, for the requests that ask for it.

    num_bytes: that it takes in memory. seen_through: a short name of how it changes the sight, empty when pictures are
    seen as without it. memory: the motor's own. number: no other's in this process.
    """

    num_bytes: int
    seen_through: str
    memory: Any = field(repr=False)
    number: int = field(default_factory=partial(next, count(1)))


@dataclass(frozen=True)
class Span:
    """New tokens of one slot. ids: (tokens,). pictures: (image tokens among ids, hidden), None without any.

    adapter: that they are read with; the same for all tokens of a slot.
    """

    slot: Slot
    ids: np.ndarray
    pictures: Any = None
    adapter: LiveAdapter | None = None


def require_tiles(pixel_values: np.ndarray, config: SmolVLMConfig) -> None:
    """Raise InputError for anything but (tiles, 3, side, side)."""
    side = config.vision_config.image_size
    if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, side, side):
        raise InputError(f"pixel_values has the shape {pixel_values.shape}; it must be (tiles, 3, {side}, {side}).")


def require_room(spans: Sequence[Span]) -> None:
    """Raise InputError when the slot of a span has no room for it."""
    for span in spans:
        if span.slot.length + len(span.ids) > span.slot.capacity:
            raise InputError(
                f"{span.slot.length} + {len(span.ids)} tokens don't fit into a slot of {span.slot.capacity}."
            )


def require_prefix(source: Slot, target: Slot, tokens: int) -> None:
    """Raise InputError when the first tokens of a slot can't be put into another, which must be empty."""
    if tokens > min(source.length, target.capacity) or target.length:
        raise InputError(
            f"{tokens} tokens of a slot with {source.length} can't be copied into one of {target.capacity} with "
            f"{target.length}."
        )


class ArrayFeatures:
    """Features that are numpy arrays in the machine's memory: that part of a motor on the CPU."""

    device = "cpu"

    def join(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(features)

    def content(self, pictures: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pictures).view(np.uint8)

    def available_memory(self) -> int:
        return available_memory()


class Motor(Protocol):
    """Encodes tiles and reads tokens. One thread at a time may use it. Features are arrays of its own kind.

    reads_together: spans of several tokens share one pass over the weights; else each such span takes one of its own.
    """

    config: SmolVLMConfig
    reads_together: bool

    @property
    def name(self) -> str:
        """The runtime it belongs to."""
        ...

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    def fingerprint(self) -> str:
        """A short name of the weights that look at pictures, and of their format."""
        ...

    def load_adapter(self, directory: Path) -> LiveAdapter:
        """An adapter to read some requests with; the weights stay what they are.

        Raises CheckpointError when its files don't fit the model, InputError for DoRA and where a motor can't have any.
        """
        ...

    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> Any:
        """(tiles, 3, side, side) float32 -> features (tiles, image tokens, hidden). Raises InputError."""
        ...

    def join(self, features: Sequence[Any]) -> Any:
        """Several features as one, along their tiles."""
        ...

    def content(self, pictures: Any) -> np.ndarray:
        """The bytes of (image tokens, hidden), as (image tokens, bytes) uint8."""
        ...

    def available_memory(self) -> int:
        """Bytes that are free where slots lie."""
        ...

    def slot_bytes(self, tokens: int) -> int:
        """Memory that a slot for so many tokens takes when it is full."""
        ...

    def open(self, tokens: int) -> Slot:
        """Room for a sequence of up to `tokens` tokens, empty."""
        ...

    def copy_prefix(self, source: Slot, target: Slot, tokens: int) -> None:
        """Put the first `tokens` tokens of one slot into another, empty one. Raises InputError when they don't fit."""
        ...

    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans, ascending. Raises InputError when a slot is too
        small.
        """
        ...
