"""Watch a source that goes on: a camera, a stream, or a file that is still being written; say when something begins.

The last seconds are asked about again and again; the model's cache of tiles sees to it that each frame is encoded once.
An event begins when the probability of yes rises to one threshold and ends when it falls below a lower one, so that it
doesn't flicker. A live source isn't made to wait: where the model is slower, frames in between are left out.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image

from ..errors import FetchError, InputError, VideoError
from ..vlm import VLM
from .score import FEWEST_FRAMES, question_for

STREAMS = ("rtsp://", "rtsps://")
CAMERA_FORMATS = ("v4l2", "avfoundation", "dshow")  # of Linux, macOS, Windows
PAUSE_S = 0.2  # between two looks at a file that doesn't grow
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0


@dataclass(frozen=True)
class Watching:
    """How a source is watched. window_s: the seconds asked about. every_s: between two questions. fps: frames encoded.

    on, off: probabilities at which an event begins and ends. idle_s: a file that hasn't grown for so long has ended.
    """

    window_s: float = 6.0
    every_s: float = 1.0
    fps: float = 1.0
    on: float = 0.6
    off: float = 0.4
    idle_s: float = 10.0

    def __post_init__(self) -> None:
        rules = (
            ("window_s", self.window_s > 0, "above 0"),
            ("every_s", self.every_s > 0, "above 0"),
            ("fps", self.fps > 0, "above 0"),
            ("on", 0 <= self.off <= self.on <= 1, "from 0 to 1, and not below off"),
            ("idle_s", self.idle_s >= 0, "0 or above"),
        )
        for name, ok, allowed in rules:
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} is out of range: it must be {allowed}.")


@dataclass(frozen=True)
class Change:
    """Something began or ended. time_s: of the source's own clock. clock: Unix seconds. score: probability of yes."""

    event: Literal["start", "end"]
    time_s: float
    clock: float
    score: float


def watch(
    vlm: VLM,
    source: str,
    when: str,
    *,
    question: str | None = None,
    how: Watching | None = None,
    on_score: Callable[[float, float], None] | None = None,
) -> Iterator[Change]:
    """What begins and ends in a source, as it is seen. An event that lasts when the source ends has no end.

    source: see open_source(). when: what is watched for, in words or as a question; question: instead of the template
    of score.py. on_score: told (seconds, score) of every question. Raises VideoError when the source can't be opened.
    """
    how = how or Watching()
    asked = question_for(when, question)
    fewest = min(FEWEST_FRAMES, max(1, round(how.window_s * how.fps)))
    kept: deque[tuple[float, Image.Image]] = deque()
    going, asked_s = False, float("-inf")
    with closing(sampled(source, how)) as frames:
        for time_s, image in frames:
            kept.append((time_s, image))
            while time_s - kept[0][0] >= how.window_s - 1e-6:
                kept.popleft()
            if len(kept) < fewest or time_s - asked_s < how.every_s - 1e-6:
                continue
            asked_s = time_s
            score = _decide(vlm, asked, [image for _, image in kept], how.fps)
            if on_score is not None:
                on_score(time_s, score)
            if (score < how.off) if going else (score >= how.on):
                going = not going
                yield Change("start" if going else "end", time_s, time.time(), score)


def sampled(source: str, how: Watching) -> Generator[tuple[float, Image.Image]]:
    """(seconds since the first frame, frame) at the rate that is asked for; of a live source, the newest there is."""
    if not _is_live(source):
        yield from _decode(source, how)
        return
    newest: queue.Queue[tuple[float, Image.Image] | None | BaseException] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def read() -> None:
        ended: None | BaseException = None
        try:
            for frame in _decode(source, how):
                if stop.is_set():
                    return
                _replace(newest, frame)
        except Exception as error:  # raised again where frames are taken
            ended = error
        newest.put(ended)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (frame := newest.get()) is not None:
            if isinstance(frame, BaseException):
                raise frame
            yield frame
    finally:
        stop.set()


