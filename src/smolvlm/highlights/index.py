"""What was seen of a video, kept on disk: each frame is decoded and encoded once, for any number of questions.

A directory holds two files that only grow: features.bin, the vision features of the frames that a model may be shown,
and frames.bin, a row for every frame that was looked at. They are written in turn, so whatever a kill leaves behind is
a beginning that the next run goes on from; and two runs at once write the same bytes to the same places. Memory doesn't
grow with the length of the video: features are mapped, never read as a whole.

The directory is named by what its content depends on: the bytes of the video, the rate, the weights and their dtype.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from ..errors import InputError, VideoError
from ..media.video import Frame, Video, VideoLimits, locate_video, open_video
from ..types import Features, FramesSeen, VideoInfo
from ..vlm import VLM
from .shots import Track, compare, exact_cut, find_cuts, thumbnail
from .writing import write_text

FORMAT = 1  # part of the name: raised when these files change
CACHE_VARIABLE, CACHE = "SMOLVLM_CACHE", "~/.cache/smolvlm"
COMPARED_FPS = 4.0  # frames compared for cuts and motion
AT_ONCE, PIXELS_AT_ONCE = 16, 40_000_000  # frames encoded together, and their pixels
HOURS = VideoLimits(max_seconds=24 * 3600.0, max_frames=24 * 3600 * 120, decode_s=7 * 24 * 3600.0)
ROW = np.dtype(
    [("number", "<i8"), ("time_s", "<f8"), ("change", "<f4"), ("share", "<f4"), ("peak", "<f4"), ("feature", "<i4")]
)  # feature: its place in features.bin, -1 for a frame that was only compared
Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Index:
    """A video that was looked at. video: opened, to be decoded again where somebody needs the pixels."""

    directory: Path
    video: Video
    facts: Facts

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


class LookOptions(TypedDict, total=False):
    """How a video is looked at.

    fps: frames a second that questions may be asked about, by default the checkpoint's. max_frames: most of them, at a
    lower rate. timestamps_s: when the frames of a list were taken; else they are one second apart. allow_url: fetch
    http(s) addresses of public hosts. cache: directory, by default $SMOLVLM_CACHE or ~/.cache/smolvlm. on_look: told
    (frames done, of all).
    """

    fps: float | None
    max_frames: int | None
    timestamps_s: Sequence[float] | None
    allow_url: bool
    cache: Path | str | None
    on_look: Progress | None


def as_index(vlm: VLM, video: Any, **look: Unpack[LookOptions]) -> Index:
    """A video that was looked at, or is now."""
    if not isinstance(video, Index):
        return build_index(vlm, video, **look)
    if look:
        raise InputError(f"The video was looked at already, so {', '.join(look)} can't change that: leave them out.")
    return video


def build_index(vlm: VLM, source: Any, **look: Unpack[LookOptions]) -> Index:
    """Look at a video once, or find what an earlier run saw of it; an interrupted run goes on where it was.

    source: path, URL, bytes or a list of frames. Raises VideoError, FetchError, InputError.
    """
    fps, max_frames, cache = look.get("fps"), look.get("max_frames"), look.get("cache")
    if isinstance(source, list | tuple) or hasattr(source, "shape"):
        video = open_video(source, timestamps_s=look.get("timestamps_s"))
        content = _hash_frames(video)
    else:
        located = locate_video(source, look.get("allow_url", False), HOURS)
        video = open_video(located.content, limits=HOURS)
        video.name = located.name
        content = _hash_content(located.content)
    rate = _rate(vlm, video, fps, max_frames)
    key = json.dumps([FORMAT, content, rate, COMPARED_FPS, vlm.fingerprint(), vlm.runtime, vlm.dtype])
    directory = cache_directory(cache) / "videos" / blake2b(key.encode(), digest_size=16).hexdigest()
    if not (directory / "complete").exists():
        try:
            _look(vlm, video, rate, directory, look.get("on_look"))
        except OSError as error:
            raise VideoError(
                f"What was seen of {video.name} can't be kept in {str(directory)!r}: {error.strerror or error}. Free "
                "some space, or name another place with --cache."
            ) from error
    facts = Facts(**json.loads((directory / "meta.json").read_text(encoding="utf-8")))
    return Index(directory, video, facts)


def cache_directory(given: Path | str | None) -> Path:
    return Path(given or os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()


# ---- looking ----


def _look(vlm: VLM, video: Video, fps: float, directory: Path, on_look: Progress | None) -> None:
    """Decode once, from where an earlier run ended; compare every frame of the plan, encode some."""
    directory.mkdir(parents=True, exist_ok=True)
    plan = _plan(video, fps)
    rows, encoded = _begun(directory)
    start = int(rows["number"][-1]) if len(rows) else -1
    frames = video.frames([number for number, _ in plan if number >= start])
    before = thumbnail(next(frames).image) if len(rows) else None  # the last one again: the next is compared with it
    is_encoded = dict(plan)
    at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // max(1, video.info.width * video.info.height)))
    step = at_once * max(1, len(plan) // max(1, sum(is_encoded.values())))
    done = len(rows)
    with _writable(directory / "frames.bin") as table, _writable(directory / "features.bin") as features:
        while True:
            compared, shown, before = _compare(islice(frames, step), before, is_encoded, encoded)
            if not len(compared):
                break
            if shown:
                values = _encode(vlm, shown, directory, video.name, fps)
                features.seek(encoded * values[0].nbytes)
                features.write(values.tobytes())
                features.flush()
                encoded += len(shown)
            table.seek(done * ROW.itemsize)
            table.write(compared.tobytes())
            table.flush()
            done += len(compared)
            if on_look is not None:
                on_look(done, len(plan))
    if not encoded:
        raise VideoError(f"{video.name} is damaged: none of its frames can be decoded. Copy or download it again.")
    write_text(directory / "complete", f"{done} frames, {encoded} of them encoded\n")


def _compare(
    frames: Iterable[Frame], before: np.ndarray | None, is_encoded: dict[int, bool], encoded: int
) -> tuple[np.ndarray, list[Frame], np.ndarray | None]:
    """Their rows of frames.bin, those to be encoded, and the last thumbnail; others are let go one by one.

    encoded: features that there are already.
    """
    rows: list[tuple[float, ...]] = []
    shown: list[Frame] = []
    for frame in frames:
        now = thumbnail(frame.image)
        change = (0.0, 0.0, 0.0) if before is None else compare(before, now)
        place = encoded + len(shown) if is_encoded[frame.number] else -1
        rows.append((frame.number, frame.timestamp_s, *change, place))
        if is_encoded[frame.number]:
            shown.append(frame)
        before = now
    return np.array(rows, ROW), shown, before


def _encode(vlm: VLM, frames: Sequence[Frame], directory: Path, name: str, fps: float) -> np.ndarray:
    """(frames, image tokens, hidden) as it is stored. The first call also writes down what it is."""
    values: Any = vlm.encode(videos=[[frame.image for frame in frames]]).values
    dtype = str(values.dtype).removeprefix("torch.")
    floats = values.float().cpu().numpy() if hasattr(values, "cpu") else np.asarray(values, np.float32)
    stored = "bfloat16" if dtype == "bfloat16" else "float16"
    if not (directory / "meta.json").exists():
        facts = Facts(name.strip("'"), fps, vlm.name, vlm.fingerprint(), stored, dtype, *floats.shape[1:])
        write_text(directory / "meta.json", json.dumps(asdict(facts), indent=1) + "\n")
    if stored == "bfloat16":
        return (np.ascontiguousarray(floats).view(np.uint32) >> 16).astype(np.uint16)  # exact: it comes from bfloat16
    limit = np.finfo(np.float16).max
    return floats.clip(-limit, limit).astype(np.float16)


def _begun(directory: Path) -> tuple[np.ndarray, int]:
    """The rows that an earlier run left whole, and how many frames they say were encoded."""
    table = directory / "frames.bin"
    if not table.exists() or not (directory / "meta.json").exists():
        return np.zeros(0, ROW), 0
    rows = np.fromfile(table, ROW)
    return rows, int((rows["feature"] >= 0).sum())


def _plan(video: Video, fps: float) -> list[tuple[int, bool]]:
    """(frame number, whether it is encoded) of the frames to look at, ascending.

    A frame that is shown at second k / fps is encoded; between two of these others are compared. A list of frames was
    chosen by whoever gave it: at its own rate all of them are encoded.
    """
    info = video.info
    if video.sampled and fps >= info.fps:
        return [(number, True) for number in range(info.num_frames)]
    every = max(1, round(COMPARED_FPS / fps))
    count = max(1, int(np.ceil(info.duration_s * fps * every - 1e-6)))
    plan: dict[int, bool] = {}
    number = 0
    for place in range(count):
        second = place / (fps * every)
        while number + 1 < info.num_frames and video.timestamp_s(number + 1) <= second + 1e-6:
            number += 1
        plan[number] = plan.get(number, False) or place % every == 0
    return list(plan.items())


def _rate(vlm: VLM, video: Video, fps: float | None, max_frames: int | None) -> float:
    own = getattr(vlm.processor.video_processor, "fps", None) or 1.0
    if video.sampled:
        own = video.info.fps
    if fps is not None:
        own = fps
    if not own > 0:
        raise InputError(f"fps={fps!r} can't be used: it must be above 0 frames a second.")
    if max_frames is not None:
        if max_frames < 1:
            raise InputError(f"max_frames={max_frames!r} can't be used: it must be at least 1.")
        own = min(own, max_frames / max(video.info.duration_s, 1e-3))
    return float(own)


def _writable(path: Path) -> Any:
    """Opened to be written anywhere, content kept."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b")


# ---- bytes and numbers ----


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


def _hash_content(content: Path | bytes) -> str:
    digest = blake2b(digest_size=16)
    for block in [content] if isinstance(content, bytes) else _blocks(content):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(2**22):
            yield block


def _hash_frames(video: Video) -> str:
    digest = blake2b(digest_size=16)
    for frame in video.frames(range(video.info.num_frames)):
        digest.update(f"{frame.timestamp_s} {frame.image.mode} {frame.image.size}".encode() + frame.image.tobytes())
    return digest.hexdigest()
