"""The reference's road: texts with `<image>` and `<video>` in them, media beside them -> named arrays.

Counts, order, expansion and errors follow transformers' processing_smolvlm.py; unlike there, pictures and videos may
be mixed freely, and each sample's tiles stay in its own row. Our own road is request.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, PromptError
from .batch import BatchFeature, tensor_kind
from .chat import expand, image_block, placeholders
from .image import nest_images
from .options import DEFAULTS
from .parts import Parts
from .rows import as_batch
from .viewing import Watched, group_videos, watch

_WORD_GAP = "\ufdd2"  # a noncharacter between words that were given already split
_SHARED = (*DEFAULTS, "data_format", "input_data_format", "reference_quirks")
TEXT_OPTIONS = (
    "padding", "truncation", "max_length", "pad_to_multiple_of", "padding_side", "truncation_side",
    "is_split_into_words", "add_special_tokens", "return_attention_mask", "return_offsets_mapping",
)  # fmt: skip
IMAGE_OPTIONS = _SHARED
VIDEO_OPTIONS = (
    *(name for name in _SHARED if name != "do_image_splitting"),
    "fps", "num_frames", "max_frames", "skip_secs", "do_sample_frames", "video_metadata",
)  # fmt: skip
COMMON_OPTIONS = ("return_tensors", "return_mm_token_type_ids", "return_metadata")
_GROUPS = {
    "text_kwargs": TEXT_OPTIONS,
    "images_kwargs": IMAGE_OPTIONS,
    "videos_kwargs": VIDEO_OPTIONS,
    "common_kwargs": COMMON_OPTIONS,
}
# Arguments of older versions and of other models' processors that change nothing here with these values.
_IDLE: dict[str, tuple[object, ...]] = {
    "audio_kwargs": (None, {}),
    "load_audio_from_video": (None, False),
    "return_row_col_info": (None, True, False),
    "return_text_replacement_offsets": (None, False),
    "device": (None, "cpu"),
    "disable_grouping": (None, True, False),
}
OPTION_NAMES = (*_GROUPS, *TEXT_OPTIONS, *IMAGE_OPTIONS, *VIDEO_OPTIONS, *COMMON_OPTIONS, *_IDLE)


@dataclass(frozen=True)
class CallOptions:
    """The keywords of one call, by whom they are for."""

    text: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, Any] = field(default_factory=dict)
    return_tensors: str | None = None
    return_mm_token_type_ids: bool = False
    return_metadata: bool = False

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> CallOptions:
        """Sort keywords; one that several take goes to all of them, one in images_kwargs only to the images.

        Raises InputError for a keyword that nobody takes.
        """
        sorted_: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
        for name, value in keywords.items():
            takers = [group for group, names in _GROUPS.items() if name in names]
            for group in takers:
                sorted_[group][name] = value
            if name in _GROUPS:
                _refuse(name, value or {}, _GROUPS[name])
            elif name in _IDLE and value not in _IDLE[name]:
                raise InputError(f"{name}={value!r} is not something this processor does; leave it out.")
            elif not takers and name not in _IDLE:
                raise InputError(
                    f"The processor has no argument {name!r}. It has: images, text, videos, "
                    f"{', '.join(sorted({*TEXT_OPTIONS, *IMAGE_OPTIONS, *VIDEO_OPTIONS, *COMMON_OPTIONS}))}."
                )
        for group in _GROUPS:
            sorted_[group] |= {name: value for name, value in (keywords.get(group) or {}).items() if name not in _IDLE}
        common = sorted_["common_kwargs"]
        for group in ("text_kwargs", "images_kwargs", "videos_kwargs"):
            common = {"return_tensors": sorted_[group].pop("return_tensors", None)} | common
        return cls(
            sorted_["text_kwargs"],
            sorted_["images_kwargs"],
            sorted_["videos_kwargs"],
            tensor_kind(common.get("return_tensors")),
            bool(common.get("return_mm_token_type_ids")),
            bool(common.get("return_metadata")),
        )


def _refuse(group: str, given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed and name not in _IDLE and name != "return_tensors":
            raise InputError(f"{group} has no argument {name!r}. It has: {', '.join(sorted(allowed))}.")


def call(parts: Parts, text: Any, images: Any, videos: Any, options: CallOptions) -> BatchFeature:
    """What SmolVLMProcessor.__call__ returns. text, images, videos: as there, None when not given."""
    images, videos = (None if isinstance(media, list | tuple) and not media else media for media in (images, videos))
    if text is None:
        return _media_only(parts, images, videos, options)
    split = bool(options.text.get("is_split_into_words"))
    texts, batched = as_batch(text, split)
    prompts = [_WORD_GAP.join(one) if split else one for one in texts]
    wanted = [placeholders(prompt, parts.tokens) for prompt in prompts]
    image_samples = _grouped(images, nest_images, _counts(wanted, "image"), parts.tokens.image, "images")
    video_samples = _grouped(videos, group_videos, _counts(wanted, "video"), parts.tokens.video, "videos")
    media = load_media(parts, image_samples, video_samples, options)
    return assemble(parts, prompts, wanted, media, options, split=split)


@dataclass(frozen=True)
class Media:
    """Processed media of a batch. images: the image processor's result, with rows and cols. videos: per sample."""

    images: BatchFeature | None
    videos: list[list[Watched]] | None


