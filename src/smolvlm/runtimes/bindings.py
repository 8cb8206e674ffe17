"""The compiled kernels through ctypes: their structures as kernels/smolvlm.h has them, and the functions of api.c."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..errors import ConfigError
from .kernels.build import LIBRARY

PANEL, GROUP = 64, 32
BLOCK = np.dtype([("rank", np.int32), ("ranks", np.int32), ("at", np.int64)])  # block_t
F32, BF16, INT8, INT4 = range(4)  # formats of weights
SOURCES = {"F32": 0, "BF16": 1, "F16": 2, "I8": 3, "U8": 4}  # types of a checkpoint's tensors; U8: two of 4 bits


class LowRankStruct(ctypes.Structure):
    _fields_ = (
        ("a", ctypes.c_void_p), ("b", ctypes.c_void_p), ("block", ctypes.c_void_p), ("first", ctypes.c_void_p),
        ("ranks", ctypes.c_int32), ("bf16", ctypes.c_int32),
    )  # fmt: skip


class LinearStruct(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int32), ("outputs", ctypes.c_int32), ("format", ctypes.c_int32),
        ("int8_inputs", ctypes.c_int32), ("added", ctypes.POINTER(LowRankStruct)),
    )  # fmt: skip


class LayerStruct(ctypes.Structure):
    _fields_ = (
        ("qkv", LinearStruct), ("out", LinearStruct), ("up", LinearStruct), ("down", LinearStruct),
        ("norm1", ctypes.c_void_p), ("norm1_bias", ctypes.c_void_p),
        ("norm2", ctypes.c_void_p), ("norm2_bias", ctypes.c_void_p),
    )  # fmt: skip


class TowerStruct(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_int32), ("hidden", ctypes.c_int32), ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32), ("head_dim", ctypes.c_int32), ("intermediate", ctypes.c_int32),
        ("exact", ctypes.c_int32), ("eps", ctypes.c_float), ("theta", ctypes.c_float),
        ("layer", ctypes.POINTER(LayerStruct)), ("norm", ctypes.c_void_p), ("norm_bias", ctypes.c_void_p),
    )  # fmt: skip


class VisionStruct(ctypes.Structure):
    _fields_ = (
        ("tower", TowerStruct), ("patches", LinearStruct), ("connector", LinearStruct), ("positions", ctypes.c_void_p),
        ("side", ctypes.c_int32), ("patch", ctypes.c_int32), ("across", ctypes.c_int32), ("scale", ctypes.c_int32),
    )  # fmt: skip


class TextStruct(ctypes.Structure):
    _fields_ = (("tower", TowerStruct), ("head", LinearStruct), ("vocabulary", ctypes.c_int32))


class SpanStruct(ctypes.Structure):
    _fields_ = (
        ("cache", ctypes.c_void_p), ("capacity", ctypes.c_int32), ("start", ctypes.c_int32), ("count", ctypes.c_int32),
        ("model", ctypes.POINTER(TextStruct)),
    )  # fmt: skip


@cache
def load_kernels() -> Any:
    """The compiled kernels. Raises ConfigError when they were not built, or were built for another machine."""
    if not LIBRARY.is_file():
        raise ConfigError(
            "The native kernels are not here: the package was installed where there was no C compiler. Install one "
            "(on Debian: apt install gcc) and install smolvlm again, or use runtime='torch'."
        )
    try:
        found = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ConfigError(f"The native kernels can't be loaded ({error}). Use runtime='torch'.") from None
    address, number = ctypes.c_void_p, ctypes.c_int
    found.sm_choose.restype, found.sm_choose.argtypes = ctypes.c_char_p, [ctypes.c_char_p]
    found.sm_start.restype, found.sm_start.argtypes = address, [number]
    found.sm_stop.restype, found.sm_stop.argtypes = None, [address]
    found.sm_pack.restype, found.sm_pack.argtypes = None, [address, *[number] * 4, *[address] * 4]
    found.sm_quantise.restype, found.sm_quantise.argtypes = None, [address, *[number] * 4, *[address] * 3]
    found.sm_cache_bytes.restype, found.sm_cache_bytes.argtypes = ctypes.c_long, [ctypes.POINTER(TextStruct), number]
    found.sm_copy.restype = None
    found.sm_copy.argtypes = [ctypes.POINTER(TextStruct), address, number, address, number, number]
    found.sm_see.restype = None
    found.sm_see.argtypes = [address, ctypes.POINTER(VisionStruct), number, address, address]
    found.sm_read.restype = None
    found.sm_read.argtypes = [
        address, ctypes.POINTER(TextStruct), number, ctypes.POINTER(SpanStruct), address, number, address, address,
    ]  # fmt: skip
    found.sm_multiply.restype = None
    found.sm_multiply.argtypes = [address, ctypes.POINTER(LinearStruct), number, address, address]
    return found


class Pool:
    """The threads that share the kernels' work. Threads don't survive a fork: a new process starts its own."""

    def __init__(self, threads: int) -> None:
        self._library = load_kernels()
        self._threads = threads
        self._start()

    @property
    def address(self) -> int:
        if self._process != os.getpid():
            self._start()
        return self._address

    def _start(self) -> None:
        self._address, self._process = self._library.sm_start(self._threads), os.getpid()
        if not self._address:
            raise MemoryError("There is no memory for the kernels' threads.")

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:  # at the end of the program os may be gone
        if getattr(self, "_process", None) == getpid():
            self._library.sm_stop(self._address)


def kernels_name() -> str:
    """Which copy of the kernels suits this processor: a name of kernels/build.py's COPIES, or "plain"."""
    return load_kernels().sm_choose(None).decode()


def fast_dtype() -> str:
    """The dtype of unquantised models that answers soonest about a picture with these kernels.

    Where products of bf16 are made of others by hand they cost a fifth more than those of float32; with vectors of
    AVX-512 they don't.
    """
    return "bfloat16" if kernels_name() in ("avx512", "avx512vnni", "arm86") else "float32"
