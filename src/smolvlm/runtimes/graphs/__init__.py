"""The model as ONNX graphs, written node by node from a checkpoint. Needs the package onnx, and no torch.

Three parts, as transformers.js loads them: embed_tokens, vision_encoder and decoder_model_merged. The last two have a
second form for our own motor, some kilobytes beside the weights that both share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import ConfigError, MissingDependencyError

SUBFOLDER = "onnx"  # of an export, where transformers.js looks
EMBEDDINGS, VISION, DECODER = "embed_tokens", "vision_encoder", "decoder_model_merged"
OWN = {VISION: "motor_vision", DECODER: "motor_decoder"}  # the second forms
CURE = "pip install 'smolvlm[onnx]'"


@dataclass(frozen=True)
class Form:
    """How graphs hold matrices. suffix: of their files. text_bits, vision_bits: 0 are floats. half: float16."""

    suffix: str
    text_bits: int = 0
    vision_bits: int = 0
    half: bool = False


# Names and suffixes are transformers.js'. 4 bits are for the text model alone: what is seen suffers more from rounding.
FORMS = {
    "fp32": Form(""),
    "fp16": Form("_fp16", half=True),
    "q8": Form("_quantized", text_bits=8, vision_bits=8),
    "q4": Form("_q4", text_bits=4, vision_bits=8),
    "q4f16": Form("_q4f16", text_bits=4, vision_bits=8, half=True),
}


def write_graphs(
    checkpoint: Path,
    folder: Path,
    dtype: str,
    *,
    portable: bool = True,
    adapter: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write the graphs of a checkpoint directory into a folder. Returns file name -> how many files hold its weights.

    dtype: a key of FORMS. portable=False leaves out what others than our motor need. adapter: a directory, merged into
    the weights. progress: called with (bytes done, bytes in all) of the checkpoint. Raises ConfigError,
    CheckpointError, MissingDependencyError.
    """
    try:
        from .graph import Graph, WeightFile
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"ONNX graphs are written with the package onnx: {CURE}.") from error
    from .text import decoder_graph, embedding_graph
    from .vision import vision_graph
    from .weights import Source

    form, source = FORMS[dtype], Source(checkpoint, adapter, progress)
    if callable(source.config.vision_config.hidden_act) or callable(source.config.text_config.hidden_act):
        raise ConfigError("hidden_act is a function, which no graph can hold: use the name of one.")
    builders: dict[str, dict[str, Callable[[Graph, Source, Form], None]]] = {
        EMBEDDINGS: {EMBEDDINGS: embedding_graph},
        VISION: {VISION: partial(vision_graph, portable=True), OWN[VISION]: partial(vision_graph, portable=False)},
        DECODER: {DECODER: partial(decoder_graph, portable=True), OWN[DECODER]: partial(decoder_graph, portable=False)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    chunks: dict[str, int] = {}
    for part, graphs in builders.items():
        with WeightFile(folder, part + form.suffix) as weights:
            for name, build in graphs.items():
                if portable or name not in OWN:
                    graph = Graph(weights, half=form.half)
                    build(graph, source, form)
                    graph.save(folder / f"{name}{form.suffix}.onnx")
            chunks[f"{part}{form.suffix}.onnx"] = weights.chunks
    return chunks