def open_source(source: str, how: Watching) -> Any:
    """A container that frames can be taken from.

    source: rtsp:// or rtsps:// address, "camera" (the first) or "camera:NAME", or a file, which may still grow.
    """
    try:
        if source.startswith(STREAMS):
            return av.open(source, options={"rtsp_transport": "tcp"}, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
        if source.split(":", 1)[0] == "camera":
            return _open_camera(source.partition(":")[2])
        if "://" in source:
            raise FetchError(f"{source!r} can't be watched: give an rtsp:// address, a camera, or a file.")
        if not Path(source).is_file():
            raise VideoError(f"There is no file {source!r}. Give an existing one, rtsp://..., or camera.")
        return _open_file(Path(source), how)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            f"{source!r} can't be watched: {reason}. Check the address, that the camera is plugged in and free, or "
            "that the file is one that can be read while it grows, as .ts and .mkv are."
        ) from error


def _open_file(path: Path, how: Watching) -> Any:
    """A file of a form that is read from its end, as MP4 is, is whole; others may still grow."""
    with path.open("rb") as file:
        head = file.read(12)
    options = {"protocol_whitelist": "file"}
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or head[8:12] == b"AVI ":
        return av.open(f"file:{path.absolute()}", options=options)
    return av.open(_Growing(path, how.idle_s), options=options)


class _Growing:
    """A file whose reader waits for more at its end, until nothing came for idle_s. It can't be jumped in."""

    def __init__(self, path: Path, idle_s: float) -> None:
        self._file = path.open("rb")
        self._patience_s = idle_s  # used up once: a reader asks several times at the end

    def read(self, count: int) -> bytes:
        waited_s = 0.0
        while not (content := self._file.read(count)) and waited_s < self._patience_s:
            time.sleep(PAUSE_S)
            waited_s += PAUSE_S
        if not content:
            self._patience_s = 0.0
        return content

    def close(self) -> None:
        self._file.close()


def _decode(source: str, how: Watching) -> Generator[tuple[float, Image.Image]]:
    with open_source(source, how) as container:
        if not container.streams.video:
            raise VideoError(f"{source!r} has no picture track. Give a source with pictures.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first_s, due_s = None, 0.0
        for frame in _frames(container, stream, source):
            first_s = frame.time if first_s is None else first_s
            if frame.time - first_s >= due_s - 1e-6:
                due_s = frame.time - first_s + 1 / how.fps
                yield frame.time - first_s, frame.to_image()


def _frames(container: Any, stream: Any, source: str) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            raise VideoError(
                f"{source!r} broke off: {error.strerror or error}. Start again when it is back."
            ) from error
        try:
            decoded = packet.decode()
        except av.FFmpegError:  # a stream that is joined in the middle begins with frames that need earlier ones
            continue
        yield from (frame for frame in decoded if frame.time is not None)


def _open_camera(name: str) -> Any:
    from sys import platform

    kind = dict(zip(("linux", "darwin", "win32"), CAMERA_FORMATS, strict=True)).get(platform, CAMERA_FORMATS[0])
    first = {"v4l2": "/dev/video0", "avfoundation": "0", "dshow": "video=Integrated Camera"}[kind]
    return av.open(name or first, format=kind)


def _is_live(source: str) -> bool:
    return source.startswith(STREAMS) or source.split(":", 1)[0] == "camera"


def _replace(newest: queue.Queue[Any], frame: tuple[float, Image.Image]) -> None:
    """Put a frame where the last one may still lie."""
    try:
        newest.get_nowait()
    except queue.Empty:
        pass
    newest.put(frame)


def _decide(vlm: VLM, question: str, images: list[Image.Image], fps: float) -> float:
    content = [{"type": "video", "video": images, "fps": fps}, {"type": "text", "text": question}]
    return vlm.decide(messages=[{"role": "user", "content": content}]).probabilities["yes"]
