"""What this machine can do at most: numbers multiplied and bytes read in a second. A model's speed is a share of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..checkpoint.safetensors import narrow
from ..errors import ConfigError
from .bindings import BF16, F32, INT8, PANEL, LinearStruct, Pool, load_kernels
from .machine import timed, usable_cores

ROWS, INPUTS, OUTPUTS = 1024, 2048, 8192  # of a product: larger than any of the family, so little else is measured
READ_BYTES, READ_PART = 512 * 2**20, 4 * 2**20  # far more than caches hold; small parts, so that no core is waited for
RUNS = 5
FORMATS = {"float32": (F32, 4), "bfloat16": (BF16, 2), "int8": (INT8, 1)}  # name -> (format, bytes of a weight)


def multiply_rate(dtype: str) -> float:
    """Operations a second (two for each multiplication) in a large product on all cores.

    dtype: "float32", "bfloat16" or "int8" (8 bits on both sides). The native kernels multiply; without them torch does.
    """
    try:
        load_kernels()
    except ConfigError:
        return torch_rate(dtype)
    return _rate(_native_product(dtype))


def torch_rate(dtype: str) -> float:
    """What torch reaches in the same product: another judge of what the machine can do."""
    return _rate(_torch_product(dtype))


def read_rate() -> float:
    """Bytes a second that all cores together read from memory: a search for a byte that isn't there."""
    memory = np.ones(READ_BYTES, np.uint8)
    find = ctypes.CDLL(None).memchr
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    starts = range(memory.ctypes.data, memory.ctypes.data + READ_BYTES, READ_PART)
    with ThreadPoolExecutor(usable_cores()) as pool:
        return READ_BYTES / _best(lambda: list(pool.map(lambda start: find(start, 0, READ_PART), starts)))


def _native_product(dtype: str) -> Callable[[], object]:
    form, item = FORMATS[dtype]
    load_kernels().sm_choose(None)
    pool = Pool(usable_cores())
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, INPUTS), np.float32)
    y = np.empty((ROWS, OUTPUTS), np.float32)
    if form == INT8:
        panels = random.integers(0, 256, INPUTS * OUTPUTS, np.uint8)
    else:
        values = random.standard_normal(INPUTS * OUTPUTS, np.float32)
        panels = values if form == F32 else narrow(values)
    assert OUTPUTS % PANEL == 0 and panels.itemsize == item, "whole panels: random ones need no packing"
    scale = np.ones(OUTPUTS, np.float32)
    weights = LinearStruct(panels.ctypes.data, scale.ctypes.data, None, INPUTS, OUTPUTS, form, int(form == INT8))
    kept = (panels, scale)  # the structure holds addresses only

    def product() -> object:
        load_kernels().sm_multiply(pool.address, ctypes.byref(weights), ROWS, x.ctypes.data, y.ctypes.data)
        return kept

    return product


def _torch_product(dtype: str) -> Callable[[], object]:
    import torch

    if dtype == "int8":
        one, other = (torch.ones(shape, dtype=torch.int8) for shape in ((ROWS, INPUTS), (INPUTS, OUTPUTS)))
        return lambda: torch._int_mm(one, other)
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    x, weights = torch.randn(ROWS, INPUTS).to(kind), torch.randn(OUTPUTS, INPUTS).to(kind)
    return lambda: torch.nn.functional.linear(x, weights)


def _rate(product: Callable[[], object]) -> float:
    return 2 * ROWS * INPUTS * OUTPUTS / _best(product)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of some runs, after one that warms up: others on the machine only ever take time."""
    work()
    return min(timed(work) for _ in range(RUNS))
