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
FinishReason = Literal["stop", "length", "loop"]
MOST_LOGPROBS = 20  # likeliest tokens beside each chosen one, as OpenAI's interface has them


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
    logprobs: how likely each token was: None doesn't say, 0 for the chosen tokens alone, n also the n likeliest.
    loop_guard: end an answer that only repeats itself, with finish_reason "loop".
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
    logprobs: int | None = None
    loop_guard: bool = False

    def __post_init__(self) -> None:
        rules = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or above"),
            ("top_k", self.top_k >= 0, "0 (off) or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "0 (off) or above, below 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 is off"),
            ("stop", all(self.stop), "texts of at least one character"),
            ("logprobs", _is_count(self.logprobs, MOST_LOGPROBS), f"None (off) or 0 to {MOST_LOGPROBS}, whole"),
            ("loop_guard", isinstance(self.loop_guard, bool), "True or False (off)"),
        )
        for name, ok, allowed in rules:
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} is out of range: it must be {allowed}.")


@dataclass(frozen=True)
class OutputRule:
    """What an answer's text must be, exactly one of these. See processing/grammar.py for what can be said.

    json_schema: the JSON text of a JSON Schema that the answer, a JSON text, fits. json_object: any JSON object.
    regex: an expression that the whole answer matches. choices: the answer is one of these texts.
    Raises InputError when none or several are given, or one is of the wrong type.
    """

    json_schema: str | None = None
    json_object: bool = False
    regex: str | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("json_schema", "json_object", "regex", "choices") if self._is_given(name)]
        if len(given) != 1:
            raise InputError(
                f"An output rule is exactly one of json_schema, json_object, regex and choices; got "
                f"{' and '.join(given) or 'none of them'}."
            )
        for name in ("json_schema", "regex"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{name}={getattr(self, name)!r} can't be used: it must be a text.")
        if not isinstance(self.choices, tuple) or not all(isinstance(one, str) and one for one in self.choices):
            raise InputError(f"choices={self.choices!r} can't be used: it must be texts that aren't empty.")

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) not in (None, False, ())


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
class TokenLogprob:
    """A token of an answer and the natural logarithm of its probability, from the model's own logits.

    Neither temperature nor penalty nor an output rule is in it. token: its text, with U+FFFD for a part of a character.
    bytes: its UTF-8 bytes, none for a special token. top: the likeliest tokens in its place, likeliest first.
    """

    token_id: int
    token: str
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the model said to one request. seconds: from the call to the last token.

    finish_reason: "stop": the model, a stop text or an output rule ended it; "length": cut after max_new_tokens;
    "loop": it only repeated itself. logprobs: one for each token of the text, when they were asked for; the end token
    and what a stop text cut off have none. parsed: of a complete answer to a schema, the value or instance it stands
    for. cached_tokens: of the prompt, read before for another request.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    frames: tuple[FramesSeen, ...] = ()
    first_token_s: float = 0.0
    total_s: float = 0.0
    logprobs: tuple[TokenLogprob, ...] = ()
    parsed: object | None = None
    cached_tokens: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Decision:
    """Probabilities of given labels from one forward pass.

    probabilities: label -> share among the labels (they add up to 1). label_mass: how much of the whole
    next-token probability lay on the labels; a low mass says that the model wanted to say something else.
    cached_tokens: of the prompt, read before for another request.
    """

    choice: str
    probabilities: dict[str, float]
    label_mass: float
    frames: tuple[FramesSeen, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0


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


def _is_count(value: object, most: int) -> bool:
    """None, or a whole number from 0 to most."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most)
