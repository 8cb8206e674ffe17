"""The vision tower and the connector as a graph, in two forms over the same weights.

portable: standard operators; takes padded tiles and masks, as transformers.js gives them. Otherwise: whole tiles only,
and the attention of ONNX Runtime. Parity with model/vision.py: tests/test_graphs.py.
"""

from __future__ import annotations

import numpy as np

from ...config import SmolVLMVisionConfig
from . import Form
from .graph import BOOL, FLOAT, INT64, MICROSOFT, Graph
from .weights import Source, linear, vector

TOWER = "model.vision_model"
PATCHES = "patches"  # what the tower gives and the connector takes, by this name in the graph
HIDDEN = np.float32(-1e30)  # what is added to the scores of keys that aren't looked at
LARGEST = np.float32(1 - 1e-6)  # of a coordinate, as the reference clamps it


def vision_graph(graph: Graph, source: Source, form: Form, *, portable: bool) -> None:
    """Pixels in, image_features (real tiles, image tokens, hidden) out."""
    config, side = source.config.vision_config, source.config.vision_config.image_size
    mask = None
    if portable:
        pixels, mask = _real_tiles(graph, config)
        positions, key_bias = _masked_positions(graph, config, mask)
    else:
        pixels = graph.input("pixel_values", FLOAT, "num_tiles", config.num_channels, side, side)
        positions, key_bias = graph.constant(whole_positions(config.patches_per_side)), None
    x = _embed(graph, source, pixels, positions)  # (tiles, patches, hidden)
    for index in range(config.num_hidden_layers):
        x = _layer(graph, source, f"{TOWER}.encoder.layers.{index}", x, key_bias, form.vision_bits, portable)
    x = _norm(graph, source, f"{TOWER}.post_layernorm", x)
    graph.rename(x, PATCHES)
    x = _connect(graph, source, x, form.vision_bits)
    tokens, hidden = source.config.image_seq_len, source.config.text_config.hidden_size
    graph.output(x, "image_features", FLOAT, "num_tiles", tokens, hidden)


def _real_tiles(graph: Graph, config: SmolVLMVisionConfig) -> tuple[str, str]:
    """Inputs (batch, tiles, ...) -> pixels (real tiles, 3, side, side) and mask (real tiles, side, side).

    Tiles that are all zero are padding and left out; when all are, the first counts as real, as in the reference.
    """
    side, channels = config.image_size, config.num_channels
    pixels = graph.input("pixel_values", FLOAT, "batch_size", "num_images", channels, side, side)
    mask = graph.input("pixel_attention_mask", BOOL, "batch_size", "num_images", side, side)
    pixels = graph.reshape(pixels, -1, channels, side, side)
    size = graph.op("ReduceMax", graph.op("Abs", pixels), graph.constant([1, 2, 3]), keepdims=0)  # (tiles,)
    zero = graph.constant(0, np.float32)
    none = graph.op("Equal", graph.op("ReduceMax", size, keepdims=0), zero)
    numbers = graph.op("Range", graph.constant(0), graph.op("Size", size), graph.constant(1))
    first = graph.op("Equal", numbers, graph.constant(0))
    real = graph.op("Or", graph.op("Greater", size, zero), graph.op("And", first, none))
    mask = graph.reshape(mask, -1, side, side)
    return graph.op("Compress", pixels, real, axis=0), graph.op("Compress", mask, real, axis=0)


def _masked_positions(graph: Graph, config: SmolVLMVisionConfig, mask: str) -> tuple[str, str]:
    """(tiles, side, side) bool -> position ids (tiles, patches), and what is added to scores (tiles, 1, 1, patches)."""
    grid, patch = config.patches_per_side, config.patch_size
    pixels = graph.op("Cast", graph.reshape(mask, 0, 1, config.image_size, config.image_size), to=FLOAT)
    patches = graph.op("MaxPool", pixels, kernel_shape=[patch, patch], strides=[patch, patch])  # (tiles, 1, rows, cols)
    patches = graph.reshape(patches, 0, grid, grid)  # a patch is real when any of its pixels is
    rows = _buckets(graph, graph.op("Gather", patches, graph.constant(0), axis=2), grid)  # (tiles, rows)
    columns = _buckets(graph, graph.op("Gather", patches, graph.constant(0), axis=1), grid)  # (tiles, columns)
    rows = graph.op("Mul", graph.reshape(rows, 0, grid, 1), graph.constant(grid))
    ids = graph.op("Add", rows, graph.reshape(columns, 0, 1, grid))  # (tiles, rows, columns)
    real = graph.op("Cast", graph.reshape(patches, 0, grid * grid), to=BOOL)
    ids = graph.op("Where", real, graph.reshape(ids, 0, grid * grid), graph.constant(0))
    key_bias = graph.op("Where", real, graph.constant(0, np.float32), graph.constant(HIDDEN, np.float32))
    return ids, graph.reshape(key_bias, 0, 1, 1, grid * grid)


