"""A complete tiny checkpoint with random weights and a small real tokenizer, for tests of every room.

The files are those of a released checkpoint; the shapes are written out here from the family's key table, so that a
test of the model has them from outside the model. One tile is 32 x 32 pixels and 16 image tokens.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
FIRST_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
LAST_TOKENS = [
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{index}|>" for index in range(4)),
    "<end_of_utterance>",
]
CORPUS = """User: What is in this picture? Describe this image. Assistant: A red circle left of a blue square.
You are provided the following series of nine frames from a 0:00:09 [H:MM:SS] video.
Frame from 00:05: The green star moves to the right. How many shapes are there? There are three shapes.
System: You are a helpful assistant. Answer with one word. yes no. Which colour is the large triangle above it?
The total of the receipt is 12.50 and the date is 2024-03-01. Who are you? I am a small vision language model.
"""


@lru_cache(maxsize=1)
def tiny_tokenizer_json() -> str:
    """A byte-level BPE of about 600 entries with the family's pre-tokenizer and special tokens, as tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=550,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in FIRST_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True) + ["\n\n", "\n\n\n"] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in LAST_TOKENS])
    return str(tokenizer.to_str(pretty=False))


@lru_cache(maxsize=1)
def tiny_token_ids() -> dict[str, int]:
    """text -> id of the special tokens of the tiny vocabulary, and "size" -> its size."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer_json())
    return {text: tokenizer.token_to_id(text) for text in FIRST_TOKENS + LAST_TOKENS} | {
        "size": tokenizer.get_vocab_size(with_added_tokens=True)
    }


def tiny_config(
    *,
    model_type: str = "smolvlm",
    image_size: int = 32,
    patch_size: int = 4,
    scale_factor: int = 2,
    context: int = 2048,
    tie_word_embeddings: bool = False,
) -> dict[str, object]:
    """config.json of the tiny model: vision hidden 32, 2 layers; text hidden 64, 2 layers, 4 heads on 2 kv heads."""
    ids = tiny_token_ids()
    return {
        "architectures": [
            "SmolVLMForConditionalGeneration" if model_type == "smolvlm" else "Idefics3ForConditionalGeneration"
        ],
        "model_type": model_type,
        "image_token_id": ids["<image>"],
        "pad_token_id": ids["<|im_end|>"],
        "scale_factor": scale_factor,
        "tie_word_embeddings": tie_word_embeddings,
        "use_cache": True,
        "vision_config": {
            "model_type": f"{model_type}_vision" if model_type == "smolvlm" else "idefics3_vision",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch_size,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": ids["size"],
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "max_position_embeddings": context,
            "pad_token_id": ids["<|im_end|>"],
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<end_of_utterance>"],
        },
    }


def tiny_checkpoint(
    directory: str | Path,
    *,
    model_type: str = "smolvlm",
    seed: int = 0,
    image_size: int = 32,
    patch_size: int = 4,
    scale_factor: int = 2,
    longest_edge: int | None = None,
    context: int = 2048,
    tie_word_embeddings: bool = False,
) -> Path:
    """Write a whole checkpoint and return its directory. longest_edge: of pictures, 4 tiles when not given."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = tiny_config(
        model_type=model_type,
        image_size=image_size,
        patch_size=patch_size,
        scale_factor=scale_factor,
        context=context,
        tie_word_embeddings=tie_word_embeddings,
    )
    _write_json(directory / "config.json", config)
    save_file(tiny_weights(config, seed), directory / "model.safetensors", metadata={"format": "pt"})
    write_tiny_tokenizer(directory, context=context)
    write_tiny_processor(
        directory,
        model_type=model_type,
        image_size=image_size,
        longest_edge=longest_edge or 4 * image_size,
        image_seq_len=(image_size // patch_size // scale_factor) ** 2,
    )
    ids = tiny_token_ids()
    _write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<end_of_utterance>"],
            "pad_token_id": ids["<|im_end|>"],
        },
    )
    return directory


