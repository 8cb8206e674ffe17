"""The exported graphs, fed as transformers.js feeds them: pixel masks, positions, a cache that grows. For verifying.

One sequence at a time, and only what parity.py needs of a motor: encode, open, forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ..config import SmolVLMConfig
from ..runtimes.graphs import DECODER, EMBEDDINGS, FORMS, VISION
from ..runtimes.graphs.vision import PATCHES
from ..runtimes.machine import usable_cores
from ..runtimes.motor import Slot, Span
from ..runtimes.onnx import DTYPES, require

FOLDER = "session.model_external_initializers_file_folder_path"


class PortableGraphs:
    """dtype: a name in runtimes.onnx.DTYPES. Raises ConfigError, CheckpointError for one that isn't there."""

    name = "graphs"

    def __init__(self, directory: Path, dtype: str) -> None:
        self.config, self.dtype = SmolVLMConfig.from_file(directory / "config.json"), dtype
        self._folder, self._suffix = require(directory, dtype), FORMS[DTYPES[dtype]].suffix
        self._embeddings, self._vision, self._decoder = (self._session(one) for one in (EMBEDDINGS, VISION, DECODER))

    def _session(self, name: str) -> Any:
        """A graph; that of the vision tower also gives what the tower hands to the connector."""
        model = onnx.load(self._folder / f"{name}{self._suffix}.onnx", load_external_data=False)
        if name == VISION:
            model.graph.output.append(onnx.helper.make_tensor_value_info(PATCHES, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = usable_cores(), 3
        options.add_session_config_entry(FOLDER, str(self._folder))
        return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def look(self, pixel_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tiles, 3, side, side) -> patches (tiles, patches, hidden) and features (tiles, image tokens, hidden)."""
        mask = np.ones((1, len(pixel_values), *pixel_values.shape[2:]), bool)
        feeds = {"pixel_values": pixel_values[None], "pixel_attention_mask": mask}
        return self._vision.run([PATCHES, "image_features"], feeds)

    def encode(self, pixel_values: np.ndarray) -> np.ndarray:
        return self.look(pixel_values)[1]

    def open(self, tokens: int) -> Slot:
        """An empty cache, made of what the graph says about its inputs."""
        empty = {
            one.name: np.zeros(
                [1 if size == "batch_size" else size if isinstance(size, int) else 0 for size in one.shape],
                np.float16 if one.type == "tensor(float16)" else np.float32,
            )
            for one in self._decoder.get_inputs()
            if one.name.startswith("past_key_values")
        }
        return Slot(tokens, empty)

    def forward(self, spans: Sequence[Span], wanted: Sequence[int]) -> np.ndarray:
        """Logits (wanted, vocabulary) of one span."""
        (span,) = spans
        slot, count = span.slot, len(span.ids)
        ids = np.asarray(span.ids, np.int64)
        x = self._embeddings.run(None, {"input_ids": ids[None]})[0]  # (1, tokens, hidden)
        if span.pictures is not None:
            x[0, ids == self.config.image_token_id] = span.pictures
        keep = count - min(wanted)
        feeds = {
            "inputs_embeds": x,
            "attention_mask": np.ones((1, slot.length + count), np.int64),
            "position_ids": np.arange(slot.length, slot.length + count)[None],
            "num_logits_to_keep": np.array(keep, np.int64),
            **slot.memory,
        }
        names = [name.replace("past_key_values", "present") for name in slot.memory]
        logits, *presents = self._decoder.run(["logits", *names], feeds)
        slot.memory = dict(zip(slot.memory, presents, strict=True))
        slot.length += count
        return logits[0, [place - (count - keep) for place in wanted]]