def _buckets(graph: Graph, line: str, grid: int) -> str:
    """1 for real patches along a side, (tiles, grid) -> which of the learned positions each takes, (tiles, grid)."""
    count = graph.op("ReduceSum", line, graph.constant([1]))  # (tiles, 1)
    step = graph.op("Div", graph.constant(1, np.float32), count)
    coordinates = graph.op("Mul", step, graph.constant(np.arange(grid), np.float32))  # (tiles, grid)
    coordinates = graph.op("Min", coordinates, graph.constant(LARGEST, np.float32))
    passed = graph.op(
        "GreaterOrEqual", graph.reshape(coordinates, 0, grid, 1), graph.constant(boundaries(grid), np.float32)
    )
    return graph.op("ReduceSum", graph.op("Cast", passed, to=INT64), graph.constant([2]), keepdims=0)


def boundaries(grid: int) -> np.ndarray:
    """Where the buckets of positions end, (grid - 1,) float32.

    torch.arange rounds some of them by the width of the processor's vectors: for sides of 19, 25 and some larger ones,
    which no released model has, a few patches take other positions there.
    """
    return (np.arange(1, grid) * (1 / grid)).astype(np.float32)


def whole_positions(grid: int) -> np.ndarray:
    """Position ids of a tile without padding, (patches,)."""
    coordinates = np.minimum(np.arange(grid, dtype=np.float32) * (np.float32(1) / np.float32(grid)), LARGEST)
    line = (coordinates[:, None] >= boundaries(grid)).sum(axis=1)
    return (line[:, None] * grid + line).reshape(-1)


def _embed(graph: Graph, source: Source, pixels: str, positions: str) -> str:
    name, config = f"{TOWER}.embeddings", source.config.vision_config
    patch, hidden, patches = config.patch_size, config.hidden_size, config.patches_per_side**2
    weight = vector(graph, source, f"{name}.patch_embedding.weight")
    bias = vector(graph, source, f"{name}.patch_embedding.bias")
    x = graph.op("Conv", pixels, weight, bias, kernel_shape=[patch, patch], strides=[patch, patch])
    x = graph.op("Transpose", graph.reshape(x, 0, hidden, patches), perm=[0, 2, 1])  # (tiles, patches, hidden)
    table = vector(graph, source, f"{name}.position_embedding.weight")
    return graph.op("Add", x, graph.op("Gather", table, positions))


def _norm(graph: Graph, source: Source, name: str, x: str) -> str:
    weight, bias = (vector(graph, source, f"{name}.{part}") for part in ("weight", "bias"))
    return graph.op("LayerNormalization", x, weight, bias, epsilon=source.config.vision_config.layer_norm_eps)


def _layer(graph: Graph, source: Source, name: str, x: str, key_bias: str | None, bits: int, portable: bool) -> str:
    config = source.config.vision_config
    normed = graph.into_matrices(_norm(graph, source, f"{name}.layer_norm1", x))
    names = [f"{name}.self_attn.{part}_proj" for part in ("q", "k", "v")]
    parts = graph.split(linear(graph, source, normed, names, bits), *[config.hidden_size] * 3)
    if portable:
        attended = _attend(graph, parts, config, key_bias)
    else:
        attended = graph.op("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=config.num_attention_heads)
    attended = linear(graph, source, attended, [f"{name}.self_attn.out_proj"], bits)
    x = graph.op("Add", x, graph.out_of_matrices(attended))
    normed = graph.into_matrices(_norm(graph, source, f"{name}.layer_norm2", x))
    inner = graph.activation(linear(graph, source, normed, [f"{name}.mlp.fc1"], bits), str(config.hidden_act))
    return graph.op("Add", x, graph.out_of_matrices(linear(graph, source, inner, [f"{name}.mlp.fc2"], bits)))


def _attend(graph: Graph, parts: list[str], config: SmolVLMVisionConfig, key_bias: str | None) -> str:
    """Softmax attention of standard operators. parts: queries, keys, values (tiles, patches, hidden)."""
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    split = [graph.reshape(part, 0, 0, heads, size) for part in parts]  # (tiles, patches, heads, head_dim)
    query, value = (graph.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (split[0], split[2]))
    key = graph.op("Transpose", split[1], perm=[0, 2, 3, 1])  # (tiles, heads, head_dim, patches)
    query = graph.op("Mul", query, graph.constant(size**-0.5, graph.number))
    scores = graph.out_of_matrices(graph.op("MatMul", query, key))  # (tiles, heads, patches, patches)
    if key_bias is not None:
        scores = graph.op("Add", scores, key_bias)
    shares = graph.into_matrices(graph.op("Softmax", scores, axis=-1))
    x = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    return graph.reshape(x, 0, 0, config.hidden_size)


def _connect(graph: Graph, source: Source, x: str, bits: int) -> str:
    """Pixel shuffle and projection: (tiles, patches, vision hidden) -> (tiles, image tokens, text hidden)."""
    hidden, scale = source.config.vision_config.hidden_size, source.config.scale_factor
    across = source.config.vision_config.patches_per_side // scale
    x = graph.reshape(x, 0, across, scale, across, scale * hidden)
    x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4])  # (tiles, token row, token column, row in block, ...)
    x = graph.into_matrices(graph.reshape(x, 0, across**2, scale * scale * hidden))
    return graph.out_of_matrices(linear(graph, source, x, ["model.connector.modality_projection.proj"], bits))
