"""Which frames of a video the model is shown: the arithmetic alone, no pixels.

Source: transformers' video_processing_smolvlm.py (5.23), sample_frames; parity in tests/reference/test_video.py.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import VideoInfo

DEFAULT_MAX_FRAMES = 64  # of checkpoints that say nothing, when a frame rate is asked for
UNIFORM_FRAMES = 50  # of first-generation checkpoints, which were shown videos as evenly spaced frames


def sample_indices(info: VideoInfo, *, fps: float, max_frames: int, skip_secs: float = 1) -> list[int]:
    """Numbers of the frames to show: `fps` a second, at most max_frames, evenly spaced from first to last.

    skip_secs: seconds left out at both ends of a video too long to be shown at `fps` (titles and fades).
    Raises InputError for a rate or number that isn't positive.
    """
    _check(fps, max_frames, skip_secs)
    wanted = max(1, min(round(fps * info.duration_s), max_frames))
    first, last = 0, info.num_frames - 1
    # The reference compares seconds with frames x rate; at 1 frame a second both are the same.
    if skip_secs > 0 and info.duration_s - 2 * skip_secs > max_frames * fps:
        first = max(int(skip_secs * info.fps), 0)
        last = min(int(info.num_frames - skip_secs * info.fps), info.num_frames - 1)
    if first >= last:
        first, last = 0, info.num_frames - 1
    return _spread(first, last, wanted)


def uniform_indices(num_frames: int, max_frames: int) -> list[int]:
    """Numbers of at most max_frames evenly spaced frames, the first and the last among them."""
    _check(1, max_frames, 0)
    return _spread(0, num_frames - 1, min(num_frames, max_frames))


def _spread(first: int, last: int, count: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(first, last, count, dtype=int))]


def _check(fps: float, max_frames: int, skip_secs: float) -> None:
    if not fps > 0:
        raise InputError(f"fps={fps!r} can't be used: it must be above 0 frames a second.")
    if max_frames < 1:
        raise InputError(f"max_frames={max_frames!r} can't be used: it must be at least 1.")
    if skip_secs < 0:
        raise InputError(f"skip_secs={skip_secs!r} can't be used: it must be 0 (off) or above.")
