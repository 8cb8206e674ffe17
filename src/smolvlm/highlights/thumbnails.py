"""Small pictures of the segments of a video, for the contact sheet and the page: one ascending pass over its frames."""

from __future__ import annotations

import base64
import bisect
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ..media.folder import is_folder, open_folder
from ..media.video import Video, open_video
from .footage import HOURS
from .segments import Segment


def thumbnails(
    video: Path, segments: Sequence[Segment], count: int, size: tuple[int, int], *, frame_fps: float | None = None
) -> list[list[Image.Image]]:
    """`count` pictures of each segment, evenly spread over it, as large as fits into `size`.

    video: a file or a folder of frames; frame_fps: of a folder. Where a file is damaged a segment may have fewer.
    Raises VideoError for a video that can't be read.
    """
    opened: Video = open_folder(video, fps=frame_fps) if is_folder(video) else open_video(video, limits=HOURS)
    numbers = range(opened.info.num_frames)
    chosen: list[list[int]] = []
    for one in segments:
        moments = [one.start_s + one.duration_s * (step + 0.5) / count for step in range(count)]
        chosen.append([max(0, bisect.bisect_right(numbers, moment, key=opened.timestamp_s) - 1) for moment in moments])
    wanted = sorted({number for of_segment in chosen for number in of_segment})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage it was told when the video was looked at
        frames = opened.frames(wanted)
        small = {one.number: ImageOps.contain(one.image, size, Image.Resampling.LANCZOS) for one in frames}
    return [[small[number] for number in of_segment if number in small] for of_segment in chosen]


def data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
