"""Our road from messages to model inputs: measure every picture and video, write the prompt, then decode.

Nothing is decoded before the prompt is known to fit. The reference's road, with its habits, is calls.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from ..errors import ContextLengthError, ImageError, InputError, MediaError, PromptError
from ..media.image import measure_image, open_image
from ..media.limits import MediaLimits
from ..media.pixels import is_array
from ..media.source import Source, locate
from ..media.video import open_video
from ..types import Detail, Features, FramesSeen, Inputs, MediaTokens, TokenReport
from .chat import Block, Message, expand, image_block, media_blocks, protect, render, video_block
from .image import plan_for, tile
from .parts import Parts
from .scale import normalise
from .template import DEFAULT_TEMPLATE, template_uses
from .tokenizer import VERY_LARGE
from .video import frames_to_tiles

UNSPLIT = (0, 0)
_RGB_BYTES = 3  # of a pixel


@dataclass(frozen=True)
class Look:
    """How pictures and videos are looked at.

    detail: "low" one tile a picture, "auto" as many as it has pixels for, "high" what the reference does.
    max_image_tokens: most image tokens one picture or video may take. fps, max_frames: of videos; None is the
    checkpoint's. allow_url: fetch http(s) addresses, under guard.
    """

    detail: Detail = "auto"
    max_image_tokens: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    allow_url: bool = False

    def __post_init__(self) -> None:
        if self.detail not in get_args(Detail):
            raise InputError(f"detail={self.detail!r} is unknown: it must be 'low', 'auto' or 'high'.")

    def max_tiles(self, image_seq_len: int) -> int | None:
        """max_image_tokens in whole tiles. Raises InputError when not even one fits."""
        if self.max_image_tokens is None:
            return None
        if self.max_image_tokens < image_seq_len:
            raise InputError(
                f"max_image_tokens={self.max_image_tokens} is less than one tile takes in this model: {image_seq_len}."
            )
        return self.max_image_tokens // image_seq_len


@dataclass(frozen=True)
class Seen:
    """One picture or video of a request, measured. source None: encoded already, or only counted."""

    kind: Literal["image", "video"]
    name: str
    size: tuple[int, int]
    grids: tuple[tuple[int, int], ...]
    text: str
    look: Look
    source: Any = None
    frames: FramesSeen | None = None
    limits: MediaLimits = field(default_factory=MediaLimits)

    @property
    def tiles(self) -> int:
        return sum(rows * cols + 1 for rows, cols in self.grids)


@dataclass(frozen=True)
class Prompt:
    """A request whose prompt is written and whose media are measured, but not decoded."""

    ids: list[int]
    seen: tuple[Seen, ...]


def measure(
    parts: Parts,
    turns: Sequence[Message],
    look: Look,
    features: Sequence[Features] = (),
    limits: MediaLimits | None = None,
) -> list[Seen]:
    """Look at headers: sizes, grids and frames of the media of normalised messages, in their order.

    Placeholders without a source take their tiles from features. Raises MediaError for more than limits allow.
    """
    limits = limits or MediaLimits()
    blocks, encoded = media_blocks(turns), _encoded(parts, features)
    sources = [block for block in blocks if "source" in block]
    if encoded and sources:
        raise PromptError("Encoded features and pictures to be opened can't share one request: encode all of them.")
    if len(blocks) - len(sources) != len(encoded):
        raise PromptError(
            f"The messages have {len(blocks) - len(sources)} pictures and videos without a source, and features hold "
            f"{len(encoded)}. Give each block a source ('image', 'path', 'url' ...), or features for all of them."
        )
    if encoded:
        wanted, given = [str(block["type"]) for block in blocks], [one.kind for one in encoded]
        if wanted != given:
            raise PromptError(
                f"The messages have places for {', '.join(wanted)}; features hold {', '.join(given)}, in this order."
            )
        return encoded
    seen: list[Seen] = []
    for number, block in enumerate(blocks, 1):
        seen.append(_measure_one(parts, block, look, number, limits))
        _check_amount(seen, limits)
    return seen


def _check_amount(seen: Sequence[Seen], limits: MediaLimits) -> None:
    """Raise MediaError when media are more than one request may ask for, as far as they are measured."""
    frames = sum(len(one.frames.indices) for one in seen if one.frames is not None)
    if limits.frames is not None and frames > limits.frames:
        raise MediaError(
            f"The videos would be shown in {frames} frames, more than the limit of {limits.frames} for one request. "
            "Pass fewer or shorter videos, or a smaller fps or max_frames."
        )
    pixels = sum(one.size[0] * one.size[1] * (len(one.frames.indices) if one.frames else 1) for one in seen)
    if limits.decoded_bytes is not None and pixels * _RGB_BYTES > limits.decoded_bytes:
        raise MediaError(
            f"The pictures and frames unpack to {pixels * _RGB_BYTES:,} bytes, more than the limit of "
            f"{limits.decoded_bytes:,} for one request; nothing was decoded. Scale them down, or pass fewer."
        )


def compose(
    parts: Parts,
    turns: Sequence[Message],
    seen: Sequence[Seen],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    written: str | None = None,
) -> Prompt:
    """Normalised messages and their measured media -> the ids of the whole prompt.

    written: the prompt itself, which the messages only bring the media for.
    """
    if written is not None:
        return _prompt(parts, written, seen)
    template = parts.template or DEFAULT_TEMPLATE
    if any(one.kind == "video" for one in seen) and not template_uses(template, "video"):
        template = DEFAULT_TEMPLATE  # the released templates know no videos; the reference puts this one in their place
    prompt = render(
        protect(turns, parts.control_tokens),
        template,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        variables=parts.tokenizer.special_tokens_map,
    )
    return _prompt(parts, prompt, seen)


def _prompt(parts: Parts, prompt: str, seen: Sequence[Seen]) -> Prompt:
    text = expand(prompt, [(one.kind, one.text) for one in seen], parts.tokens)
    return Prompt(parts.tokenizer.encode_prompt(text), tuple(seen))


def decode(parts: Parts, seen: Sequence[Seen]) -> tuple[np.ndarray | None, list[Seen]]:
    """Open, cut and scale measured media, one after another, into one array (tiles, 3, side, side) float32.

    Returns it with the media as they came out: a video whose end is damaged has fewer frames than its header says.
    """
    total = sum(one.tiles for one in seen if one.source is not None)
    if not total:
        return None, list(seen)
    side = parts.image_processor.options.tile_size
    values = np.empty((total, 3, side, side), np.float32)
    shown, start = [], 0
    for one in seen:
        tiles, one = cut(parts, one)
        processor = parts.image_processor if one.kind == "image" else parts.video_processor
        normalise(tiles, processor.options, out=values[start : start + len(tiles)])
        shown.append(one)
        start += one.tiles
    return values[:start], shown


def cut(parts: Parts, seen: Seen) -> tuple[np.ndarray, Seen]:
    """Open and cut one measured picture or video: its tiles (tiles, side, side, 3) uint8, and what came out of it."""
    return _cut_image(parts, seen) if seen.kind == "image" else _cut_video(parts, seen)


def to_inputs(prompt: Prompt, values: np.ndarray | None) -> Inputs:
    """What the model gets. values: the tiles of media that were decoded, None for none."""
    return Inputs(
        input_ids=np.array(prompt.ids, np.int64),
        pixel_values=values,
        tile_rows_cols=tuple(grid for one in prompt.seen for grid in one.grids),
        frames=tuple(one.frames for one in prompt.seen if one.frames is not None),
    )


def check_context(parts: Parts, prompt: Prompt, context: int | None) -> None:
    """Raise ContextLengthError when no room is left for an answer, saying how many of the media would fit."""
    limit = context_of(parts, context)
    needed = len(prompt.ids) + 1
    if limit is None or needed <= limit:
        return
    costs = block_tokens(parts, prompt)
    left, fit = limit - (needed - sum(costs)), 0
    for cost in costs:
        left -= cost
        fit += left >= 0
    tiles = sum(one.tiles for one in prompt.seen)
    cure = "Shorten the text."
    if costs:
        cure = (
            f"{tiles} image tiles take {tiles * parts.image_seq_len} of them; the first {fit} of {len(costs)} pictures "
            "and videos fit. Pass fewer, or detail='low', or a smaller max_image_tokens or max_frames."
        )
    raise ContextLengthError(
        f"The prompt needs {needed - 1} tokens but this model holds {limit}, answer included. {cure}"
    )


def context_of(parts: Parts, context: int | None) -> int | None:
    """The given limit, or the tokenizer's; None when nobody says one."""
    limit = parts.tokenizer.model_max_length if context is None else context
    return None if limit >= VERY_LARGE else limit


