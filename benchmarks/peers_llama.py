"""The rows of llama.cpp in peers.py, through its own Python binding (llama-cpp-python) and its library of pictures.

GGUF files are written here with llama.cpp's package gguf: text and vision in float16; llama.cpp quantises the text
itself. Vision stays in float16: in 8 bits it was slower. Names of keys and tensors: llama.cpp's converter for Idefics3
and SmolVLM, and its loader clip.cpp.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peer import PICTURE, QUESTION, drive, greedy, read_tensors, row, settings, timed

FOLDER = "llama.cpp"
BATCH = 2048
TEXT_LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
VISION_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}  # fmt: skip
WHOLE = {
    "model.text_model.embed_tokens.weight": "token_embd.weight", "model.text_model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "model.vision_model.embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "model.vision_model.embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "model.vision_model.embeddings.position_embedding.weight": "v.position_embd.weight",
    "model.vision_model.post_layernorm.weight": "v.post_ln.weight",
    "model.vision_model.post_layernorm.bias": "v.post_ln.bias",
    "model.connector.modality_projection.proj.weight": "mm.model.fc.weight",
}  # fmt: skip


def prepare(directory: Path, dtype: str) -> None:
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    if not (folder / "vision.gguf").exists():
        write_text(directory, folder / "text-f16.gguf")
        write_vision(directory, folder / "vision.gguf")
    target = folder / f"text-{dtype}.gguf"
    if not target.exists():
        quantise(folder / "text-f16.gguf", target, dtype)


def quantise(source: Path, target: Path, dtype: str) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{dtype.upper()}")
    failed = llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters))
    assert not failed, f"llama.cpp could not quantise {source} to {dtype}"


def write_text(directory: Path, file: Path) -> None:
    import gguf

    text = settings(directory)["text_config"]
    writer = gguf.GGUFWriter(file, "llama")
    add_all(
        writer, context_length=text["max_position_embeddings"], embedding_length=text["hidden_size"],
        block_count=text["num_hidden_layers"], feed_forward_length=text["intermediate_size"],
        head_count=text["num_attention_heads"], head_count_kv=text["num_key_value_heads"],
        rope_dimension_count=text["head_dim"], rope_freq_base=text["rope_theta"],
        layer_norm_rms_eps=text["rms_norm_eps"], vocab_size=text["vocab_size"],
    )  # fmt: skip
    add_tokenizer(writer, directory)
    write_tensors(writer, directory, vision=False)


def add_all(writer: Any, **values: object) -> None:
    """Call the writer's add_NAME for each name."""
    for name, value in values.items():
        getattr(writer, f"add_{name}")(value)


def add_tokenizer(writer: Any, directory: Path) -> None:
    """The vocabulary, of GPT-2's kind. llama.cpp looks up tile tags and a double newline by their text."""
    import gguf

    whole = settings(directory, "tokenizer.json")
    texts = {number: text for text, number in whole["model"]["vocab"].items()}
    control = {token["id"]: token["content"] for token in whole["added_tokens"]}
    tokens = [(control | texts | control)[number] for number in range(len(texts | control))]
    kinds = [gguf.TokenType.CONTROL if number in control else gguf.TokenType.NORMAL for number in range(len(tokens))]
    add_all(
        writer, tokenizer_model="gpt2", tokenizer_pre="smollm", token_list=tokens, token_types=kinds,
        token_merges=[" ".join(merge) for merge in whole["model"]["merges"]], bos_token_id=1, pad_token_id=2,
        eos_token_id=len(tokens) - 1, add_bos_token=False,  # the last is <end_of_utterance>: never said
    )  # fmt: skip


def write_vision(directory: Path, file: Path) -> None:
    import gguf

    config = settings(directory)
    vision, pictures = config["vision_config"], settings(directory, "processor_config.json")["image_processor"]
    writer = gguf.GGUFWriter(file, "clip")
    add_all(
        writer, clip_has_vision_encoder=True, clip_projector_type="idefics3",
        vision_projection_dim=config["text_config"]["hidden_size"], vision_image_size=vision["image_size"],
        vision_patch_size=vision["patch_size"], vision_embedding_length=vision["hidden_size"],
        vision_feed_forward_length=vision["intermediate_size"], vision_block_count=vision["num_hidden_layers"],
        vision_head_count=vision["num_attention_heads"], vision_attention_layernorm_eps=vision["layer_norm_eps"],
        vision_image_mean=[0.5] * 3, vision_image_std=[0.5] * 3, vision_projector_scale_factor=config["scale_factor"],
        vision_preproc_image_size=pictures["size"]["longest_edge"], vision_use_gelu=True,
    )  # fmt: skip
    write_tensors(writer, directory, vision=True)