def load_media(
    parts: Parts, images: list[list[Any]] | None, videos: list[list[Any]] | None, options: CallOptions
) -> Media:
    """Open and process what the samples of a batch show. URLs are fetched, under guard."""
    processed = None
    if images is not None and any(images):
        own = {"return_tensors": "np" if options.images.get("do_pad", parts.image_processor.do_pad) else None}
        keywords = {**options.images, **own, "return_row_col_info": True, "allow_url": True}
        processed = parts.image_processor(images, **keywords)
    watched = watch(parts, videos, options.videos) if videos is not None and any(videos) else None
    return Media(processed, watched)


def assemble(
    parts: Parts,
    prompts: Sequence[str],
    wanted: Sequence[Sequence[str]],
    media: Media,
    options: CallOptions,
    *,
    split: bool = False,
    fenced: bool = False,
) -> BatchFeature:
    """Prompts with placeholders and processed media -> the batch. fenced: the prompts come from chat.protect."""
    texts = [_expanded(parts, prompt, row, media, options) for row, prompt in enumerate(prompts)]
    batch = _encode(parts, texts, options, split=split, fenced=fenced)
    _check_uncut(parts, texts, batch["input_ids"])
    if options.return_mm_token_type_ids:
        image_id = parts.tokenizer.image_token_id
        batch["mm_token_type_ids"] = [[int(token == image_id) for token in row] for row in batch["input_ids"]]
    batch.update(_pixels(media, wanted))
    _to_tensors(batch, options.return_tensors)
    if options.return_metadata and media.videos is not None:
        batch["video_metadata"] = [video.metadata for sample in media.videos for video in sample]
    return batch


def _encode(parts: Parts, texts: list[str], options: CallOptions, *, split: bool, fenced: bool) -> BatchFeature:
    if not fenced:
        return parts.tokenizer([text.split(_WORD_GAP) for text in texts] if split else texts, **options.text)
    own = {
        name: value for name, value in options.text.items() if name not in ("add_special_tokens", "is_split_into_words")
    }
    return parts.tokenizer.finish([parts.tokenizer.encode_prompt(text) for text in texts], **own)


def _expanded(parts: Parts, prompt: str, row: int, media: Media, options: CallOptions) -> str:
    grids: Iterator[tuple[int, int]] = iter(())
    if media.images is not None:
        grids = zip(media.images["rows"][row], media.images["cols"][row], strict=True)
    videos = iter(media.videos[row] if media.videos is not None else ())
    quirks = options.videos.get("reference_quirks", parts.video_processor.reference_quirks)
    padded = (
        max((len(video.values) for sample in media.videos or () for video in sample), default=0) if quirks else None
    )
    blocks = []
    for kind in placeholders(prompt, parts.tokens):
        if kind == "image":
            blocks.append((kind, image_block(*next(grids), parts.image_seq_len, parts.tokens)))
        else:
            blocks.append((kind, next(videos).text(parts, num_frames=padded)))
    return expand(prompt, blocks, parts.tokens)


