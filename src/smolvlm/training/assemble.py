"""The first stage of all: a checkpoint directory from a text model and a vision tower, ready to be trained.

What the model is made of is model/assemble.py's, its tokens are processing/vocabulary.py's; here they are put together
with the processor's settings, which are those of the released models for tiles of this size.
"""

from __future__ import annotations

from pathlib import Path

from .. import hub
from ..errors import InputError
from ..model import SmolVLMForConditionalGeneration
from ..model.assemble import Vocabulary, assemble
from ..model.towers import Dtype
from ..processing.image import SmolVLMImageProcessor
from ..processing.processor import SmolVLMProcessor
from ..processing.template import DEFAULT_TEMPLATE
from ..processing.tokenizer import SmolVLMTokenizer
from ..processing.video import SmolVLMVideoProcessor
from ..processing.vocabulary import add_picture_tokens

TILES_A_SIDE, MAX_FRAMES = 4, 64  # of the released models


def assemble_checkpoint(
    text: str | Path,
    vision: str | Path,
    output: Path,
    *,
    scale_factor: int | None = None,
    image_size: int | None = None,
    dtype: Dtype = "auto",
    seed: int = 0,
    local_files_only: bool = False,
) -> SmolVLMForConditionalGeneration:
    """Write a whole checkpoint to output, and return its model.

    text, vision: directories or hub ids of a Llama model with its tokenizer (SmolLM2) and of a SigLIP model. The other
    arguments are model.assemble's. Raises InputError when output is one of the two, and what model.assemble and
    hub.resolve raise.
    """
    text_directory, vision_directory = (hub.resolve(name, local_files_only=local_files_only) for name in (text, vision))
    if output.resolve() in (text_directory.resolve(), vision_directory.resolve()):
        raise InputError(f"{output} is one of the two checkpoints: name another directory for the new one.")
    old = SmolVLMTokenizer.from_directory(text_directory)
    tokenizer = add_picture_tokens(old)
    vocabulary = Vocabulary(
        size=len(tokenizer), known=len(old), image=tokenizer.image_token_id, begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id, pad=tokenizer.pad_token_id,
    )  # fmt: skip
    model = assemble(
        text_directory,
        vision_directory,
        vocabulary,
        scale_factor=scale_factor,
        image_size=image_size,
        dtype=dtype,
        seed=seed,
    )
    tokenizer.model_max_length = model.config.text_config.max_position_embeddings
    model.save_pretrained(output)
    make_processor(model, tokenizer).save_pretrained(output)
    return model


def make_processor(model: SmolVLMForConditionalGeneration, tokenizer: SmolVLMTokenizer) -> SmolVLMProcessor:
    """The released models' settings for a model's tiles: pictures of up to 4 x 4 of them, clips of 64 frames."""
    side = model.config.vision_config.image_size
    tile = {"longest_edge": side}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size={"longest_edge": TILES_A_SIDE * side}, max_image_size=tile),
        tokenizer,
        SmolVLMVideoProcessor(
            max_image_size=tile, video_sampling={"fps": 1, "max_frames": MAX_FRAMES, "video_size": tile}
        ),
        model.config.image_seq_len,
        DEFAULT_TEMPLATE,
    )
