"""The parts of a processor and the files they are kept in, in every layout that checkpoints of the family have had.

Read: processor_config.json with nested parts (transformers 5), or preprocessor_config.json and
video_preprocessor_config.json, with a chat template in chat_template.jinja,
chat_template.json, processor_config.json or tokenizer_config.json (4.x).
Written: the first. What the parts do is in image.py, video.py, tokenizer.py; joining them is processor.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import SmolVLMConfig
from ..errors import CheckpointError, ConfigError
from .chat import TileTokens
from .image import SmolVLMImageProcessor
from .tokenizer import SmolVLMTokenizer, read_json, write_json
from .video import SmolVLMVideoProcessor

DEFAULT_IMAGE_SEQ_LEN = 169
PROCESSOR_CLASS = "SmolVLMProcessor"
VIDEO_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Parts:
    """What turns messages into model inputs. template None is the family's own."""

    image_processor: SmolVLMImageProcessor
    video_processor: SmolVLMVideoProcessor
    tokenizer: SmolVLMTokenizer
    image_seq_len: int
    template: str | None

    @property
    def tokens(self) -> TileTokens:
        """The tag texts of this vocabulary."""
        own = self.tokenizer
        return TileTokens(own.image_token, own.fake_image_token, own.global_image_token)

    @property
    def control_tokens(self) -> list[str]:
        """Texts that a user's words must not be able to write."""
        tokens = self.tokens
        return [*self.tokenizer.all_special_tokens, tokens.image, tokens.video]


def read_parts(directory: Path, settings: Mapping[str, Any] | None = None) -> Parts:
    """The parts of a checkpoint directory. settings: arguments of the image processor that override the files'.

    Raises CheckpointError for files that are missing, damaged or contradict the model's config.json.
    """
    tokenizer = SmolVLMTokenizer.from_directory(directory)
    image_processor = SmolVLMImageProcessor.from_pretrained(directory, **(settings or {}))
    return Parts(
        image_processor=image_processor,
        video_processor=_read_video_processor(directory, image_processor),
        tokenizer=tokenizer,
        image_seq_len=_read_image_seq_len(directory),
        template=_read_template(directory, tokenizer),
    )


def write_parts(directory: Path, parts: Parts) -> None:
    """Write processor_config.json, chat_template.jinja and the tokenizer's files."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(
        directory / "processor_config.json",
        {
            "processor_class": PROCESSOR_CLASS,
            "image_seq_len": parts.image_seq_len,
            "image_processor": parts.image_processor.to_dict(),
            "video_processor": parts.video_processor.to_dict(),
        },
    )
    parts.tokenizer.save_pretrained(directory)
    if parts.template is not None:
        (directory / "chat_template.jinja").write_text(parts.template, encoding="utf-8")


def _read_video_processor(directory: Path, image_processor: SmolVLMImageProcessor) -> SmolVLMVideoProcessor:
    """With tiles of the pictures' size. Processors that know no videos (the first generation) get one all the same."""
    own = "video_processor" in read_json(directory / "processor_config.json")
    if own or any((directory / name).is_file() for name in VIDEO_FILES):
        return SmolVLMVideoProcessor.from_pretrained(directory, max_image_size=image_processor.max_image_size)
    return SmolVLMVideoProcessor.from_dict(image_processor.to_dict())


def _read_image_seq_len(directory: Path) -> int:
    """Of processor_config.json; else what the model's geometry makes it. When both are there they must agree."""
    written = read_json(directory / "processor_config.json").get("image_seq_len")
    computed = None
    if (directory / "config.json").is_file():
        try:
            computed = SmolVLMConfig.from_file(directory / "config.json").image_seq_len
        except ConfigError:
            computed = None  # a processor can live beside a model that we can't run
    if written is None:
        return computed or DEFAULT_IMAGE_SEQ_LEN
    if not isinstance(written, int) or written < 1:
        raise CheckpointError(
            f"{directory}/processor_config.json has image_seq_len={written!r}: it must be at least 1."
        )
    if computed is not None and computed != written:
        raise CheckpointError(
            f"{directory}/processor_config.json says {written} image tokens a tile, but config.json makes {computed} "
            "(image_size, patch_size and scale_factor): the two files are of different models."
        )
    return written


def _read_template(directory: Path, tokenizer: SmolVLMTokenizer) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        found = read_json(directory / name).get("chat_template")
        if found:
            return _default_template(found)
    return _default_template(tokenizer.chat_template) if tokenizer.chat_template else None


def _default_template(found: object) -> str:
    """Old files may hold several templates by name: the one called "default" is meant."""
    if isinstance(found, str):
        return found
    named = found if isinstance(found, dict) else {one["name"]: one["template"] for one in found}  # type: ignore[attr-defined]
    if "default" not in named:
        raise CheckpointError(
            f"The checkpoint has chat templates named {', '.join(sorted(named))} and none named 'default'. "
            "Pass chat_template=... with the text of one."
        )
    return str(named["default"])