def write_tensors(writer: Any, directory: Path, *, vision: bool) -> None:
    """Matrices in float16, vectors, positions and patches in float32, as llama.cpp's converter stores them."""
    import gguf
    import numpy as np

    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, values in tensors(directory):
        if name.startswith(("v.", "mm.")) == vision:
            exact = values.ndim == 1 or "position" in name or "patch" in name
            writer.add_tensor(name, values if exact else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(directory: Path) -> Iterator[tuple[str, Any]]:
    """A checkpoint's tensors under llama.cpp's names. Rows of queries keep their order: weights are random."""
    for name, values in read_tensors(directory / "model.safetensors"):
        if name in WHOLE:
            yield WHOLE[name], values
            continue
        parts, in_text = name.split("."), ".text_model." in name
        number = parts[parts.index("layers") + 1]
        inner = ".".join(parts[parts.index("layers") + 2 : -1])
        table, prefix = (TEXT_LAYER, "blk") if in_text else (VISION_LAYER, "v.blk")
        yield f"{prefix}.{number}.{table[inner]}.{parts[-1]}", values


class Model:
    """Text and vision, loaded once; ask() answers about the picture from its file."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        import llama_cpp
        from llama_cpp import mtmd_cpp

        self.llama, self.mtmd, self.picture = llama_cpp, mtmd_cpp, directory / PICTURE
        folder = directory / FOLDER
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        self._kept = quiet
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            bytes(folder / f"text-{dtype}.gguf"), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 2048, BATCH, 512
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, options)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        looking = mtmd_cpp.mtmd_context_params_default()
        looking.use_gpu, looking.print_timings, looking.n_threads, looking.warmup = False, False, threads, False
        self.eyes = mtmd_cpp.mtmd_init_from_file(bytes(folder / "vision.gguf"), model, looking)
        assert self.context and self.eyes, "llama.cpp could not load its files"

    def chunks(self) -> Any:
        """The question and the picture, cut into pieces of tokens and of tiles."""
        mtmd = self.mtmd
        bitmap = mtmd.mtmd_helper_bitmap_init_from_file(self.eyes, bytes(self.picture), False)
        marker = mtmd.mtmd_default_marker().decode()
        prompt = f"<|im_start|>User:{marker}{QUESTION}<end_of_utterance>\nAssistant:".encode()
        text = mtmd.mtmd_input_text(text=prompt, text_len=len(prompt), add_special=False, parse_special=True)
        pieces = mtmd.mtmd_input_chunks_init()
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        failed = mtmd.mtmd_tokenize(self.eyes, pieces, ctypes.byref(text), bitmaps, 1)
        assert not failed, f"mtmd_tokenize: {failed}"
        mtmd.mtmd_bitmap_free(bitmap)
        return pieces

    def look(self, pieces: Any) -> None:
        """Encode every tile."""
        for number in range(self.mtmd.mtmd_input_chunks_size(pieces)):
            piece = self.mtmd.mtmd_input_chunks_get(pieces, number)
            if self.mtmd.mtmd_input_chunk_get_type(piece) == self.mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                failed = self.mtmd.mtmd_encode_chunk(self.eyes, piece)
                assert not failed, f"mtmd_encode_chunk: {failed}"

    def ask(self) -> tuple[float, float]:
        """Seconds to the first and to the last token."""
        start = time.perf_counter()
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        pieces, past = self.chunks(), ctypes.c_int32(0)
        failed = self.mtmd.mtmd_helper_eval_chunks(
            self.eyes, self.context, pieces, 0, 0, BATCH, True, ctypes.byref(past)
        )
        assert not failed, f"mtmd_helper_eval_chunks: {failed}"
        token = self.likeliest()
        first = time.perf_counter() - start
        greedy(self.step, token)
        self.mtmd.mtmd_input_chunks_free(pieces)
        return first, time.perf_counter() - start

    def step(self, token: int) -> int:
        ids = (self.llama.llama_token * 1)(token)
        failed = self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(ids, 1))
        assert not failed, f"llama_decode: {failed}"
        return self.likeliest()

    def likeliest(self) -> int:
        import numpy as np

        logits = self.llama.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    model = Model(directory, dtype, threads)
    model.ask()
    if cold:
        return {}
    pieces = model.chunks()
    vision = timed(lambda: model.look(pieces))
    first, total = model.ask()
    return row(vision, first, total)


if __name__ == "__main__":
    drive(answer, prepare)
