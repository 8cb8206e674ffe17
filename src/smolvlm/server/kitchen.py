"""Worker processes that open media and run the processor, killed at a deadline; one that dies hurts one request only.

Each worker has a connection of its own, and one thread here that waits for it: nothing is shared that a dying process
could leave locked or half written. (Pools of the standard library and of pebble share their queues: there, a worker
that is killed while it writes, or while it is idle, ends or blocks all of them.)
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import multiprocessing
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import errors
from ..errors import BusyError, SmolVLMError
from ..media.image import ImageLimits
from ..media.limits import MediaLimits
from ..media.video import VideoLimits
from ..types import FramesSeen, Inputs, MediaTokens, TokenReport
from .failures import RequestError
from .sources import Access
from .worker import Task, cook, fill_all, work

if TYPE_CHECKING:
    from .parts import Order
    from .settings import Limits, Settings

log = logging.getLogger(__name__)
START_S = 60.0  # for a new worker on a busy machine
END_S = 2.0
MOST_SIDE = 4096  # pixels of a tile


class Processor(Protocol):
    """The part of SmolVLMProcessor that is used. It is sent to the workers, so it must be possible to pickle it."""

    @property
    def prepare(self) -> Callable[..., Inputs]: ...

    @property
    def count(self) -> Callable[..., TokenReport]: ...


class Kitchen:
    """Prepares orders. working, waiting: orders now. killed: workers ended at a deadline, or because their client left;
    died: workers that ended by themselves."""

    def __init__(self, processor: Processor, settings: Settings, *, context: int) -> None:
        """context: tokens that the model holds. The workers start at once, and this returns before they are ready."""
        limits = settings.limits
        most = context if limits.prompt_tokens is None else min(context, limits.prompt_tokens + 1)
        self._processor = processor
        self._limits = limits
        self._task = Task(Access.of(settings), media_limits(limits), most, limits.worker_bytes)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.working = self.waiting = self.killed = self.died = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._workers = [_Worker(processor, self._task) for _ in range(limits.workers)]
        self._threads = [threading.Thread(target=self._serve, args=(one,), daemon=True) for one in self._workers]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)  # else the interpreter would wait for the workers at its end

    async def prepare(self, order: Order) -> Inputs:
        """The inputs of the model. Raises MediaError and its kinds, PromptError, ContextLengthError, InputError,
        RequestError when it takes too long or ends its worker, BusyError when too many wait. Cancelling kills."""
        if order.is_small:
            return cook(
                self._processor, order, fill_all(order, self._task.access), self._task.context, self._task.limits
            )
        inputs = await self._order("prepare", order)
        assert isinstance(inputs, Inputs), "workers answer what they are asked"
        return inputs

    async def count(self, order: Order) -> TokenReport:
        """What it would cost, from headers. Raises as prepare does."""
        report = await self._order("count", order)
        assert isinstance(report, TokenReport), "workers answer what they are asked"
        return report

    def close(self) -> None:
        """End the workers, whatever they do."""
        atexit.unregister(self.close)
        with self._lock:
            self._is_closed = True
        for worker in self._workers:
            worker.close()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(END_S)

    async def _order(self, what: str, order: Order) -> Inputs | TokenReport:
        job = _Job(what, order)
        with self._lock:
            if self._is_closed:
                raise _leaving()
            if self.waiting + self.working >= self._limits.queue + self._limits.workers:
                raise BusyError(f"{self.waiting} requests wait for their media to be opened: try again later.")
            self.waiting += 1
            self._jobs.put(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.give_up()
            raise

    def _serve(self, worker: _Worker) -> None:
        """The life of one thread: it hands one job after another to its worker."""
        worker.restart()
        while (job := self._jobs.get()) is not None:
            self._step(-1, +1)
            try:
                self._do(worker, job)
            finally:
                self._step(0, -1)
        worker.end()

    def _step(self, waiting: int, working: int) -> None:
        with self._lock:
            self.waiting += waiting
            self.working += working

    def _do(self, worker: _Worker, job: _Job) -> None:
        """Do one job, whatever becomes of it; afterwards there is a worker for the next one."""
        if not job.begin(worker):
            return
        if worker.is_closed:
            job.end(_leaving())
            return
        try:
            result: Inputs | TokenReport | RequestError = worker.ask(job, self._limits.decode_s)
        except (SmolVLMError, WorkerError) as error:
            job.end(error)
            return
        except TimeoutError:
            self.killed += 1
            result = _too_slow(self._limits.decode_s)
        except Exception as error:  # the connection ended, or what came over it makes no sense
            result = _died()
            self.killed += job.is_given_up
            if not job.is_given_up:
                self.died += 1
                log.warning("A media worker died of a request: %r, exit code %s.", error, worker.exit_code)
        job.end(result)
        if isinstance(result, RequestError):
            worker.restart()


class _Job:
    """An order on its way. Given up while a worker has it, it takes the worker with it."""

    def __init__(self, what: str, order: Order) -> None:
        self._order: tuple[str, Order] | None = (what, order)
        self.future: Future[Inputs | TokenReport] = Future()
        self.is_given_up = False
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def packed(self) -> bytes:
        """As it is sent: made when its turn comes, for the sake of memory."""
        return pickle.dumps(self._order)

    def begin(self, worker: _Worker) -> bool:
        """False when nobody wants it any more."""
        with self._lock:
            if self.is_given_up or not self.future.set_running_or_notify_cancel():
                return False
            self._worker = worker
            return True

    def end(self, result: Inputs | TokenReport | BaseException) -> None:
        with self._lock:
            self._worker = None
            self._order = None  # its pictures are large
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

    def give_up(self) -> None:
        """From any thread."""
        with self._lock:
            self.is_given_up = True
            if self._worker is None:
                self._order = None
            else:
                self._worker.kill()


class _Worker:
    """One process, and the one that follows it. Used by one thread; `kill` by any."""

    def __init__(self, processor: Processor, task: Task) -> None:
        self._processor = processor
        self._task = task
        self._context = _context(processor)
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_ready = self.is_closed = False
        self._lock = threading.Lock()

    @property
    def exit_code(self) -> int | None:
        """Of the process, once it has ended: the number of the signal that ended it is below 0."""
        if self._process is None:
            return None
        self._process.join(END_S)
        return self._process.exitcode

    def restart(self) -> None:
        """End the process and start another; returns before it is ready. Does nothing once this is closed."""
        self.end()
        with self._lock:
            if self.is_closed:
                return
            try:
                ours, theirs = self._context.Pipe()
                arguments = (theirs, self._processor, self._task)
                process = self._context.Process(target=work, args=arguments, name="smolvlm-media", daemon=True)
                process.start()
                theirs.close()
            except Exception:  # no process can be had now; the next order tries again
                log.exception("No media worker can be started.")
                return
            self._connection, self._process = ours, process

    def end(self) -> None:
        self.kill()
        if self._process is not None:
            self._process.join(END_S)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self._is_ready = False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """From any thread: kill, and never start again."""
        with self._lock:
            self.is_closed = True
            self.kill()

    def ask(self, job: _Job, seconds: float) -> Inputs | TokenReport:
        """Raises what the worker raised, TimeoutError at the deadline, EOFError or OSError when it ended, ValueError
        when it answers nonsense."""
        self._send(job)
        deadline = time.monotonic() + seconds
        reply = json.loads(self._receive(deadline))
        if "error" in reply:
            kind = getattr(errors, reply["error"])
            assert issubclass(kind, SmolVLMError), "workers send errors of the library alone"
            raise kind(reply["message"])
        if "unexpected" in reply:
            raise WorkerError(reply["unexpected"])
        if "report" in reply:
            return _read_report(reply["report"])
        pixels = None if reply["shape"] is None else self._receive_pixels(reply["shape"], deadline)
        return Inputs(
            input_ids=np.array(reply["ids"], np.int64),
            pixel_values=pixels,
            tile_rows_cols=tuple((rows, cols) for rows, cols in reply["grids"]),
            frames=tuple(_read_frames(one) for one in reply["frames"]),
        )

    def _send(self, job: _Job) -> None:
        """Send, and see that it arrived: a worker that ended while it had nothing to do is replaced first."""
        order = job.packed()
        for attempt in (1, 2):
            try:
                if not self._is_ready:
                    self._receive(time.monotonic() + START_S)
                    self._is_ready = True
                self._opened().send_bytes(order)
                self._receive(time.monotonic() + START_S)
                return
            except (EOFError, OSError):
                if attempt == 2 or job.is_given_up:
                    raise
                self.restart()

    def _receive(self, deadline: float) -> bytes:
        return self._wait_for(deadline).recv_bytes()

    def _wait_for(self, deadline: float) -> Connection:
        """The connection, once something has come over it. Raises TimeoutError."""
        if not self._opened().poll(max(deadline - time.monotonic(), 0)):
            raise TimeoutError
        return self._opened()

    def _opened(self) -> Connection:
        if self._connection is None:
            raise EOFError("there is no process")
        return self._connection

    def _receive_pixels(self, shape: list[int], deadline: float) -> np.ndarray:
        """(tiles, 3, side, side) float32, straight into its place: pickles would be copied three times."""
        tiles, channels, height, width = shape
        if not (0 < tiles <= self._task.context and channels == 3 and 0 < height == width <= MOST_SIDE):
            raise ValueError(f"pixels of shape {shape}")
        pixels = np.empty((tiles, channels, height, width), np.float32)
        left = pixels.data.cast("B")
        if os.name == "nt":
            self._wait_for(deadline).recv_bytes_into(left)
            return pixels
        while left:
            count = os.readv(self._wait_for(deadline).fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
        return pixels


class WorkerError(Exception):
    """Something failed in a worker that nobody expected. Its text is the trace there."""


def media_limits(limits: Limits) -> MediaLimits:
    """The limits of a server in the words of the door."""
    videos = VideoLimits(
        max_seconds=limits.video_s,
        max_pixels=limits.frame_pixels,
        max_streams=limits.video_streams,
        max_frames=limits.video_frames,
        max_bytes=limits.encoded_bytes,
        timeout_s=limits.fetch_s,
        decode_s=limits.decode_s,
    )
    images = ImageLimits(limits.picture_pixels, limits.encoded_bytes, limits.fetch_s)
    return MediaLimits(images, videos, limits.frames, limits.decoded_bytes)


def _context(processor: Processor) -> Any:
    """How processes are started: where that exists, as copies of one that has imported what they need, no more."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, type(processor).__module__])
    return context


def _read_report(given: dict[str, Any]) -> TokenReport:
    media = tuple(MediaTokens(**{**one, "timestamps_s": tuple(one["timestamps_s"])}) for one in given["media"])
    return TokenReport(**{**given, "media": media})


def _read_frames(given: dict[str, Any]) -> FramesSeen:
    return FramesSeen(
        given["source"], tuple(given["indices"]), tuple(given["timestamps_s"]), float(given["duration_s"])
    )


def _leaving() -> RequestError:
    return RequestError("The server is shutting down: ask another one.", status=503, code="shutting_down")


def _too_slow(seconds: float) -> RequestError:
    return RequestError(
        f"The pictures and videos took more than {seconds:g} s to open, this server's limit. Send smaller ones.",
        status=422,
        code="media_too_slow",
    )


def _died() -> RequestError:
    return RequestError(
        "The process that opened the pictures and videos of this request died of them. They are damaged, or need more "
        "memory than one request may use.", status=422, code="media_crashed",
    )  # fmt: skip