def report(parts: Parts, prompt: Prompt, context: int | None) -> TokenReport:
    """What a prompt costs. `image` counts whole blocks, tags and frame times included; `text` is the rest."""
    costs = block_tokens(parts, prompt)
    limit = context_of(parts, context) or 0
    media = tuple(_media_tokens(one, cost) for one, cost in zip(prompt.seen, costs, strict=True))
    return TokenReport(
        total=len(prompt.ids),
        text=len(prompt.ids) - sum(costs),
        image=sum(costs),
        tiles=sum(one.tiles for one in prompt.seen),
        context=limit,
        left=limit - len(prompt.ids),
        media=media,
    )


def block_tokens(parts: Parts, prompt: Prompt) -> list[int]:
    """Tokens of the whole block of each picture and video."""
    return [len(parts.tokenizer.encode(one.text, add_special_tokens=False)) for one in prompt.seen]


def _media_tokens(seen: Seen, tokens: int) -> MediaTokens:
    rows, cols = seen.grids[0] if seen.kind == "image" else UNSPLIT
    times = seen.frames.timestamps_s if seen.frames is not None else ()
    return MediaTokens(seen.name, seen.kind, *seen.size, rows, cols, seen.tiles, tokens, times)


def _measure_one(parts: Parts, block: Block, look: Look, number: int, limits: MediaLimits) -> Seen:
    look = _look_of(block, look)
    return (_measure_image if block["type"] == "image" else _measure_video)(parts, block, look, number, limits)