def _check_uncut(parts: Parts, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
    image_id = parts.tokenizer.image_token_id
    for index, (text, ids) in enumerate(zip(texts, rows, strict=True)):
        written, kept = placeholders(text, parts.tokens).count("image"), list(ids).count(image_id)
        if written != kept:
            raise PromptError(
                f"Mismatch in `image` token count between text and `input_ids`: truncation left {kept} of "
                f"{written} image tokens of sample {index}, and a picture can't be cut. Raise max_length, turn "
                "truncation off, or make the picture cheaper (do_image_splitting=False)."
            )


def _pixels(media: Media, wanted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """pixel_values and pixel_attention_mask, with the tiles of each sample in the order of its prompt."""
    if media.images is not None and media.videos is None:
        return {key: media.images[key] for key in ("pixel_values", "pixel_attention_mask") if key in media.images}
    if media.videos is None:
        return {}
    rows = []
    for row, kinds in enumerate(wanted):
        tiles = iter(_tiles_of(media.images, row))
        videos = iter(media.videos[row])
        shown = [next(tiles) if kind == "image" else next(videos).values for kind in kinds]
        rows.append(np.concatenate(shown) if shown else np.empty((0, 0, 0, 0), np.float32))
    shape = next(values.shape[1:] for values in rows if len(values))
    if any(len(values) and values.shape[1:] != shape for values in rows):
        raise InputError(
            "Pictures and videos of one batch must have tiles of one size: the same max_image_size for both."
        )
    most = max(len(values) for values in rows)
    pixels = np.zeros((len(rows), most, *shape), np.float32)
    height, width = (shape[0], shape[1]) if shape[-1] in (1, 3) else (shape[1], shape[2])
    mask = np.zeros((len(rows), most, height, width), np.int64)
    for row, values in enumerate(rows):
        if len(values):
            pixels[row, : len(values)] = values
            mask[row, : len(values)] = 1
    return {"pixel_values": pixels, "pixel_attention_mask": mask}


def _tiles_of(images: BatchFeature | None, row: int) -> Iterator[np.ndarray]:
    """The tiles of each picture of one sample."""
    start = 0
    for rows, cols in zip(images["rows"][row], images["cols"][row], strict=True) if images is not None else ():
        yield images["pixel_values"][row][start : start + rows * cols + 1]  # type: ignore[index]
        start += rows * cols + 1


def _media_only(parts: Parts, images: Any, videos: Any, options: CallOptions) -> BatchFeature:
    if images is None and videos is None:
        raise PromptError("You need to provide at least one input: text=, images= or videos=.")
    if images is not None and videos is not None:
        raise PromptError(
            "You must specify exactly one of `images` or `videos` when there is no text: without its placeholders "
            "nobody knows their order. Pass text= with <image> and <video> in it."
        )
    samples = nest_images(images) if images is not None else None
    watched = group_videos(videos, None) if videos is not None else None
    media = load_media(parts, samples, watched, options)
    wanted = [["video"] * len(sample) for sample in watched or ()]
    return _to_tensors(BatchFeature(_pixels(media, wanted)), options.return_tensors)


def _to_tensors(batch: BatchFeature, kind: str | None) -> BatchFeature:
    """Tensors when they are asked for, else lists, with an array a sample for the pixels."""
    if kind is None:
        batch.update({name: list(value) for name, value in batch.items() if isinstance(value, np.ndarray)})
    return batch.convert_to_tensors(kind)


def _counts(wanted: Sequence[Sequence[str]], kind: str) -> list[int]:
    return [list(kinds).count(kind) for kinds in wanted]


def _grouped(given: Any, nest: Any, wanted: list[int], token: str, name: str) -> list[list[Any]] | None:
    """Media as one list a sample, as many in each as its text has placeholders. Raises PromptError otherwise."""
    if given is None:
        if any(wanted):
            raise PromptError(
                f"Found {sum(wanted)} {token} tokens in the text but no {name} were passed. Pass {name}=, one for each."
            )
        return None
    samples: list[list[Any]] = nest(given) if nest is nest_images else nest(given, wanted)
    counts = [len(sample) for sample in samples]
    if counts == wanted:
        return samples
    if sum(counts) != sum(wanted):
        raise PromptError(
            f"The total number of {token} tokens in the prompts should be the same as the number of {name} passed. "
            f"Found total {sum(wanted)} {token} tokens and {sum(counts)} {name}."
        )
    if len(samples) == 1:  # a flat list, as Idefics3's processor takes it: dealt out by the placeholders
        flat = iter(samples[0])
        return [[next(flat) for _ in range(count)] for count in wanted]
    raise PromptError(
        f"The number of {token} tokens in each prompt should be the same as the number of {name} passed. "
        f"Found {wanted} {token} tokens and {counts} {name} per sample."
    )
