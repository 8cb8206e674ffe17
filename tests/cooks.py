"""A stand-in for the processor in media workers, which does what its message says; and orders that say it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smolvlm.errors import BusyError, ImageError, PromptError
from smolvlm.server.parts import SMALL, Order
from smolvlm.types import Inputs, TokenReport

SIDE = 8


class Cook:
    """`prepare` obeys the first word of the first text."""

    def prepare(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Inputs:
        word, *rest = str(messages[0]["content"][0]["text"]).split()
        return getattr(self, word)(*rest)

    def count(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> TokenReport:
        return TokenReport(total=len(self.prepare(messages).input_ids), text=1, image=0, tiles=0, context=9, left=8)

    def echo(self, number: str, tiles: str = "1") -> Inputs:
        pixels = np.full((int(tiles), 3, SIDE, SIDE), float(number), np.float32) if int(tiles) else None
        return Inputs(np.array([int(number)]), pixels, ((0, 0),) * int(tiles))

    def process(self) -> Inputs:
        return Inputs(np.array([os.getpid()]), None)

    def hang(self) -> Inputs:
        while True:  # holds on to the interpreter, as a broken decoder does
            pass

    def sleep(self, seconds: str) -> Inputs:
        time.sleep(float(seconds))
        return self.process()

    def die(self) -> Inputs:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    def crash(self) -> Inputs:
        os._exit(7)

    def swell(self, megabytes: str) -> Inputs:
        filled = np.ones(int(megabytes) * 1_000_000, np.uint8)
        return Inputs(filled[:1].astype(np.int64), None)

    def refuse(self) -> Inputs:
        raise ImageError("The picture is of no use.")

    def confuse(self) -> Inputs:
        raise PromptError("The prompt makes no sense.")

    def stall(self) -> Inputs:
        raise BusyError("Not now.")

    def stumble(self) -> Inputs:
        raise RuntimeError("a mistake of ours, with a secret")

    def lie(self) -> Inputs:
        return Inputs(np.array([1]), np.zeros((1, 3, SIDE, 2 * SIDE), np.float32))  # tiles are square


def order(text: str) -> Order:
    """One that goes to a worker, whatever it says."""
    words = [{"type": "text", "text": text}, {"type": "text", "text": " " * SMALL}]
    return Order(({"role": "user", "content": words},), {})
