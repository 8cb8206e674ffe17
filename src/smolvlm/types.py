"""The frozen dataclasses that cross floors. They hold values, no behaviour and no torch.

Arrays are numpy; shapes are written beside them. A *tile* is a crop of an image, a *patch* is 14 or 16 pixels,
a *token* is what the decoder sees, a *frame* has a timestamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

Detail = Literal["low", "auto", "high"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class VideoInfo:
    """What a container says about its picture track. Seconds, frames per second, pixels."""

    duration_s: float
    fps: float
    num_frames: int
    width: int
    height: int


@dataclass(frozen=True)
class FramesSeen:
    """Which frames of a video the model was shown. `timestamps_s[i]` belongs to `indices[i]`."""

    source: str
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    duration_s: float


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off.

    stop: texts that end the answer (not part of it). seed: makes sampling repeatable, whatever shares the batch.
    Raises InputError when a value is out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        rules = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or above"),
            ("top_k", self.top_k >= 0, "0 (off) or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "0 (off) or above, below 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 is off"),
            ("stop", all(self.stop), "texts of at least one character"),
        )
        for name, ok, allowed in rules:
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} is out of range: it must be {allowed}.")


@dataclass(frozen=True)
class Inputs:
    """One request as the model sees it: no text, no files.

    input_ids: (tokens,) int64. pixel_values: (tiles, 3, tile_size, tile_size) float32, or None for text only.
    tile_rows_cols: for each picture or frame, its (rows, columns) of tiles; (0, 0) is one unsplit tile.
    frames: one entry a video, in prompt order.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray | None
    tile_rows_cols: tuple[tuple[int, int], ...] = ()
    frames: tuple[FramesSeen, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the model said to one request. seconds: from the call to the last token."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    frames: tuple[FramesSeen, ...] = ()
    first_token_s: float = 0.0
    total_s: float = 0.0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Decision:
    """Probabilities of given labels from one forward pass.

    probabilities: label -> share among the labels (they add up to 1). label_mass: how much of the whole
    next-token probability lay on the labels; a low mass says that the model wanted to say something else.
    """

    choice: str
    probabilities: dict[str, float]
    label_mass: float
    frames: tuple[FramesSeen, ...] = ()


@dataclass(frozen=True)
class MediaTokens:
    """What one picture or video costs. rows, cols: tile grid, 0 when unsplit (the global tile is counted in tiles)."""

    source: str
    kind: Literal["image", "video"]
    width: int
    height: int
    rows: int
    cols: int
    tiles: int
    tokens: int
    timestamps_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class TokenReport:
    """What a request would cost, before anything runs. left: tokens of context left for the answer."""

    total: int
    text: int
    image: int
    tiles: int
    context: int
    left: int
    media: tuple[MediaTokens, ...] = ()


@dataclass(frozen=True)
class MemoryReport:
    """The memory that a process will hold when it loads a model on the CPU and answers one request, in bytes.

    program: interpreter, libraries, tokenizer. weights: as the runtime holds them, mapped files included. pictures:
    pixels, until they have been looked at. vision, reading: scratch while tiles are looked at and the prompt is read.
    tokens: keys and values of prompt and answer. features: what was seen, in the cache and for the prompt. peak: most
    at one time, less than the sum. available: free now, what this process holds already included. request: its tokens.
    """

    request: TokenReport
    runtime: str
    dtype: str
    program: int
    weights: int
    pictures: int
    vision: int
    reading: int
    tokens: int
    features: int
    peak: int
    available: int

    @property
    def fits(self) -> bool:
        return self.peak <= self.available


@dataclass(frozen=True)
class Features:
    """Encoded pictures, to be reused in many questions. values: (tiles, image tokens, hidden) in the model's dtype.

    fingerprint names the weights the features were made with; using them with other weights is refused.
    """

    values: object
    tile_rows_cols: tuple[tuple[int, int], ...]
    fingerprint: str
    frames: tuple[FramesSeen, ...] = ()
