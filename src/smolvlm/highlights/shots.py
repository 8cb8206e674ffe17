"""Where a video cuts from one shot to another, and how much its picture changes in between. No model, no files.

Frames are compared as thumbnails, a few of them a second: a cut changes almost all of the picture at once and much more
than the moments around it. That says between which two of these frames a cut lies; exact_cut() says at which frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..media.video import Frame

SIDE, BLOCK = 32, 4  # of a thumbnail, and of the parts of it in which something small may change
CHANGED = 0.02  # of a pixel, from 0 to 1: noise of a camera and a codec lies below
LEAST_CHANGE = 0.025  # at a cut
CUT = 0.057  # change and a tenth of the share, together: something that moves changes little of the picture
CUT_RATIO = 4.0  # times the change around it
AROUND = 6  # compared frames on each side that are "around"


@dataclass(frozen=True)
class Track:
    """Frames of a video that were compared. Arrays of one length, in the order of time.

    change: mean difference from the frame before, 0 to 1. share: part of the picture that changed. peak: difference of
    the block that changed most. All are 0 for the first frame.
    """

    times_s: np.ndarray
    change: np.ndarray
    share: np.ndarray
    peak: np.ndarray


def thumbnail(image: Image.Image) -> np.ndarray:
    """(SIDE, SIDE, 3) float32, 0 to 1."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("RGB"), np.float32) / 255


def contrast(image: np.ndarray) -> float:
    """How much the colours of a thumbnail differ from their mean: 0 for a blank frame."""
    return float(image.std(axis=(0, 1)).max())


def compare(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """(change, share, peak) between two thumbnails, see Track."""
    difference = np.abs(after - before).max(axis=-1)  # (SIDE, SIDE)
    blocks = difference.reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK).mean(axis=(1, 3))
    return float(difference.mean()), float((difference > CHANGED).mean()), float(blocks.max())


def find_cuts(track: Track) -> list[int]:
    """Places of the compared frames that begin a new shot; the cut itself lies after the frame before."""
    cuts = []
    for place in range(1, len(track.change)):
        change = track.change[place]
        if change < LEAST_CHANGE or change + track.share[place] / 10 < CUT:
            continue
        around = np.concatenate([track.change[max(1, place - AROUND) : place], track.change[place + 1 :][:AROUND]])
        if not len(around) or change >= CUT_RATIO * np.median(around):
            cuts.append(place)
    return cuts


def shots(count: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """(first compared frame, the one after the last) of every shot."""
    return list(itertools.pairwise([0, *cuts, count]))


def exact_cut(frames: Iterable[Frame]) -> float | None:
    """When the second shot begins: the time of the frame that differs most from the one before it."""
    best_s, most, before = None, -1.0, None
    for frame in frames:
        now = thumbnail(frame.image)
        if before is not None and (change := compare(before, now)[0]) > most:
            best_s, most = frame.timestamp_s, change
        before = now
    return best_s
