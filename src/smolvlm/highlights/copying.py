"""A reel without encoding: the coded pictures and sound of some segments, moved into a file of their own.

Decoding can only start at a key frame, so a segment starts at the last one before it; it ends at the first frame after
its end that no earlier one of the file depends on. The pictures are the source's, bit for bit, and it takes as long as
copying a file.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import VideoError
from .footage import Footage, coded_packets, opened
from .segments import Segment

# What each container may hold so that common players play it; the muxers themselves let more pass.
_PICTURES = {
    ".mp4": {"h264", "hevc", "av1", "mpeg4"},
    ".mkv": {"h264", "hevc", "av1", "mpeg4", "mpeg2video", "vp8", "vp9", "mjpeg"},
    ".webm": {"vp8", "vp9", "av1"},
}
_SOUNDS = {
    ".mp4": {"aac", "mp3", "ac3", "eac3"},
    ".mkv": {"aac", "mp3", "ac3", "eac3", "opus", "vorbis", "flac", "pcm_s16le"},
    ".webm": {"opus", "vorbis"},
}
_DECODERS = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9", "libopus": "opus", "mp3float": "mp3"}


@dataclass(frozen=True)
class Run:
    """Coded frames that stay together: `first` and `end` are places in Footage.coded.

    starts_s: the key frames' times of its segments; the first is where it starts, in the source, and end_s where it
    ends. ticks: its length, and base: where it begins in the reel, both in the time base.
    """

    first: int
    end: int
    starts_s: tuple[float, ...]
    end_s: float
    ticks: int
    base: int


def obstacle(footage: Footage, suffix: str) -> str:
    """Why this film can't be copied into that kind of file; empty when it can."""
    picture, sound = (_DECODERS.get(name, name) for name in (footage.picture_codec, footage.sound_codec))
    if not footage.jumpable:
        return "its container doesn't say reliably where decoding can start"
    if not footage.whole:
        return "an edit list hides frames that others depend on"
    if not any(one.key for one in footage.coded):
        return "it has no key frame"
    if picture not in _PICTURES[suffix]:
        return f"{picture} pictures don't belong into {suffix}"
    if sound and sound not in _SOUNDS[suffix]:
        return f"{sound} sound doesn't belong into {suffix}"
    if footage.turn and suffix == ".webm":
        return "WebM doesn't say that a film is turned"
    return ""


def plan_runs(footage: Footage, segments: Sequence[Segment]) -> list[Run]:
    """The frames to be copied; segments whose runs touch share one."""
    shown = sorted(range(len(footage.coded)), key=lambda place: footage.coded[place].pts)
    times = [footage.coded[place].pts for place in shown]
    # After k + 1 shown frames the file can be cut when these are also the first k + 1 of the file.
    clean = [k for k, furthest in enumerate(accumulate(shown, max)) if furthest == k]
    keys = [place for place in shown if footage.coded[place].key]
    key_times = [footage.seconds(footage.coded[place].pts) for place in keys]
    stretches: list[tuple[int, int, tuple[float, ...]]] = []
    for segment in segments:
        first = keys[max(0, bisect.bisect_right(key_times, segment.start_s) - 1)]
        last = max(first, bisect.bisect_left(footage.times_s, segment.end_s) - 1)
        end = clean[bisect.bisect_left(clean, last)] + 1
        begin_s = footage.seconds(footage.coded[first].pts)
        if stretches and first < stretches[-1][1]:
            before = stretches.pop()
            stretches.append((before[0], max(end, before[1]), (*before[2], begin_s)))
        else:
            stretches.append((first, end, (begin_s,)))
    runs: list[Run] = []
    length = round(footage.end_s / footage.time_base) + times[0]
    for first, end, starts_s in stretches:
        start, stop = footage.coded[first].pts, times[end] if end < len(times) else length
        base = runs[-1].base + runs[-1].ticks if runs else 0
        runs.append(Run(first, end, starts_s, footage.seconds(stop), stop - start, base))
    return runs


