"""What was seen of a video, as it lies on disk, to be asked about any number of times. look.py sees to that.

A directory holds features.bin, the vision features of the frames that a model may be shown, and frames.bin, a row for
every frame that was looked at. Memory doesn't grow with the length of the video: features are mapped, never read as a
whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..media.video import Video
from ..types import Features, FramesSeen, VideoInfo
from ..vlm import VLM
from .cache import Shelf
from .shots import Track, exact_cut, find_cuts

ROW = np.dtype(
    [
        ("number", "<i8"), ("time_s", "<f8"), ("change", "<f4"), ("share", "<f4"), ("peak", "<f4"), ("contrast", "<f4"),
        ("feature", "<i4"),
    ]
)  # fmt: skip  # feature: its place in features.bin, -1 for a frame that was only compared
BLANK = 0.02  # contrast of a frame that shows nothing: noise of a camera and a codec lies below, small things above
VALUE_BYTES = 2  # of a stored feature


@dataclass(frozen=True)
class Facts:
    """meta.json: what the files beside it are. stored: "bfloat16" (as bits) or "float16"; dtype: of the features."""

    video: str
    fps: float
    model: str
    fingerprint: str
    stored: str
    dtype: str
    image_tokens: int
    hidden: int

    @property
    def frame_bytes(self) -> int:
        """In features.bin."""
        return self.image_tokens * self.hidden * VALUE_BYTES


@dataclass(frozen=True)
class Index:
    """A video that was looked at. video: opened, to be decoded again where somebody needs the pixels."""

    shelf: Shelf
    video: Video
    facts: Facts

    @property
    def directory(self) -> Path:
        return self.shelf.directory

    @property
    def name(self) -> str:
        return self.video.name.strip("'")

    @property
    def info(self) -> VideoInfo:
        return self.video.info

    @property
    def duration_s(self) -> float:
        """The container's word, but not less than the frames that were found."""
        return max(self.info.duration_s, float(self.track.times_s[-1]) + 1 / max(self.info.fps, 1.0))

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.fromfile(self.directory / "frames.bin", ROW)

    @cached_property
    def track(self) -> Track:
        rows = self._rows
        return Track(*(np.ascontiguousarray(rows[name]) for name in ("time_s", "change", "share", "peak")))

    @cached_property
    def cuts(self) -> list[int]:
        """Places in the track where shots begin."""
        return find_cuts(self.track)

    @property
    def cuts_s(self) -> tuple[float, ...]:
        return tuple(float(self.track.times_s[place]) for place in self.cuts)

    @cached_property
    def encoded(self) -> np.ndarray:
        """The rows of the frames that have features, in the order of time and of the features."""
        return self._rows[self._rows["feature"] >= 0]

    @cached_property
    def _stored(self) -> np.ndarray:
        """(frames, image tokens, hidden), mapped."""
        shape = (len(self.encoded), self.facts.image_tokens, self.facts.hidden)
        kind = np.uint16 if self.facts.stored == "bfloat16" else np.float16
        return np.memmap(self.directory / "features.bin", kind, "r", shape=shape)

    def choose(self, from_s: float, to_s: float, most: int | None = None) -> np.ndarray:
        """Places of the encoded frames in [from_s, to_s), at most so many, evenly spread; the nearest if none is."""
        times = self.encoded["time_s"]
        first, last = np.searchsorted(times, [from_s - 1e-6, to_s - 1e-6])
        if first == last:
            return np.array([int(np.abs(times - (from_s + to_s) / 2).argmin())])
        count = last - first
        return first + np.unique(np.linspace(0, count - 1, min(count, most or count)).astype(int))

    def is_blank(self, places: np.ndarray) -> bool:
        """Whether none of these encoded frames shows anything: black, white, or any one colour."""
        return bool((self.encoded["contrast"][places] < BLANK).all())

    def features(self, vlm: VLM, places: np.ndarray, *, clip: bool = True, fewest: int = 1) -> Features:
        """The features of these frames as one video. clip: its clock starts at its first frame, as that of a cut-out.

        Models were trained on videos that start at 0:00. fewest: fewer frames are shown in slow motion, each several
        times in a row, until there are so many.
        """
        slow = max(1, -(-fewest // len(places)))
        step_s = 1 / self.facts.fps
        times = self.encoded["time_s"][places]
        if clip:
            times = ((times - times[0])[:, None] * slow + np.arange(slow) * step_s).ravel()
        places = np.repeat(places, slow) if clip else places
        seen = FramesSeen(
            source=self.name,
            indices=tuple(map(int, self.encoded["number"][places])),
            timestamps_s=tuple(map(float, times)),
            duration_s=float(times[-1] + step_s) if clip else self.duration_s,
        )
        return Features(
            values=_as_own(vlm, _to_floats(self._stored[places]), self.facts.dtype),
            tile_rows_cols=((0, 0),) * len(places),
            fingerprint=vlm.fingerprint(),
            frames=(seen,),
        )

    def means(self) -> np.ndarray:
        """(frames, hidden) float32: the mean over the tokens of each encoded frame, to tell alike from unlike."""
        chunks = (self._stored[start : start + 64] for start in range(0, len(self.encoded), 64))
        return np.concatenate([_to_floats(chunk).mean(axis=1) for chunk in chunks])

    def seen(self) -> FramesSeen:
        """All frames that a model may be shown."""
        times = tuple(round(float(one), 6) for one in self.encoded["time_s"])
        return FramesSeen(self.name, tuple(map(int, self.encoded["number"])), times, self.duration_s)

    def exact_cut_s(self, place: int) -> float:
        """When exactly the shot begins that the track sees begun at `place`: the frames in between are decoded."""
        rows = self._rows
        first, last = int(rows["number"][place - 1]), int(rows["number"][place])
        found = exact_cut(self.video.frames(range(first, last + 1)))
        return float(rows["time_s"][place]) if found is None else found


def read_facts(directory: Path) -> Facts | None:
    """None when there are none that can be read."""
    try:
        return Facts(**json.loads((directory / "meta.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _to_floats(stored: np.ndarray) -> np.ndarray:
    """float32 of what is stored: float16, or the bits of bfloat16."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _as_own(vlm: VLM, floats: np.ndarray, dtype: str) -> Any:
    """Features of the runtime's own kind: a tensor beside the weights, or an array."""
    if vlm.runtime == "torch":
        return next(vlm.model.parameters()).new_tensor(floats)
    return floats.astype(dtype)