def _look_of(block: Block, look: Look) -> Look:
    """Options of a single block go before those of the request."""
    names = {"detail": "detail", "max_image_tokens": "max_image_tokens", "fps": "fps", "max_frames": "max_frames"}
    changed: dict[str, Any] = {name: block[key] for key, name in names.items() if key in block}
    return replace(look, **changed) if changed else look


def _measure_image(parts: Parts, block: Block, look: Look, number: int, limits: MediaLimits) -> Seen:
    source, name, most = block["source"], f"picture {number}", limits.images.max_bytes
    if isinstance(source, str | Path):  # fetched or decoded from base64 once only
        located = locate(source, kind="picture", error=ImageError, allow_url=look.allow_url, max_bytes=most)
        name, source = located.name.strip("'"), located.content
    elif isinstance(source, Source):
        name = source.name
    width, height = measure_image(source, limits=limits.images)
    plan = plan_for(
        parts.image_processor.options, width, height, _detail(parts, look), look.max_tiles(parts.image_seq_len)
    )
    grid = (plan.rows, plan.cols)
    text = image_block(*grid, parts.image_seq_len, parts.tokens)
    return Seen("image", name, (width, height), (grid,), text, look, source, limits=limits)


def _detail(parts: Parts, look: Look) -> Detail | None:
    """A processor told not to split keeps to that, whatever the detail."""
    splits = parts.image_processor.options.do_image_splitting
    return look.detail if splits or look.detail == "low" else None


def _cut_image(parts: Parts, seen: Seen) -> tuple[np.ndarray, Seen]:
    image = open_image(seen.source, limits=seen.limits.images)
    tiled = tile(image, parts.image_processor, _detail(parts, seen.look), seen.look.max_tiles(parts.image_seq_len))
    assert len(tiled.tiles) == seen.tiles, "the plan from the header and the tiles from the pixels are one"
    return tiled.tiles, seen


