"""Videos of a call on the reference's road: which belongs to which text, and the frames and text that stand for them.

Opening and choosing frames are video.py's. See calls.py for the call they are part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..media.pixels import is_array
from ..media.video import FrameList
from .chat import Block, video_block
from .clips import VideoMetadata, nest_videos
from .parts import Parts


@dataclass(frozen=True)
class Watched:
    """The frames of one video. values: (frames, 3, side, side) float32, or channels last."""

    values: np.ndarray
    metadata: VideoMetadata

    def text(self, parts: Parts, *, num_frames: int | None = None) -> str:
        """The text in the place of its placeholder. num_frames: the count to state, when not that of its frames."""
        known = self.metadata
        return video_block(known.timestamps, known.duration, parts.image_seq_len, parts.tokens, num_frames=num_frames)


@dataclass(frozen=True)
class BlockVideo:
    """The video of a chat block: its source and what the block says about it."""

    source: Any
    metadata: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None


def block_video(block: Block) -> BlockVideo:
    """Of a list of frames, `fps` or `timestamps_s` say when they were taken; of a file, `fps` how many to take."""
    source: Any = block["source"]
    rate, most, times = (block.get(name) for name in ("fps", "max_frames", "timestamps_s"))
    options: dict[str, Any] = {} if most is None else {"num_frames": most}
    if not _is_listed(source):
        return BlockVideo(source, None, options if rate is None else options | {"fps": rate})
    known = FrameList(source, fps=rate, timestamps_s=times, allow_url=True)  # type: ignore[arg-type]  # checked there
    duration_s, count = known.info.duration_s, known.info.num_frames
    milliseconds = [round(1000 * known.timestamp_s(index)) for index in range(count)]
    return BlockVideo(source, {"fps": 1000, "frames_indices": milliseconds, "duration": duration_s}, options)


def group_videos(videos: Any, wanted: list[int] | None) -> list[list[Any]]:
    """Videos as one list a text when they come so, else all in one list. wanted: how many each text has places for."""
    nested = isinstance(videos, list | tuple) and wanted is not None and len(videos) == len(wanted)
    if nested and all(_is_list_of_videos(one) for one in videos):
        return [nest_videos(one) if len(one) else [] for one in videos]
    return [nest_videos(videos)]


def watch(parts: Parts, samples: Sequence[Sequence[Any]], options: Mapping[str, Any]) -> list[list[Watched]]:
    """Open every video and take its frames. options: of the video processor; video_metadata: one a video, in order."""
    own = dict(options)
    given = own.pop("video_metadata", None)
    total = sum(len(sample) for sample in samples)
    known = _in_order(given, total)
    return [[_watch_one(parts, video, next(known), own) for video in sample] for sample in samples]


def _watch_one(parts: Parts, video: Any, metadata: Any, options: Mapping[str, Any]) -> Watched:
    if isinstance(video, BlockVideo):
        metadata, options = video.metadata or metadata, {**options, **(video.options or {})}
        video = video.source
    if isinstance(video, list | tuple) and any(isinstance(one, str | Path) for one in video):
        video = [video]  # one list deeper: texts are paths of frames there, not of videos
    keywords = {"return_tensors": "np", "return_metadata": True, "allow_url": True, **_sampling(options)}
    if metadata is not None:
        keywords["video_metadata"] = [metadata]
    out = parts.video_processor([video], **keywords)
    return Watched(out["pixel_values"][0], out["video_metadata"][0])


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """`max_frames`, our name, is the reference's num_frames."""
    renamed = {("num_frames" if name == "max_frames" else name): value for name, value in options.items()}
    return {name: value for name, value in renamed.items() if value is not None or name == "data_format"}


def _in_order(metadata: Any, total: int) -> Any:
    flat = _flatten(metadata)
    if flat and len(flat) != total:
        raise InputError(f"There are {total} videos but {len(flat)} video_metadata: give one for each video.")
    return iter(flat or [None] * total)


def _flatten(metadata: Any) -> list[Any]:
    if isinstance(metadata, list | tuple):
        return [one for entry in metadata for one in _flatten(entry)]
    return [] if metadata is None else [metadata]


def _is_listed(source: Any) -> bool:
    return isinstance(source, list | tuple) or is_array(source)


def _is_list_of_videos(one: Any) -> bool:
    """A list whose members are whole videos: files, lists of frames, or 4-D arrays."""
    return isinstance(one, list | tuple) and all(
        isinstance(video, str | Path | bytes | list | tuple) or (is_array(video) and video.ndim == 4) for video in one
    )
