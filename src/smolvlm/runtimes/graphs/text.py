"""The table of embeddings and the decoder as graphs, the decoder in two forms over the same weights.

portable: standard operators and a cache that grows by concatenation, as transformers.js drives it. Otherwise: ONNX
Runtime's attention over buffers that are written in place. Parity with model/text.py: tests/test_graphs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...checkpoint.shapes import EMBEDDINGS, HEAD
from ...config import SmolVLMTextConfig
from . import Form
from .graph import BOOL, FLOAT, INT32, INT64, MICROSOFT, Graph
from .vision import HIDDEN
from .weights import Source, linear, vector

LAYERS = "model.text_model.layers"
ROTARY_MULTIPLE = 16  # of head_dim, that ONNX Runtime's attention can turn by itself
END = np.iinfo(np.int64).max
Attention = Callable[[int, str], str]  # (layer, queries, keys and values side by side) -> (batch, tokens, all heads)


def embedding_graph(graph: Graph, source: Source, form: Form) -> None:
    """Token ids in, rows of the table out: float16, or 8 bits and a scale a row, where matrices are."""
    ids = graph.input("input_ids", INT64, "batch_size", "sequence_length")
    table = source.floats(EMBEDDINGS)
    if form.text_bits:
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
        graph.weights.add(EMBEDDINGS, np.rint(table / scale).astype(np.int8))
        graph.weights.add(f"{EMBEDDINGS}_scale", scale)
        rows = graph.op("Cast", graph.op("Gather", graph.weight(EMBEDDINGS), ids), to=FLOAT)
        x = graph.op("Mul", rows, graph.op("Gather", graph.weight(f"{EMBEDDINGS}_scale"), ids))
    else:
        graph.weights.add(EMBEDDINGS, table.astype(graph.number, copy=False))
        x = graph.out_of_matrices(graph.op("Gather", graph.weight(EMBEDDINGS), ids))
    graph.output(x, "inputs_embeds", FLOAT, "batch_size", "sequence_length", table.shape[1])


def decoder_graph(graph: Graph, source: Source, form: Form, *, portable: bool) -> None:
    """Embeddings and a cache in, logits and the cache out: of the last tokens, or of the places that are wanted."""
    config = source.config.text_config
    x = graph.input("inputs_embeds", FLOAT, "batch_size", "sequence_length", config.hidden_size)
    attend = _portable_attention(graph, config, x) if portable else _attention_in_place(graph, config)
    for index in range(config.num_hidden_layers):
        x = _layer(graph, source, index, x, attend, form.text_bits)
    x = _norm(graph, source, "model.text_model.norm", x)
    if portable:
        count = graph.input("num_logits_to_keep", INT64)  # 0 keeps all
        start = graph.reshape(graph.op("Neg", count), 1)
        x = graph.op("Slice", x, start, graph.constant([END]), graph.constant([1]))
    else:
        wanted = graph.input("wanted", INT64, "wanted")  # places among all tokens of all rows
        x = graph.op("Gather", graph.reshape(x, -1, config.hidden_size), wanted)
    head = EMBEDDINGS if source.config.tie_word_embeddings else HEAD
    logits = linear(graph, source, graph.into_matrices(x), [head.removesuffix(".weight")], form.text_bits)
    shape = ("batch_size", "logits_length") if portable else ("wanted",)
    graph.output(graph.out_of_matrices(logits), "logits", FLOAT, *shape, config.vocab_size)


def _layer(graph: Graph, source: Source, index: int, x: str, attend: Attention, bits: int) -> str:
    name, config = f"{LAYERS}.{index}", source.config.text_config
    normed = graph.into_matrices(_norm(graph, source, f"{name}.input_layernorm", x))
    packed = linear(graph, source, normed, [f"{name}.self_attn.{part}_proj" for part in ("q", "k", "v")], bits)
    attended = linear(graph, source, attend(index, packed), [f"{name}.self_attn.o_proj"], bits)
    x = graph.op("Add", x, graph.out_of_matrices(attended))
    normed = graph.into_matrices(_norm(graph, source, f"{name}.post_attention_layernorm", x))
    both = linear(graph, source, normed, [f"{name}.mlp.{part}_proj" for part in ("gate", "up")], bits)
    gate, up = graph.split(both, *[config.intermediate_size] * 2)
    inner = graph.op("Mul", graph.activation(gate, str(config.hidden_act)), up)
    return graph.op("Add", x, graph.out_of_matrices(linear(graph, source, inner, [f"{name}.mlp.down_proj"], bits)))


def _norm(graph: Graph, source: Source, name: str, x: str) -> str:
    """RMSNorm in the very steps that ONNX Runtime joins into one operator of its own."""
    square = graph.op("Pow", x, graph.constant(2, np.float32))
    mean = graph.op("ReduceMean", square, graph.constant([-1]), keepdims=1)
    epsilon = graph.constant(source.config.text_config.rms_norm_eps, np.float32)
    root = graph.op("Sqrt", graph.op("Add", mean, epsilon))
    return graph.op("Mul", graph.op("Div", x, root), vector(graph, source, f"{name}.weight"))


# ---- attention ----


def _caches(graph: Graph, config: SmolVLMTextConfig, length: str) -> list[tuple[str, str]]:
    """The inputs that hold the keys and values of each layer, (batch, kv_heads, tokens, head_dim)."""
    shape = ("batch_size", config.kv_heads, length, config.head_size)
    return [
        (graph.input(f"past_key_values.{index}.key", graph.kind, *shape),
         graph.input(f"past_key_values.{index}.value", graph.kind, *shape))
        for index in range(config.num_hidden_layers)
    ]  # fmt: skip


def _give_back(graph: Graph, config: SmolVLMTextConfig, layer: int, presents: Sequence[str], length: str) -> None:
    for part, value in zip(("key", "value"), presents, strict=True):
        shape = ("batch_size", config.kv_heads, length, config.head_size)
        graph.output(value, f"present.{layer}.{part}", graph.kind, *shape)


def _turns(graph: Graph, config: SmolVLMTextConfig) -> tuple[str, str]:
    """cos and sin of every position, (positions + 1, head_dim / 2): idle rows that are full write one place behind."""
    exponents = np.arange(0, config.head_size, 2, dtype=np.float32) / np.float32(config.head_size)
    inverse = 1 / np.float32(config.rope_theta) ** exponents
    angles = np.arange(config.max_position_embeddings + 1, dtype=np.float32)[:, None] * inverse
    for name, function in (("cos", np.cos), ("sin", np.sin)):
        if name not in graph.weights:
            graph.weights.add(name, function(angles).astype(graph.number))
    return graph.weight("cos"), graph.weight("sin")


def _rotate(graph: Graph, x: str, positions: str, config: SmolVLMTextConfig) -> str:
    """Turn (batch, heads, tokens, head_dim) by its positions (batch, tokens); halves of head_dim are the pairs."""
    cos, sin = (
        graph.op("Unsqueeze", graph.op("Gather", table, positions), graph.constant([1]))
        for table in _turns(graph, config)
    )  # (batch, 1, tokens, head_dim / 2)
    first, second = graph.split(x, *[config.head_size // 2] * 2)
    turned = (
        graph.op("Sub", graph.op("Mul", first, cos), graph.op("Mul", second, sin)),
        graph.op("Add", graph.op("Mul", second, cos), graph.op("Mul", first, sin)),
    )
    return graph.op("Concat", *turned, axis=-1)


def _turned_heads(graph: Graph, packed: str, positions: str, config: SmolVLMTextConfig) -> tuple[str, str, str]:
    """Queries, keys, values (batch, heads, tokens, head_dim), the first two turned by their positions."""
    heads, kv_heads = config.num_attention_heads, config.kv_heads
    x = graph.reshape(packed, 0, 0, heads + 2 * kv_heads, config.head_size)
    x = graph.op("Transpose", x, perm=[0, 2, 1, 3])  # (batch, heads, tokens, head_dim)
    turning, value = graph.split(x, heads + kv_heads, kv_heads, axis=1)
    query, key = graph.split(_rotate(graph, turning, positions, config), heads, kv_heads, axis=1)
    return query, key, value


def _portable_attention(graph: Graph, config: SmolVLMTextConfig, x: str) -> Attention:
    mask = graph.input("attention_mask", INT64, "batch_size", "total_sequence_length")
    positions = graph.input("position_ids", INT64, "batch_size", "sequence_length")
    caches = _caches(graph, config, "past_sequence_length")
    bias = _causal_bias(graph, x, mask)  # (batch, 1, 1, new, all)
    heads, kv_heads, size = config.num_attention_heads, config.kv_heads, config.head_size
    new = graph.op("Shape", x, start=1, end=2)
    batch = graph.op("Shape", x, start=0, end=1)
    groups = graph.op(
        "Concat", batch, graph.constant([kv_heads, heads // kv_heads]), new, graph.constant([size]), axis=0
    )
    joined = graph.op("Concat", batch, graph.constant([heads]), new, graph.constant([size]), axis=0)

    def attend(index: int, packed: str) -> str:
        query, key, value = _turned_heads(graph, packed, positions, config)
        key, value = (
            graph.op("Concat", past, fresh, axis=2) for past, fresh in zip(caches[index], (key, value), strict=True)
        )
        _give_back(graph, config, index, (key, value), "total_sequence_length")
        query = graph.op("Mul", query, graph.constant(size**-0.5, graph.number))
        query = graph.op("Reshape", query, groups)  # (batch, kv_heads, queries of a key head, new, head_dim)
        key = graph.op("Unsqueeze", graph.op("Transpose", key, perm=[0, 1, 3, 2]), graph.constant([2]))
        scores = graph.op("Add", graph.out_of_matrices(graph.op("MatMul", query, key)), bias)
        shares = graph.into_matrices(graph.op("Softmax", scores, axis=-1))
        out = graph.op("MatMul", shares, graph.op("Unsqueeze", value, graph.constant([2])))
        out = graph.op("Transpose", graph.op("Reshape", out, joined), perm=[0, 2, 1, 3])
        return graph.reshape(out, 0, 0, heads * size)

    return attend


def _causal_bias(graph: Graph, x: str, mask: str) -> str:
    """What is added to scores: 0 where a token may look, (batch, 1, 1, new, all)."""
    zero, one = graph.constant(0), graph.constant(1)
    new, total = (graph.op("Squeeze", graph.op("Shape", value, start=1, end=2)) for value in (x, mask))
    keys = graph.op("Range", zero, total, one)  # (all,)
    queries = graph.op("Range", graph.op("Sub", total, new), total, one)  # (new,)
    causal = graph.op("LessOrEqual", keys, graph.reshape(queries, -1, 1))  # (new, all)
    real = graph.op("Cast", graph.op("Unsqueeze", mask, graph.constant([1, 2, 3])), to=BOOL)
    seen = graph.op("And", causal, real)
    return graph.op("Where", seen, graph.constant(0, np.float32), graph.constant(HIDDEN, np.float32))


def _attention_in_place(graph: Graph, config: SmolVLMTextConfig) -> Attention:
    """Rows of one batch may have different lengths. past and present are one buffer, given twice."""
    last = graph.input("last_places", INT32, "batch_size")  # of each row's newest token
    total = graph.input("longest", INT32, 1)  # tokens of the longest row, new ones included
    positions = graph.input("position_ids", INT64, "batch_size", "sequence_length")
    caches = _caches(graph, config, "capacity")
    itself = config.head_size % ROTARY_MULTIPLE == 0
    heads, kv_heads, size = config.num_attention_heads, config.kv_heads, config.head_size

    def attend(index: int, packed: str) -> str:
        tables: tuple[str, ...] = _turns(graph, config) if itself else ()
        key = value = ""
        if not itself:
            parts = _turned_heads(graph, packed, positions, config)
            packed, key, value = (
                graph.reshape(graph.op("Transpose", part, perm=[0, 2, 1, 3]), 0, 0, count * size)
                for part, count in zip(parts, (heads, kv_heads, kv_heads), strict=True)
            )
        out, *presents = graph.ops(
            "GroupQueryAttention", [packed, key, value, *caches[index], last, total, *tables], 3, domain=MICROSOFT,
            num_heads=heads, kv_num_heads=kv_heads, do_rotary=int(itself),
        )  # fmt: skip
        _give_back(graph, config, index, presents, "capacity")
        return out

    return attend
