"""The motor on ONNX Runtime: graphs of graphs/, keys and values in slabs that are written in place. Needs no torch.

It opens the graphs of an export, or writes those of a plain checkpoint into a temporary folder first. A slab holds the
slots of one size, so that one run reads a token for each of them; longer spans are read one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..checkpoint.quantised import quantised_mode
from ..config import SmolVLMConfig
from ..errors import CheckpointError, ConfigError, InputError, MissingDependencyError
from .graphs import CURE, DECODER, EMBEDDINGS, FORMS, OWN, SUBFOLDER, VISION, write_graphs
from .machine import usable_cores
from .memory import CPU_PATCHES_AT_ONCE, FIRST_ROWS, slab_row, slab_size
from .motor import ArrayFeatures, LiveAdapter, Slot, Span, require_prefix, require_room, require_tiles

DTYPES = {"float32": "fp32", "float16": "fp16", "int8": "q8", "int4": "q4", "int4-float16": "q4f16"}
SETTINGS = "transformers.js_config"  # in an export's config.json
SAMPLED = 4096  # bytes of the file of vision weights that go into a fingerprint


class OnnxMotor(ArrayFeatures):
    """See runtimes.motor.Motor. Features are float32 arrays.

    dtype: a name in DTYPES; None takes an export's first, and float32 of a checkpoint. threads: the processor's cores
    by default. progress: called with (bytes done, bytes in all) while graphs are written. adapter: a directory, merged
    before they are.
    Raises MissingDependencyError without onnxruntime; ConfigError, CheckpointError.
    """

    name = "onnx"
    reads_together = False

    def __init__(
        self,
        directory: Path,
        dtype: str | None = None,
        *,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        adapter: Path | None = None,
    ) -> None:
        _onnxruntime()  # before graphs are written for nothing
        self.config = SmolVLMConfig.from_file(directory / "config.json")
        self.dtype = dtype or _first_dtype(self.config, directory)
        with _graphs(directory, self.dtype, adapter, progress) as folder:
            suffix = FORMS[DTYPES[self.dtype]].suffix
            names = (EMBEDDINGS, OWN[VISION], OWN[DECODER])
            sessions = [_session(folder / f"{name}{suffix}.onnx", threads or usable_cores()) for name in names]
            self._fingerprint = _sample(folder / f"{VISION}{suffix}.onnx_data", self.dtype)
        self._embeddings, self._vision, self._decoder = sessions
        caches = [one for one in self._decoder.get_inputs() if one.name.startswith("past_key_values")]
        self._caches = [one.name.removeprefix("past_key_values") for one in caches]
        self._number = np.dtype(np.float16 if caches[0].type == "tensor(float16)" else np.float32)
        self._slabs: dict[int, _Slab] = {}

    def fingerprint(self) -> str:
        """A sample of the file of vision weights is hashed."""
        return self._fingerprint

    def load_adapter(self, directory: Path) -> LiveAdapter:
        """Raises InputError: a graph is one model."""
        raise InputError(
            f"The onnx runtime can't hold the adapter {directory} beside its graphs for some requests only. Load the "
            "checkpoint with it merged, smolvlm.load(model, adapter=directory), or merge it, save, and export that; "
            "or take runtime='native' or 'torch'."
        )

    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> np.ndarray:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden) float32. Raises InputError."""
        require_tiles(pixel_values, self.config)
        pixels = np.asarray(pixel_values, np.float32)
        at_once = max(1, CPU_PATCHES_AT_ONCE // self.config.vision_config.patches_per_side**2)
        starts = range(0, len(pixels), at_once)
        return np.concatenate(
            [self._vision.run(None, {"pixel_values": pixels[start : start + at_once]})[0] for start in starts]
        )

    def slot_bytes(self, tokens: int) -> int:
        return slab_row(self.config, self._number.itemsize, tokens)

    def open(self, tokens: int) -> Slot:
        """Room for a sequence of up to `tokens` tokens, empty. Memory is taken as it is filled."""
        size, text = slab_size(tokens), self.config.text_config
        if size not in self._slabs:
            self._slabs[size] = _Slab(len(self._caches), (text.kv_heads, size + 1, text.head_size), self._number)
        return self._slabs[size].open(size)

    def copy_prefix(self, source: Slot, target: Slot, tokens: int) -> None:
        """Put the first `tokens` tokens of one slot into another, empty one. Raises InputError when they don't fit."""
        require_prefix(source, target, tokens)
        for own, other in zip(target.memory.slab.arrays, source.memory.slab.arrays, strict=True):
            own[target.memory.row, :, :tokens] = other[source.memory.row, :, :tokens]
        target.length = tokens

    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Read the spans' tokens after those of their slots. Returns logits (wanted, vocabulary) float32.

        wanted: places among all new tokens, counted through the spans. Raises InputError when a slot is too small.
        """
        require_room(spans)
        starts = np.cumsum([0, *(len(span.ids) for span in spans)])
        places = np.asarray(wanted, np.int64)
        logits = np.empty((len(places), self.config.text_config.vocab_size), np.float32)
        for numbers in _runs(spans):
            first, end = starts[numbers[0]], starts[numbers[0] + 1]
            if len(numbers) == 1:
                own = (places >= first) & (places < end)
                logits[own] = self._read([spans[numbers[0]]], places[own] - first)
            else:
                row_of = {starts[number]: spans[number].slot.memory.row for number in numbers}
                own = np.isin(places, list(row_of))
                rows = np.array([row_of[place] for place in places[own]], np.int64)
                logits[own] = self._read([spans[number] for number in numbers], rows)
            for number in numbers:  # at once: in the next run these rows are idle, and keep what they hold
                spans[number].slot.length += len(spans[number].ids)
        return logits

    def _read(self, spans: Sequence[Span], wanted: np.ndarray) -> np.ndarray:
        """One span, or one token of each of several rows of a slab. Returns logits (wanted, vocabulary).

        wanted: tokens of the one span, or rows. All rows up to the last one are computed, idle ones for nothing: they
        write a token behind their end, where every row has a place to spare.
        """
        slab = spans[0].slot.memory.slab
        rows = [span.slot.memory.row for span in spans]
        whole = slice(rows[0], rows[0] + 1) if len(spans) == 1 else slice(0, max(rows) + 1)
        lengths = slab.lengths(whole)  # (rows,), before
        x = np.zeros((len(lengths), len(spans[0].ids), self.config.text_config.hidden_size), np.float32)
        for span, row in zip(spans, rows, strict=True):
            x[row - whole.start] = self._embed(span)
        ends = (lengths + x.shape[1]).astype(np.int32)  # (rows,)
        feeds = {
            "inputs_embeds": x,
            "last_places": ends - 1,
            "longest": ends.max(keepdims=True),
            "position_ids": lengths[:, None] + np.arange(x.shape[1]),
            "wanted": wanted,
        }
        binding = self._decoder.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, array in zip(self._caches, slab.arrays, strict=True):
            part = array[whole]  # (rows, kv_heads, size + 1, head_dim): read and written in place
            place = ("cpu", 0, self._number.type, part.shape, part.ctypes.data)
            binding.bind_input(f"past_key_values{name}", *place)
            binding.bind_output(f"present{name}", *place)
        binding.bind_output("logits", "cpu")
        self._decoder.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()

    def _embed(self, span: Span) -> np.ndarray:
        """(tokens, hidden) float32: rows of the table, with the pictures in the places of image tokens."""
        ids = np.asarray(span.ids, np.int64)
        x = self._embeddings.run(None, {"input_ids": ids[None]})[0][0]
        if span.pictures is not None:
            x[ids == self.config.image_token_id] = span.pictures
        return x


@dataclass(frozen=True)
class _Place:
    slab: _Slab
    row: int


class _Slab:
    """Slots of one size: (rows, kv_heads, size + 1, head_dim) for keys and values of each layer."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.arrays = [np.zeros((0, *shape), dtype) for _ in range(count)]
        self._slots: weakref.WeakValueDictionary[int, Slot] = weakref.WeakValueDictionary()  # row -> who lives there

    def open(self, size: int) -> Slot:
        """A slot in the first free row; the slab grows by doubling."""
        have = len(self.arrays[0])
        row = next((row for row in range(have) if row not in self._slots), have)
        if row == have:
            more = max(FIRST_ROWS, have)
            self.arrays = [np.concatenate([one, np.zeros((more, *one.shape[1:]), one.dtype)]) for one in self.arrays]
        self._slots[row] = slot = Slot(size, _Place(self, row))
        return slot

    def lengths(self, rows: slice) -> np.ndarray:
        """Tokens in each of these rows, (rows,)."""
        slots = [self._slots.get(row) for row in range(rows.start, rows.stop)]
        return np.array([0 if slot is None else slot.length for slot in slots], np.int64)


def _runs(spans: Sequence[Span]) -> list[list[int]]:
    """Numbers of the spans that are read together: single tokens of one slab; every other span alone."""
    alone = [[number] for number, span in enumerate(spans) if len(span.ids) != 1]
    together: dict[_Slab, list[int]] = {}
    for number, span in enumerate(spans):
        if len(span.ids) == 1:
            together.setdefault(span.slot.memory.slab, []).append(number)
    return [*alone, *together.values()]


# ---- files ----


def is_export(directory: Path) -> bool:
    """Whether a directory holds graphs for this motor, and not the weights that they were made from."""
    graphs = any((directory / SUBFOLDER).glob(f"{OWN[DECODER]}*.onnx"))
    return graphs and not any(directory.glob("*.safetensors"))


def holds(directory: Path, dtype: str) -> bool:
    """Whether a directory has graphs for this motor in a dtype of DTYPES."""
    return (directory / SUBFOLDER / f"{OWN[DECODER]}{FORMS[DTYPES[dtype]].suffix}.onnx").is_file()


def _first_dtype(config: SmolVLMConfig, directory: Path) -> str:
    """The dtype that an export was written in first, that of a quantised checkpoint, or float32."""
    settings = config.extra.get(SETTINGS)
    written = settings.get("dtype") if isinstance(settings, dict) else None
    found = next((name for name, theirs in DTYPES.items() if theirs == written), None)
    return found or quantised_mode(config, directory) or "float32"


def require(directory: Path, dtype: str) -> Path:
    """The folder of an export's graphs. Raises ConfigError for an unknown dtype, CheckpointError for one not there."""
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is not known to the onnx runtime; use one of {', '.join(DTYPES)}.")
    if not holds(directory, dtype):
        there = ", ".join(name for name in DTYPES if holds(directory, name))
        raise CheckpointError(
            f"{directory} was exported in {there}, not in {dtype}: take one of these, or export it again with "
            f"`smolvlm export onnx MODEL -o DIR --dtype {DTYPES[dtype]}`."
        )
    return directory / SUBFOLDER


@contextmanager
def _graphs(
    directory: Path, dtype: str, adapter: Path | None, progress: Callable[[int, int], None] | None
) -> Iterator[Path]:
    """The folder of graphs: an export's own, or a temporary one. Sessions keep what they need of deleted files."""
    if adapter is not None and is_export(directory):
        raise ConfigError(
            f"{directory} holds graphs, into which no adapter can be merged: load the checkpoint that they were "
            "made from with it, or merge it there, save, and export that."
        )
    if dtype not in DTYPES or (holds(directory, dtype) and adapter is None) or is_export(directory):
        yield require(directory, dtype)
    else:
        with TemporaryDirectory(prefix="smolvlm-", ignore_cleanup_errors=True) as temporary:
            write_graphs(directory, Path(temporary), DTYPES[dtype], portable=False, adapter=adapter, progress=progress)
            yield Path(temporary)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"runtime='onnx' needs the package onnxruntime: {CURE}.") from error
    return onnxruntime


def _session(file: Path, threads: int) -> Any:
    """A graph, ready to run. Raises CheckpointError."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise CheckpointError(f"ONNX Runtime can't read {file}: {str(error).splitlines()[0]}") from error


def _sample(file: Path, dtype: str) -> str:
    """A short name of a file's content."""
    content = np.memmap(file, np.uint8, "r")
    return blake2b(dtype.encode() + content[:: max(1, len(content) // SAMPLED)].tobytes(), digest_size=8).hexdigest()
