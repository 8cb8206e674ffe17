"""The most that the pictures and videos of one request may ask for together; of each one see image.py, video.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from .image import ImageLimits
from .video import VideoLimits


@dataclass(frozen=True)
class MediaLimits:
    """frames: of all videos together, None for any number. decoded_bytes: RGB bytes of every picture and every chosen
    frame together, counted from headers before anything is decoded; None for any."""

    images: ImageLimits = field(default_factory=ImageLimits)
    videos: VideoLimits = field(default_factory=VideoLimits)
    frames: int | None = None
    decoded_bytes: int | None = None
