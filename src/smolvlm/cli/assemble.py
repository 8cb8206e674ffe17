"""Join a text model and a vision tower into a checkpoint that is ready to be trained to see.

examples:
  smolvlm assemble --text HuggingFaceTB/SmolLM2-360M-Instruct --vision google/siglip-base-patch16-512 -o start
  smolvlm assemble --text my-smollm2 --vision my-siglip -o start --scale-factor 3 --seed 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Parser, whole_number
from .terminal import quieten, waiting

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--text", metavar="NAME", required=True, help="directory or hub id of a Llama model: SmolLM2")
    parser.add_argument("--vision", metavar="NAME", required=True, help="directory or hub id of a SigLIP model")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the new checkpoint")
    parser.add_argument(
        "--scale-factor",
        metavar="N",
        type=whole_number,
        help="N x N patches become one image token; default: the largest of 4, 3 and 2 that fits a tile",
    )
    parser.add_argument(
        "--image-size",
        metavar="N",
        type=whole_number,
        help="side of a tile in pixels; default: the vision model's. For another one its positions are interpolated",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: the text model's")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the connector, which is random")
    parser.add_argument("--offline", action="store_true", help="use what is in the cache, touch no network")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    quieten(options)
    import torch

    from ..training.assemble import assemble_checkpoint

    with waiting(f"Writing {options.output}", options):
        model = assemble_checkpoint(
            options.text,
            options.vision,
            options.output,
            scale_factor=options.scale_factor,
            image_size=options.image_size,
            dtype="auto" if options.dtype is None else getattr(torch, options.dtype),
            seed=options.seed,
            local_files_only=options.offline,
        )
    parts = {"vision": model.model.vision_model, "connector": model.model.connector, "text": model.model.text_model}
    counts = {name: sum(one.numel() for one in part.parameters()) for name, part in parts.items()}
    millions = ", ".join(f"{name} {count / 1e6:,.1f}" for name, count in counts.items())
    total = sum(one.numel() for one in model.parameters())
    config = model.config
    print(f"{options.output}: {total / 1e6:,.1f} million parameters ({millions})")
    print(
        f"A tile of {config.vision_config.image_size} pixels is {config.image_seq_len} tokens; "
        f"{config.text_config.vocab_size} tokens in all, <image> is {config.image_token_id}."
    )
    return 0
