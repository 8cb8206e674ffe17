"""A process that opens what strangers send: it decodes and prepares one order at a time, and may be killed any time.

It answers in JSON and raw numbers, never in pickles: whoever breaks a decoder sends the server nothing that it would
run. It holds no model, has no torch, and leaves as soon as the server does. kitchen.py starts and ends it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FetchError, SmolVLMError
from ..media.limits import MediaLimits
from ..media.source import Source
from ..types import Inputs
from .sources import Access, Reference, fill

if TYPE_CHECKING:
    from .parts import Block, Message, Order

READY, BEGUN = b"ready", b"begun"  # once, and for each order before anything in it is touched
FETCHES = 8  # at one time, of one order
SEND_BUFFER_BYTES = 4 << 20
_MOST_FILES = 256


@dataclass(frozen=True)
class Task:
    """What a worker is told once. context: most tokens of a prompt, and one. memory: bytes that it may take."""

    access: Access
    limits: MediaLimits
    context: int
    memory: int


def work(connection: Connection, processor: Any, task: Task) -> None:
    """Answer orders until the server closes the connection. Each: ("prepare" or "count", Order), pickled."""
    _confine(task.memory)
    threading.Thread(target=_leave_with_server, daemon=True).start()
    connection.send_bytes(READY)
    while True:
        try:
            order = connection.recv_bytes()
        except (EOFError, OSError):
            return
        connection.send_bytes(BEGUN)
        reply, pixels = _answer(order, processor, task)
        del order
        connection.send_bytes(json.dumps(reply).encode())
        if pixels is not None:
            _send_pixels(connection, pixels)


def _answer(order: bytes, processor: Any, task: Task) -> tuple[dict[str, Any], np.ndarray | None]:
    try:
        what, read = pickle.loads(order)  # from the server itself
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged videos; what was seen is in the answer
            return _prepare(processor, read, task) if what == "prepare" else _count(processor, read, task)
    except SmolVLMError as error:
        return {"error": _kind_of(error), "message": _without_place(str(error), task.access)}, None
    except MemoryError:
        return {"error": "MediaError", "message": "The media need more memory than one request may use."}, None
    except Exception:
        return {"unexpected": traceback.format_exc()}, None


def _kind_of(error: SmolVLMError) -> str:
    """The nearest class of errors.py."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == SmolVLMError.__module__)


def _without_place(message: str, access: Access) -> str:
    """Messages name files as clients do; should one slip through as this machine does, its place stays here."""
    return message if access.media_root is None else message.replace(str(access.media_root), "")


def _prepare(processor: Any, order: Order, task: Task) -> tuple[dict[str, Any], np.ndarray | None]:
    inputs = cook(processor, order, fill_all(order, task.access), task.context, task.limits)
    pixels = inputs.pixel_values
    reply = {
        "ids": inputs.input_ids.tolist(),
        "grids": inputs.tile_rows_cols,
        "frames": [asdict(one) for one in inputs.frames],
        "shape": None if pixels is None else pixels.shape,
    }
    return reply, pixels


def _count(processor: Any, order: Order, task: Task) -> tuple[dict[str, Any], None]:
    filled = fill_all(order, task.access)
    report = processor.count(
        filled, **order.look, prompt=order.prompt, prompt_is_text=True, context=task.context, limits=task.limits,
        add_generation_prompt=order.add_generation_prompt,
    )  # fmt: skip
    return {"report": asdict(report)}, None


def cook(processor: Any, order: Order, messages: list[Message], context: int, limits: MediaLimits) -> Inputs:
    """What the processor makes of an order whose references are filled."""
    inputs: Inputs = processor.prepare(
        messages,
        **order.look,
        prompt=order.prompt,
        prompt_is_text=True,
        add_generation_prompt=order.add_generation_prompt,
        continue_final_message=order.continue_final_message,
        context=context,
        limits=limits,
    )
    return inputs


def fill_all(order: Order, access: Access) -> list[Message]:
    """The messages of an order as the library takes them, with every reference fetched or decoded from base64."""
    references = list(dict.fromkeys(one for block in order.blocks for one in _references(block)))
    urls = [one for one in references if one.scheme == "url"]
    filled = {one: fill(one, access) for one in references if one.scheme != "url"}
    if urls:
        filled |= _fetch_all(urls, access)
    if not order.messages:
        return [{"role": "user", "content": ""}]

    def as_library(block: Block) -> Block:
        if block["type"] == "text":
            return block
        found = [filled[one] for one in _references(block)]
        listed = isinstance(block["source"], list)
        others = {name: value for name, value in block.items() if name != "source"}
        return {**others, str(block["type"]): found if listed else found[0]}

    return [
        {**message, "content": [as_library(block) for block in message["content"]]}  # type: ignore[attr-defined]
        for message in order.messages
    ]


def _fetch_all(urls: list[Reference], access: Access) -> dict[Reference, Source]:
    """Each address once, several at a time. Raises FetchError for one that fails, and for too much together."""
    found: dict[str, Source] = {}
    left = access.fetched_bytes
    once = {one.text: one for one in urls}
    with ThreadPoolExecutor(min(FETCHES, len(once))) as threads:
        try:
            for text, source in zip(once, threads.map(lambda one: fill(one, access), once.values()), strict=True):
                found[text] = source
                left -= len(source.content) if isinstance(source.content, bytes) else 0
                if left < 0:
                    raise FetchError(
                        f"The addresses lead to more than the limit of {access.fetched_bytes:,} bytes for one request."
                    )
        finally:
            threads.shutdown(cancel_futures=True)
    return {one: replace(found[one.text], name=one.name) for one in urls}


def _references(block: Block) -> list[Reference]:
    source = block.get("source")
    if isinstance(source, Reference):
        return [source]
    return list(source) if isinstance(source, list) else []


def _send_pixels(connection: Connection, pixels: np.ndarray) -> None:
    """(tiles, 3, side, side) float32 as raw bytes, right behind the reply; see kitchen.py's `_receive_pixels`."""
    raw = np.ascontiguousarray(pixels, np.float32).data.cast("B")
    if os.name == "nt":
        connection.send_bytes(raw)
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        channel.sendall(raw)


def _confine(memory: int) -> None:
    """Bound what this process may take; where the system can't, only deadlines do."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the server's to answer, also when they are sent to all of its group
        signal.signal(number, signal.SIG_IGN)
    with open(os.devnull, "wb") as nowhere:  # decoders complain there, as often as a stranger likes
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: _MOST_FILES, resource.RLIMIT_DATA: memory}
    for kind, most in bounds.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _leave_with_server() -> None:
    """A decoder that hangs doesn't notice that the server is gone; this does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