def write_tiny_tokenizer(directory: Path, *, context: int = 2048) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    (directory / "tokenizer.json").write_text(tiny_tokenizer_json(), encoding="utf-8")
    specials: dict[str, object] = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    _write_json(
        directory / "tokenizer_config.json",
        {
            **specials,
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": context,
            "truncation_side": "left",
            "clean_up_tokenization_spaces": False,
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    _write_json(directory / "special_tokens_map.json", specials)


def write_tiny_processor(
    directory: Path, *, model_type: str, image_size: int, longest_edge: int, image_seq_len: int
) -> None:
    """preprocessor_config.json, processor_config.json and chat_template.jinja, as SmolVLM2's checkpoints have them."""
    family = "SmolVLM" if model_type == "smolvlm" else "Idefics3"
    preprocessor: dict[str, object] = {
        "processor_class": f"{family}Processor",
        "image_processor_type": f"{family}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_pad": True,
        "do_image_splitting": True,
        "resample": 1,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"longest_edge": longest_edge},
        "max_image_size": {"longest_edge": image_size},
    }
    if model_type == "smolvlm":
        preprocessor["video_sampling"] = {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": image_size}}
    _write_json(directory / "preprocessor_config.json", preprocessor)
    _write_json(
        directory / "processor_config.json",
        {"processor_class": f"{family}Processor", "image_seq_len": image_seq_len},
    )
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def tiny_weights(config: dict[str, object], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors under the family's checkpoint keys; scaled so that greedy choices are clear-cut."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for key, shape in _shapes(config).items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:  # norms near 1, biases near 0
            tensors[key] = 0.1 * noise + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        elif "embed" in key and "patch" not in key:
            tensors[key] = 0.5 * noise
        else:
            tensors[key] = noise / np.sqrt(np.prod(shape[1:], dtype=np.float32))
        tensors[key] = np.ascontiguousarray(tensors[key], dtype=np.float32)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] *= 3
    return tensors


def _shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    vision, text = config["vision_config"], config["text_config"]
    assert isinstance(vision, dict) and isinstance(text, dict) and isinstance(config["scale_factor"], int)
    hidden, mlp, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    tower = "model.vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (hidden, 3, patch, patch),
        f"{tower}.embeddings.patch_embedding.bias": (hidden,),
        f"{tower}.embeddings.position_embedding.weight": ((vision["image_size"] // patch) ** 2, hidden),
    }
    for index in range(vision["num_hidden_layers"]):
        layer = f"{tower}.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _with_bias(f"{layer}.self_attn.{name}", hidden, hidden)
        shapes |= _with_bias(f"{layer}.mlp.fc1", mlp, hidden) | _with_bias(f"{layer}.mlp.fc2", hidden, mlp)
        shapes |= _with_bias(f"{layer}.layer_norm1", hidden) | _with_bias(f"{layer}.layer_norm2", hidden)
    shapes |= _with_bias(f"{tower}.post_layernorm", hidden)

    width, vocabulary = text["hidden_size"], text["vocab_size"]
    heads, kv_heads = text["num_attention_heads"] * text["head_dim"], text["num_key_value_heads"] * text["head_dim"]
    shapes["model.connector.modality_projection.proj.weight"] = (width, hidden * config["scale_factor"] ** 2)
    shapes["model.text_model.embed_tokens.weight"] = (vocabulary, width)
    for index in range(text["num_hidden_layers"]):
        layer = f"model.text_model.layers.{index}"
        shapes[f"{layer}.self_attn.q_proj.weight"] = (heads, width)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (kv_heads, width)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (kv_heads, width)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (width, heads)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (text["intermediate_size"], width)
        shapes[f"{layer}.mlp.up_proj.weight"] = (text["intermediate_size"], width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, text["intermediate_size"])
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
    shapes["model.text_model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, width)
    return shapes


def _with_bias(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
