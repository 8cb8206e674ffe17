"""How much memory each motor takes, from the shapes of a model alone. Nothing is loaded, and torch isn't imported.

The rules are those of the motors' own code: how they hold weights, what they keep while they look and read. The native
scratch follows kernels.c; that of torch was measured. tests/test_memory.py holds them to real processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..checkpoint import TensorEntry
from ..checkpoint.quantised import logical_shape
from ..checkpoint.shapes import EMBEDDINGS, HEAD
from ..config import SmolVLMConfig
from .bindings import BF16, F32, GROUP, INT4, INT8, PANEL, SOURCES
from .packing import MODES, QUANTISED, packed_format

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
STORED_AS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
PACKED_BITS = {F32: 32, BF16: 16, INT8: 8, INT4: 4}
CPU_PATCHES_AT_ONCE = 1024  # that torch looks at: more leave the processor's cache
GPU_PATCHES_AT_ONCE = 17 * 1024  # the largest picture as a whole
# Code and tables that a runtime's libraries take when they first work, measured on Linux.
FIRST_RUN = {"native": 2 * 2**20, "torch": 32 * 2**20, "onnx": 16 * 2**20}
# Slots of a slab have a power of two tokens, so that requests of like lengths share it; it begins with so many rows.
SMALLEST_SLOT, FIRST_ROWS = 256, 2
TOKENS_AT_ONCE = 1024  # of a prompt, see generation/engine.py


@dataclass(frozen=True)
class Working:
    """Bytes that a motor takes beside its weights.

    libraries: from its first run on. vision: while it looks at tiles, however many. reading: while it reads a prompt.
    slot: keys and values of prompt and answer. features: of one tile.
    """

    libraries: int
    vision: int
    reading: int
    slot: int
    features: int


def weight_bytes(
    runtime: str, config: SmolVLMConfig, entries: Mapping[str, TensorEntry], dtype: str
) -> tuple[int, int]:
    """(bytes of the weights as a motor holds them, bytes that are beside them at most while they are read).

    entries: the tensors of the checkpoint, without scales. What torch leaves in the mapped file counts, too.
    """
    if runtime == "native":
        return _native_weights(config, entries, dtype)
    kept = [math.prod(logical_shape(name, entry)) * ITEM_BYTES[dtype] for name, entry in entries.items()]
    casts = any(STORED_AS.get(entry.dtype) != dtype for entry in entries.values())
    if not casts:  # rows of the table of embeddings come into memory when they are used
        tied = config.tie_word_embeddings
        kept = [size for name, size in zip(entries, kept, strict=True) if name != EMBEDDINGS or tied]
    return sum(kept), max(entry.num_bytes for entry in entries.values()) if casts else 0


def working(
    runtime: str, config: SmolVLMConfig, dtype: str, prompt_tokens: int, tokens: int, *, on_gpu: bool = False
) -> Working:
    """What a request takes. tokens: of prompt and answer together. on_gpu: as much of torch's as lies there."""
    at_once = min(prompt_tokens, TOKENS_AT_ONCE)
    text = config.text_config
    features = 4 * config.image_seq_len * text.hidden_size
    if runtime == "native":
        vision, reading = _native_scratch(config, dtype, at_once)
        return Working(FIRST_RUN[runtime], vision, reading, native_slot(config, dtype, tokens), features)
    item = ITEM_BYTES.get(dtype, 4)  # of activations
    # Measured: two rows of the MLP's width and eight of the tower's are alive at a time; a prompt's logits are one row.
    tower, patches = config.vision_config, config.vision_config.patches_per_side**2
    patches *= max(1, (GPU_PATCHES_AT_ONCE if on_gpu else CPU_PATCHES_AT_ONCE) // patches)
    vision = patches * item * (2 * tower.intermediate_size + 8 * tower.hidden_size)
    reading = at_once * item * (3 * text.intermediate_size + 10 * text.hidden_size) + 8 * text.vocab_size
    return Working(FIRST_RUN[runtime], vision, reading, FIRST_ROWS * slab_row(config, item, tokens), features)


def slab_size(tokens: int) -> int:
    """Tokens of the slots that a slab of torch or onnx has for a sequence of so many."""
    return max(SMALLEST_SLOT, 1 << (tokens - 1).bit_length())


def slab_row(config: SmolVLMConfig, item_bytes: int, tokens: int) -> int:
    """Bytes of one row of a slab: keys and values, and one place to spare."""
    text = config.text_config
    return (slab_size(tokens) + 1) * 2 * text.num_hidden_layers * text.kv_heads * text.head_size * item_bytes


def native_slot(config: SmolVLMConfig, dtype: str, tokens: int) -> int:
    """As cache_bytes of kernels.c: keys and values in panels of 64 tokens, values filled up to whole panels, too."""
    text = config.text_config
    each = text.head_size + _up(text.head_size)
    return text.num_hidden_layers * text.kv_heads * each * _up(tokens) * (4 if MODES[dtype].text == F32 else 2)


def _native_weights(config: SmolVLMConfig, entries: Mapping[str, TensorEntry], dtype: str) -> tuple[int, int]:
    mode, kept, most = MODES[dtype], 0, 0
    head = EMBEDDINGS if config.tie_word_embeddings else HEAD
    for name, entry in entries.items():
        shape = logical_shape(name, entry)
        if name == EMBEDDINGS and head == HEAD:
            continue  # stays in the file: the few rows that are used come into memory
        is_text = name == head or name.startswith("model.text_model.layers.")
        if len(shape) < 2 or "position_embedding" in name:
            kept += 4 * math.prod(shape)
            continue
        whole = name.startswith(("model.connector.", "model.vision_model.embeddings."))  # never below bf16
        wanted = mode.text if is_text else min(mode.vision, BF16) if whole else mode.vision
        outputs, inputs = shape[0], math.prod(shape[1:])
        form = packed_format(wanted, inputs, mode.int8_inputs and not is_text)
        kept += _packed(outputs, inputs, form)
        # Pages of the tensor that is being packed; one that must change its format first is there as float32, too.
        changes = entry.dtype not in SOURCES or QUANTISED.get(entry.dtype, form) != form
        most = max(most, entry.num_bytes + (8 * math.prod(shape) if changes else 0))
    return kept, most


def _packed(outputs: int, inputs: int, form: int) -> int:
    scales = {INT8: 4, INT4: 2 * inputs // GROUP}.get(form, 0)
    return _up(outputs) * (inputs * PACKED_BITS[form] // 8 + scales)


def _native_scratch(config: SmolVLMConfig, dtype: str, tokens: int) -> tuple[int, int]:
    """(vision, reading), as see_tile and read_tokens of kernels.c take it. Slabs are touched only as far as used."""
    vision, text, mode = config.vision_config, config.text_config, MODES[dtype]
    item = 4 if mode.vision == F32 else 2
    heads, patches = vision.num_attention_heads, vision.patches_per_side**2
    head_dim = vision.hidden_size // heads
    rows = max(vision.hidden_size, 3 * vision.patch_size**2) + max(vision.intermediate_size, vision.hidden_size)
    cache = _up(patches) * heads * (head_dim + _up(head_dim)) * item
    looking = patches * (4 * vision.hidden_size + item * (rows + 3 * vision.hidden_size)) + cache
    looking += patches * vision.intermediate_size if mode.int8_inputs else 0
    queries = text.num_attention_heads * text.head_size
    wide = max(text.hidden_size, queries) + max(text.intermediate_size, queries)
    own = 4 * (3 * text.hidden_size + queries + 2 * text.kv_heads * text.head_size + text.head_size)
    item = 4 if mode.text == F32 else 2
    return looking, tokens * (own + item * (wide + queries)) + 8 * text.vocab_size


def _up(count: int) -> int:
    return -(-count // PANEL) * PANEL
