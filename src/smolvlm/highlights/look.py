"""Look at a video: decode it once, compare and encode its frames, and keep what was seen for every later question.

The two files of an index only grow. They are written in turn, so whatever a kill leaves behind is a beginning that the
next run goes on from; and two runs at once write the same bytes to the same places. Their directory is named by what
its content depends on: the bytes of the video, the rate, the weights and their dtype. How long it stays is cache.py's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from ..errors import InputError, VideoError
from ..media.folder import is_folder, open_folder, pictures_in
from ..media.video import Frame, Video, locate_video, open_video
from ..vlm import VLM
from .cache import Shelf, cache_directory, make_room, most_bytes
from .footage import HOURS
from .index import ROW, Facts, Index, read_facts
from .shots import compare, contrast, thumbnail
from .writing import write_text

FORMAT = 2  # part of the name: raised when these files change
COMPARED_FPS = 4.0  # frames compared for cuts and motion
AT_ONCE, PIXELS_AT_ONCE = 16, 40_000_000  # frames encoded together, and their pixels
Progress = Callable[[int, int], None]


class LookOptions(TypedDict, total=False):
    """How a video is looked at.

    fps: frames a second that questions may be asked about, by default the checkpoint's. max_frames: most of them, at a
    lower rate. timestamps_s, frame_fps: when the frames of a list or folder were taken, or how many a second; else
    they are one second apart. allow_url: fetch http(s) addresses of public hosts. cache: directory, by default
    $SMOLVLM_CACHE or ~/.cache/smolvlm. cache_gb: most that is kept there, by default $SMOLVLM_CACHE_GB or 10. on_look:
    told (frames done, of all).
    """

    fps: float | None
    max_frames: int | None
    timestamps_s: Sequence[float] | None
    frame_fps: float | None
    allow_url: bool
    cache: Path | str | None
    cache_gb: float | None
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

    source: path, URL, bytes, a folder of pictures or a list of frames. Raises VideoError, FetchError, InputError.
    """
    limit = most_bytes(look.get("cache_gb"))
    video, content = _open(source, look)
    rate = _rate(vlm, video, look.get("fps"), look.get("max_frames"))
    key = json.dumps([FORMAT, content, rate, COMPARED_FPS, vlm.fingerprint(), vlm.runtime, vlm.dtype])
    directory = cache_directory(look.get("cache")) / "videos" / blake2b(key.encode(), digest_size=16).hexdigest()
    try:
        shelf = Shelf(directory)
        facts = _whole(directory) or _look(vlm, video, rate, directory, limit, look.get("on_look"))
    except OSError as error:
        raise VideoError(
            f"What was seen of {video.name} can't be kept in {str(directory)!r}: {error.strerror or error}. Free "
            "some space, or name another place with --cache."
        ) from error
    return Index(shelf, video, facts)


def _open(source: Any, look: LookOptions) -> tuple[Video, str]:
    """The video, and a short name of all that it holds."""
    video: Video
    fps, times = look.get("frame_fps"), look.get("timestamps_s")
    if is_folder(source):
        video = open_folder(Path(source), fps=fps, timestamps_s=times)
        return video, _hash(_file_blocks(pictures_in(Path(source)), video))
    if isinstance(source, list | tuple) or hasattr(source, "shape"):
        video = open_video(source, fps=fps, timestamps_s=times)
        return video, _hash(_frame_blocks(video))
    located = locate_video(source, look.get("allow_url", False), HOURS)
    video = open_video(located.content, fps=fps, timestamps_s=times, limits=HOURS)
    video.name = located.name
    return video, _hash([located.content] if isinstance(located.content, bytes) else _blocks(located.content))


# ---- looking ----


def _look(vlm: VLM, video: Video, fps: float, directory: Path, limit: float, on_look: Progress | None) -> Facts:
    """Decode once, from where an earlier run ended; compare every frame of the plan, encode some.

    limit: bytes of all videos that are kept, this one as it will be among them.
    """
    plan = _plan(video, fps)
    rows, encoded = _begun(directory)
    start = int(rows["number"][-1]) if len(rows) else -1
    frames = video.frames([number for number, _ in plan if number >= start])
    before = thumbnail(next(frames).image) if len(rows) else None  # the last one again: the next is compared with it
    is_encoded = dict(plan)
    at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // max(1, video.info.width * video.info.height)))
    count = sum(is_encoded.values())
    step = at_once * max(1, len(plan) // max(1, count))
    done, has_room = len(rows), False
    with _writable(directory / "frames.bin") as table, _writable(directory / "features.bin") as features:
        while True:
            compared, shown, before = _compare(islice(frames, step), before, is_encoded, encoded)
            if not len(compared):
                break
            if shown:
                values = _encode(vlm, shown, directory, video.name, fps)
                if not has_room:
                    make_room(directory.parent, limit - (count - encoded) * values[0].nbytes)
                    has_room = True
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
    facts = read_facts(directory)
    assert facts is not None, "written with the first features"
    return facts


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
        rows.append((frame.number, frame.timestamp_s, *change, contrast(now), place))
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
    if read_facts(directory) is None:
        facts = Facts(name.strip("'"), fps, vlm.name, vlm.fingerprint(), stored, dtype, *floats.shape[1:])
        write_text(directory / "meta.json", json.dumps(asdict(facts), indent=1) + "\n")
    if stored == "bfloat16":
        return (np.ascontiguousarray(floats).view(np.uint32) >> 16).astype(np.uint16)  # exact: it comes from bfloat16
    limit = np.finfo(np.float16).max
    return floats.clip(-limit, limit).astype(np.float16)


def _begun(directory: Path) -> tuple[np.ndarray, int]:
    """The rows that an earlier run left whole, with their features, and how many frames they say were encoded."""
    facts = read_facts(directory)
    if facts is None or not (directory / "frames.bin").exists() or not (directory / "features.bin").exists():
        return np.zeros(0, ROW), 0
    rows = np.fromfile(directory / "frames.bin", ROW)
    stored = (directory / "features.bin").stat().st_size // facts.frame_bytes
    rows = rows[np.logical_and.accumulate(rows["feature"] < stored)]
    return rows, int((rows["feature"] >= 0).sum())


def _whole(directory: Path) -> Facts | None:
    """What an earlier run wrote to its end; None when there is nothing, or not all of it any more."""
    if not (directory / "complete").exists():
        return None
    rows, encoded = _begun(directory)
    return read_facts(directory) if encoded and rows.nbytes == (directory / "frames.bin").stat().st_size else None


def _plan(video: Video, fps: float) -> list[tuple[int, bool]]:
    """(frame number, whether it is encoded) of the frames to look at, ascending.

    A frame that is shown at second k / fps is encoded; between two of these others are compared. A list of frames was
    chosen by whoever gave it: at its own rate, unless that is a video's, all of them are encoded.
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
    if video.sampled and video.info.fps <= COMPARED_FPS:
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


def _hash(blocks: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(2**22):
            yield block


def _file_blocks(pictures: Sequence[Path], video: Video) -> Iterator[bytes]:
    for number, picture in enumerate(pictures):
        yield f"{video.timestamp_s(number)} {picture.stat().st_size} ".encode()
        yield from _blocks(picture)


def _frame_blocks(video: Video) -> Iterator[bytes]:
    for frame in video.frames(range(video.info.num_frames)):
        yield f"{frame.timestamp_s} {frame.image.mode} {frame.image.size}".encode() + frame.image.tobytes()
