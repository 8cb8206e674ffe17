"""The rows of onnxruntime in peers.py: bare graphs with GroupQueryAttention and MatMulNBits, no package around them.

The text graphs are those of `smolvlm export onnx`; keys and values lie in one buffer that is read and written in place.
Vision is the float graph after onnxruntime's own quantize_dynamic, twice as fast as 8-bit weights alone. The rows are
sums of components: pixels and token ids are made beforehand, and the likeliest token is all that is chosen.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from peer import NEW_TOKENS, PICTURE, QUESTION, drive, greedy, row, settings, timed

INPUTS, VISION = "inputs.npz", "vision-int8.onnx"
FLOAT = 1  # in ONNX
SUFFIXES = {"q8": "_quantized", "q4": "_q4"}


def export(directory: Path, dtype: str) -> Path:
    return directory / f"export-{dtype}"


def prepare(directory: Path, dtype: str) -> None:
    """Write graphs and inputs. Runs in the environment of smolvlm."""
    import numpy as np
    from onnxruntime.quantization import QuantType, quantize_dynamic

    import smolvlm
    from smolvlm.export import export_onnx

    for one in (dtype, "fp32"):
        if not export(directory, one).exists():
            export_onnx(directory, export(directory, one), [one])
    if not (directory / VISION).exists():
        quantize_dynamic(
            str(export(directory, "fp32") / "onnx" / "motor_vision.onnx"), str(directory / VISION),
            weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], extra_options={"DefaultTensorType": FLOAT},
        )  # fmt: skip
    content = [{"type": "image", "image": str(directory / PICTURE)}, {"type": "text", "text": QUESTION}]
    processor = smolvlm.SmolVLMProcessor.from_pretrained(directory)
    inputs = processor.prepare([{"role": "user", "content": content}], detail="high")
    assert inputs.pixel_values is not None, "there is a picture"
    np.savez(directory / INPUTS, ids=inputs.input_ids, pixels=inputs.pixel_values)


class Model:
    """Three sessions and the buffers of one sequence."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        graphs, suffix = export(directory, dtype) / "onnx", SUFFIXES[dtype]
        files = (graphs / f"embed_tokens{suffix}.onnx", directory / VISION, graphs / f"motor_decoder{suffix}.onnx")
        self.embed, self.vision, self.decoder = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files
        )
        config, given = settings(directory), np.load(directory / INPUTS)
        self.ids, self.pixels, self.image_token = given["ids"], given["pixels"], config["image_token_id"]
        text, room = config["text_config"], len(self.ids) + NEW_TOKENS
        shape = (1, text["num_key_value_heads"], room, text["head_dim"])
        names = [one.name for one in self.decoder.get_inputs() if one.name.startswith("past_key_values")]
        self.caches = {name: np.zeros(shape, np.float32) for name in names}
        self.length = 0

    def look(self) -> Any:
        """Features of all tiles, one tile at a time, which is quickest on few cores."""
        import numpy as np

        return np.concatenate([self.vision.run(None, {"pixel_values": tile[None]})[0] for tile in self.pixels])

    def read(self, x: Any) -> int:
        """Read embeddings (1, tokens, hidden) after what was read before. Returns the likeliest next token."""
        import numpy as np

        count, end = x.shape[1], self.length + x.shape[1]
        feeds = {
            "inputs_embeds": x, "last_places": np.array([end - 1], np.int32), "longest": np.array([end], np.int32),
            "position_ids": np.arange(self.length, end)[None], "wanted": np.array([count - 1]),
        }  # fmt: skip
        binding = self.decoder.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, cache in self.caches.items():
            place = ("cpu", 0, np.float32, cache.shape, cache.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(name.replace("past_key_values", "present"), *place)
        binding.bind_output("logits", "cpu")
        self.decoder.run_with_iobinding(binding)
        self.length = end
        return int(binding.get_outputs()[-1].numpy().argmax())

    def embeddings(self, ids: Any) -> Any:
        return self.embed.run(None, {"input_ids": ids[None]})[0]

    def ask(self) -> tuple[float, float]:
        """Seconds to the first and to the last token."""
        import numpy as np

        start = time.perf_counter()
        self.length = 0
        features, x = self.look(), self.embeddings(self.ids)
        x[0, self.ids == self.image_token] = features.reshape(-1, x.shape[-1])
        token = self.read(x)
        first = time.perf_counter() - start
        greedy(lambda token: self.read(self.embeddings(np.array([token]))), token)
        return first, time.perf_counter() - start


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    model = Model(directory, dtype, threads)
    model.ask()
    if cold:
        return {}
    return row(timed(model.look), *model.ask())


if __name__ == "__main__":
    drive(answer, prepare)