def _measure_video(parts: Parts, block: Block, look: Look, number: int, limits: MediaLimits) -> Seen:
    source = block["source"]
    opened: dict[str, Any] = {
        "allow_url": look.allow_url, "limits": limits.videos, "frame_limits": limits.images,
    }  # fmt: skip
    listed = isinstance(source, list | tuple) or is_array(source)
    if listed:  # `fps` of a block says when its frames were taken; that of the request, how many to take
        known: dict[str, Any] = {"fps": block.get("fps"), "timestamps_s": block.get("timestamps_s")}
        video = open_video(source, **known, **opened)
        look = replace(look, fps=None)
    else:
        video = open_video(source, **opened)
    indices = parts.video_processor.choose(video, fps=look.fps, max_frames=look.max_frames)
    limit = look.max_tiles(parts.image_seq_len)
    if limit is not None and len(indices) > limit:
        indices = parts.video_processor.choose(video, fps=look.fps, max_frames=limit)
    info, name = video.info, f"video {number}" if listed else video.name.strip("'")
    times = tuple(video.timestamp_s(index) for index in indices)
    seen = Seen("video", name, (info.width, info.height), (), "", look, video, limits=limits)
    return _with_frames(parts, seen, FramesSeen(name, tuple(indices), times, info.duration_s))


def _with_frames(parts: Parts, seen: Seen, frames: FramesSeen) -> Seen:
    text = video_block(frames.timestamps_s, frames.duration_s, parts.image_seq_len, parts.tokens)
    return replace(seen, grids=(UNSPLIT,) * len(frames.indices), text=text, frames=frames)


def _cut_video(parts: Parts, seen: Seen) -> tuple[np.ndarray, Seen]:
    assert seen.frames is not None, "a measured video has frames"
    chosen, shown = seen.frames, []

    def images() -> Iterator[Image.Image]:
        for frame in seen.source.frames(chosen.indices):
            shown.append((frame.number, frame.timestamp_s))
            yield frame.image

    tiles = frames_to_tiles(images(), parts.video_processor)
    if len(shown) == len(chosen.indices):
        return tiles, seen
    indices, times = zip(*shown, strict=True)
    return tiles, _with_frames(parts, seen, replace(chosen, indices=indices, timestamps_s=times))


def _encoded(parts: Parts, features: Sequence[Features]) -> list[Seen]:
    """Features -> what they hold, as measured media: pictures first, then videos, of each in turn."""
    seen: list[Seen] = []
    for one in features:
        in_videos = sum(len(frames.indices) for frames in one.frames)
        pictures = one.tile_rows_cols[: len(one.tile_rows_cols) - in_videos]
        for grid in pictures:
            text = image_block(*grid, parts.image_seq_len, parts.tokens)
            seen.append(Seen("image", "encoded picture", (0, 0), (grid,), text, Look()))
        for frames in one.frames:
            seen.append(_with_frames(parts, Seen("video", frames.source, (0, 0), (), "", Look()), frames))
    return seen


def collate(requests: Sequence[Inputs], pad_id: int) -> dict[str, np.ndarray]:
    """Requests -> one batch: prompts filled up on the left, tiles by zero tiles, which the model leaves out.

    input_ids, attention_mask: (batch, tokens) int64. pixel_values: (batch, most tiles, 3, side, side) float32, absent
    when no request has pictures.
    """
    if not requests:
        raise InputError("There is nothing to collate: give at least one request.")
    width = max(len(one.input_ids) for one in requests)
    ids = np.full((len(requests), width), pad_id, np.int64)
    mask = np.zeros((len(requests), width), np.int64)
    for row, one in enumerate(requests):
        ids[row, width - len(one.input_ids) :] = one.input_ids
        mask[row, width - len(one.input_ids) :] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    tiles = [one.pixel_values for one in requests if one.pixel_values is not None]
    if not tiles:
        return batch
    if len(requests) == 1:
        return batch | {"pixel_values": tiles[0][None]}  # no copy
    most = max(len(values) for values in tiles)
    values = np.zeros((len(requests), most, *tiles[0].shape[1:]), np.float32)
    for row, one in enumerate(requests):
        if one.pixel_values is not None:
            values[row, : len(one.pixel_values)] = one.pixel_values
    return batch | {"pixel_values": values}
