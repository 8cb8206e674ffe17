"""What a request will take of this machine's memory, before anything runs: for people, and to refuse what can't fit.

What a motor takes is runtimes/memory.py's; here are the process, the pictures, and the moment when most is held.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from ..checkpoint import INDEX_NAME, WEIGHTS_NAME, TensorEntry, read_index
from ..checkpoint.quantised import split_scales
from ..checkpoint.shapes import HEAD, expected_shapes
from ..config import SmolVLMConfig
from ..errors import MemoryBudgetError
from ..runtimes import machine
from ..runtimes.memory import ITEM_BYTES, Working, weight_bytes, working
from ..runtimes.motor import Motor
from ..runtimes.native import MODES
from ..types import MemoryReport, TokenReport

MODULES = {"native": "..runtimes.native", "torch": "..runtimes.torch"}
MB = 1e6
CURE = "use fewer or smaller pictures, detail='low', fewer frames, or a smaller max_new_tokens"
SMALLER = "use a dtype of fewer bits, a smaller model, or end what else takes memory"


def predict(
    directory: Path, config: SmolVLMConfig, runtime: str, dtype: str, tokens: TokenReport, max_new_tokens: int
) -> MemoryReport:
    """Memory of this process when it loads a checkpoint on the CPU and answers one request.

    runtime: "native" or "torch". Its libraries are imported, so that their part is measured and not guessed.
    """
    program = _program(runtime)
    weights, loading = weight_bytes(runtime, config, stored_tensors(directory, config), dtype)
    new = min(max_new_tokens, max(tokens.left, 1))
    room = working(runtime, config, dtype, tokens.total, tokens.total + new)
    pixels = picture_bytes(config, tokens.tiles, ((one.width, one.height) for one in tokens.media))
    features = _kept_features(room, tokens.tiles)
    vision = room.vision if tokens.tiles else 0
    base = program + weights
    # The native scratch stays where it is, and reading a prompt uses the same.
    scratch = max(vision, room.reading) if runtime == "native" else room.reading
    looking, reading = pixels + vision + features, scratch + room.slot + features
    return MemoryReport(
        request=tokens, runtime=runtime, dtype=dtype, program=program + room.libraries, weights=weights,
        pictures=pixels, vision=vision, reading=room.reading, tokens=room.slot, features=features,
        peak=base + max(loading, room.libraries + max(looking, reading)),
        available=machine.available_memory() + (machine.resident_memory() or 0),
    )  # fmt: skip


def picture_bytes(config: SmolVLMConfig, tiles: int, sizes: Iterable[tuple[int, int]] = ()) -> int:
    """Pixels of tiles as numbers, those of one picture before as bytes, and that picture as it is opened.

    sizes: (width, height) of pictures and frames; one after another is opened.
    """
    side = config.vision_config.image_size
    opened = max((3 * width * height for width, height in sizes), default=0)
    return 3 * side * side * (4 + 1) * tiles + 2 * opened if tiles else 0


def require_memory(motor: Motor, tiles: int, prompt_tokens: int, new_tokens: int) -> None:
    """Raise MemoryBudgetError when a request doesn't fit into what is free; called before its pictures are decoded."""
    on_gpu = motor.device.startswith("cuda")
    free = motor.available_memory() if on_gpu else machine.free_memory()
    if free is None:
        return
    tokens = prompt_tokens + new_tokens
    room = working(motor.name, motor.config, motor.dtype, prompt_tokens, tokens, on_gpu=on_gpu)
    held = (room.vision if tiles else 0) + room.reading + _kept_features(room, tiles) + room.slot
    pixels = 0 if on_gpu else picture_bytes(motor.config, tiles)
    if pixels + held > free:
        raise MemoryBudgetError(
            f"This request needs about {(pixels + held) / MB:,.0f} MB of memory ({tiles} tiles, {prompt_tokens} tokens "
            f"and up to {new_tokens} new ones), and {free / MB:,.0f} MB are free: {CURE}."
        )


def require_room_for_weights(directory: Path, config: SmolVLMConfig, runtime: str, dtype: str) -> None:
    """Raise MemoryBudgetError when a model can't be loaded into what is free of the machine's memory."""
    free = machine.free_memory()
    if free is None or not can_predict(runtime, dtype):
        return
    weights, loading = weight_bytes(runtime, config, stored_tensors(directory, config), dtype)
    if weights + loading > free:
        raise MemoryBudgetError(
            f"The weights in {dtype} need {(weights + loading) / MB:,.0f} MB of memory, and {free / MB:,.0f} MB are "
            f"free: {SMALLER}."
        )


def can_predict(runtime: str, dtype: str) -> bool:
    return dtype in (MODES if runtime == "native" else ITEM_BYTES if runtime == "torch" else ())


def stored_tensors(directory: Path, config: SmolVLMConfig) -> dict[str, TensorEntry]:
    """The tensors of a checkpoint; where its weights aren't here yet, what a released one of its config has."""
    if not any((directory / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME)):
        return {name: TensorEntry(directory, 0, shape, "BF16") for name, shape in expected_shapes(config).items()}
    entries, _ = split_scales(read_index(directory))
    return {name: entry for name, entry in entries.items() if not (config.tie_word_embeddings and name == HEAD)}


def _program(runtime: str) -> int:
    import_module(MODULES[runtime], __package__)
    return machine.resident_memory() or UNKNOWN_PROGRAM[runtime]


def _kept_features(room: Working, tiles: int) -> int:
    """Features as they came, one by one in the cache, and joined for the prompt."""
    return 3 * room.features * tiles


# Where the system doesn't tell: Python with numpy and Pillow, and with torch.
UNKNOWN_PROGRAM = {"native": 80 * 2**20, "torch": 270 * 2**20}