def copied_tracks(
    container: Any, footage: Footage, runs: Sequence[Run], progress: Callable[[int], None]
) -> list[Iterator[Any]]:
    """The reel's tracks in a container that was opened for writing: the packets of each, read when asked for."""
    with opened(footage.path, "video") as (_, source):
        pictures = container.add_stream_from_template(source, opaque=True)
        if container.format.name == "mp4" and source.codec_context.name == "hevc":
            pictures.codec_context.codec_tag = "hvc1"  # the one of its two names that Apple's players know
    tracks = [_copied_pictures(footage, runs, pictures, progress)]
    if footage.sound_codec:
        with opened(footage.path, "audio") as (_, source):
            sound = container.add_stream_from_template(source, opaque=True)
        tracks.append(_copied_sound(footage, runs, sound))
    return tracks


def _copied_pictures(
    footage: Footage, runs: Sequence[Run], target: Any, progress: Callable[[int], None]
) -> Iterator[Any]:
    """The packets of the picture track, with times of the reel."""
    kept = [(place, run) for run in runs for place in range(run.first, run.end) if _is_kept(footage, place, run)]
    shown = [footage.coded[place].pts - footage.coded[run.first].pts + run.base for place, run in kept]
    decode_times = iter(_decode_times(shown))
    pictures = iter(shown)
    with opened(footage.path, "video") as (container, stream):
        for run in runs:
            key = footage.coded[run.first]
            container.seek(key.pts if key.dts is None else key.dts, stream=stream)
            place = run.first
            for packet in coded_packets(container, stream):
                if packet.pts != footage.coded[place].pts:
                    if place == run.first:  # a jump may end somewhere before the key frame
                        continue
                    break
                progress(1)
                if _is_kept(footage, place, run):
                    packet.pts, packet.dts, packet.stream = next(pictures), next(decode_times), target
                    packet.time_base = footage.time_base
                    yield packet
                place += 1
                if place == run.end:
                    break
            if place != run.end:
                raise VideoError(
                    f"{footage.name} can't be cut by copying: at {run.starts_s[0]:.1f} s it holds other frames than "
                    "when it was looked through. Encode the reel instead."
                )


def _copied_sound(footage: Footage, runs: Sequence[Run], target: Any) -> Iterator[Any]:
    """The packets of the sound track, with times of the reel, end to end.

    A packet is kept whole, so each run's sound is moved by up to half of one (10 ms of AAC), never by more: runs start
    anew from the pictures' times.
    """
    with opened(footage.path, "audio") as (container, stream):
        unit = float(stream.time_base)
        position = 0
        for run in runs:
            begin = (footage.offset_s + run.starts_s[0]) / unit
            offset = round(float(run.base * footage.time_base) / unit - begin)
            end = round(float((run.base + run.ticks) * footage.time_base) / unit)
            container.seek(int(begin), stream=stream)
            shift: int | None = None
            for packet in coded_packets(container, stream):
                length = packet.duration or 0
                at = packet.pts + offset
                if at < position - length / 2:
                    continue
                if shift is None:
                    shift = position - at if at <= position + length / 2 else 0
                at += shift
                if at > end - length / 2:
                    break
                packet.pts = packet.dts = at
                packet.stream = target
                position = at + length
                yield packet


def _is_kept(footage: Footage, place: int, run: Run) -> bool:
    """Not so the frames after a run's key frame that are shown before it: they need ones that are not there."""
    return footage.coded[place].pts >= footage.coded[run.first].pts


def _decode_times(shown: Sequence[int]) -> list[int]:
    """Decode times for frames in the order of the file: the times of showing in order, late enough for each frame."""
    times = np.array(shown, dtype=np.int64)
    order = np.argsort(times)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(times))
    delay = int(max(np.arange(len(times)) - rank))
    ascending = times[order]
    step = max(1, int(np.median(np.diff(ascending)))) if len(times) > 1 else 1
    before = ascending[0] - step * np.arange(delay, 0, -1)
    return [int(time) for time in np.concatenate([before, ascending])[: len(times)]]
