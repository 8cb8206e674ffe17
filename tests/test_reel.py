"""Reels: each frame of them is the source's of the right moment, sound stays with it, and a failure leaves no file.

Every frame of the films shows its number, and a tone starts with each event; reels are decoded again and compared.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import InputError, VideoError
from smolvlm.highlights import encoding
from smolvlm.highlights.reel import Reel, write_reel
from smolvlm.highlights.segments import Segment
from smolvlm.highlights.thumbnails import thumbnails
from tests.films import FILMS, Film, film, shown_number, tone_onsets_s
from tests.limits import files_of_at_most
from tests.videos import read_number, write_sound, write_video

COPYABLE = [name for name in FILMS if name not in ("camera.avi", "broadcast.ts")]
SYNC_S = 0.04
SAME_DB = 30.0  # coded twice, a frame is still this near to the source's; another frame's number strip is not


def segments_of(one: Film) -> list[Segment]:
    if one.seconds < 3:
        return [Segment(0.2 * one.seconds, 0.3 * one.seconds), Segment(0.6 * one.seconds, 0.85 * one.seconds)]
    return [Segment(2.1, 3.5, 0.9), Segment(4.3, 5.02, 0.8, "the second")]


def frames_of(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """(seconds from the first frame, upright picture) of all frames, by no code of ours."""
    with av.open(str(path)) as container:
        first = None
        for frame in container.decode(video=0):
            first = frame.time if first is None else first
            yield frame.time - first, frame.to_image().rotate(frame.rotation, expand=True)


def source_second(reel: Reel, second: float) -> float:
    """When in the source that is shown which the reel shows at this second."""
    starts = [cut.reel_start_s for cut in reel.cuts]
    cut = reel.cuts[bisect.bisect_right(starts, second + 0.002) - 1]
    return cut.start_s + second - cut.reel_start_s


def check_frames(one: Film, reel: Reel) -> int:
    """Every frame of a reel is the one that the source shows at its time. Returns how many there are."""
    source = list(frames_of(one.path))
    count = 0
    for second, image in frames_of(reel.path):
        index = bisect.bisect_right(one.times_s, source_second(reel, second) + 0.002) - 1
        assert shown_number(image) == shown_number(source[index][1]), f"at {second:.3f} s"
        assert decibels(image, source[index][1]) > SAME_DB
        count += 1
    return count


def check_sound(one: Film, reel: Reel) -> int:
    """Each event in a reel has its tone. Returns how many there are."""
    onsets = tone_onsets_s(reel.path)
    heard = 0
    for cut in reel.cuts:
        for event_s in one.tones_s:
            if cut.start_s + SYNC_S < event_s < cut.end_s - SYNC_S:
                due_s = event_s - cut.start_s + cut.reel_start_s
                assert min(abs(onset - due_s) for onset in onsets) < SYNC_S
                heard += 1
    return heard


def decibels(one: Image.Image, other: Image.Image) -> float:
    """Peak signal to noise; an odd row or column that one of them lacks doesn't count."""
    width, height = min(one.width, other.width), min(one.height, other.height)
    assert max(one.width, other.width) - width <= 1 and max(one.height, other.height) - height <= 1
    box = (0, 0, width, height)
    first, second = (np.asarray(image.crop(box), dtype=np.float64) for image in (one, other))
    return float(10 * np.log10(255**2 / max(np.mean((first - second) ** 2), 1e-9)))


def suffix_for(name: str) -> str:
    return {".avi": ".mp4", ".ts": ".mkv"}.get(Path(name).suffix, Path(name).suffix)


@pytest.mark.parametrize("name", FILMS)
def test_encoded_reel_shows_the_frames_that_were_asked_for(name: str, tmp_path: Path) -> None:
    one = film(name)
    reel = write_reel(one.path, segments_of(one), tmp_path / f"reel{suffix_for(name)}", copy=False)
    assert not reel.copied and reel.encoded_because
    frame_s = max(np.diff(one.times_s)) if name == "varying.mp4" else one.seconds / len(one.times_s)
    for cut in reel.cuts:
        assert abs(cut.start_s - cut.segment.start_s) <= min(frame_s, 0.05)
        assert abs(cut.end_s - cut.segment.end_s) <= min(frame_s, 0.05)
    shown = sum(cut.start_s <= time < cut.end_s - 1e-6 for cut in reel.cuts for time in one.times_s)
    assert shown <= check_frames(one, reel) <= shown + len(reel.cuts)  # one more where a border cuts into a frame
    assert reel.sound == one.sound
    if one.sound:
        assert check_sound(one, reel) == (1 if name == "late_sound.mp4" else 2)


@pytest.mark.parametrize("name", COPYABLE)
def test_copied_reel_starts_at_the_key_frames_before(name: str, tmp_path: Path) -> None:
    one = film(name)
    reel = write_reel(one.path, segments_of(one), tmp_path / f"reel{suffix_for(name)}", copy=True)
    assert reel.copied and not reel.encoded_because
    with av.open(str(one.path)) as container:
        keys = sorted(float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe)
    keys = [key - keys[0] for key in keys]
    before_s = 0.0
    for cut in reel.cuts:
        key = keys[bisect.bisect_right(keys, cut.segment.start_s + 1e-3) - 1]
        assert cut.start_s == pytest.approx(max(key, before_s), abs=0.002)  # never twice the same frames
        assert -0.002 <= cut.end_s - cut.segment.end_s <= 4.5 * max(np.diff(one.times_s))  # some B frames more
        before_s = cut.segment.end_s
    check_frames(one, reel)
    assert reel.sound == one.sound
    if one.sound:
        assert check_sound(one, reel) >= (1 if name == "late_sound.mp4" else 2)


@pytest.mark.parametrize("copy", [True, False])
def test_sound_is_with_the_picture_after_many_cuts(copy: bool, tmp_path: Path) -> None:
    one = film("minute.mp4")
    segments = [Segment(event_s - 0.31, event_s + 0.53) for event_s in one.events_s if 1 < event_s < 59]
    segments = [this for this, before in zip(segments[1:], segments, strict=False) if this.start_s > before.end_s]
    reel = write_reel(one.path, segments, tmp_path / "reel.mp4", copy=copy)
    assert len(reel.cuts) > 8
    check_frames(one, reel)
    assert check_sound(one, reel) >= len(segments)
    with av.open(str(reel.path)) as container:
        ends = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert abs(ends[0] - ends[1]) < 0.2 + SYNC_S and ends[0] == pytest.approx(reel.duration_s, abs=0.25)


def test_sound_that_starts_late_is_silence_before(tmp_path: Path) -> None:
    one = film("late_sound.mp4")
    reel = write_reel(one.path, [Segment(2.0, 3.0), Segment(4.0, 5.0)], tmp_path / "reel.mkv", copy=False)
    assert tone_onsets_s(reel.path) == pytest.approx([1.5], abs=SYNC_S)


def test_copying_is_chosen_where_it_starts_no_segment_early(tmp_path: Path) -> None:
    one = film("sound.mp4")
    assert write_reel(one.path, [Segment(2.1, 3)], tmp_path / "near.mp4").copied
    assert write_reel(one.path, [Segment(2.1, 3)], tmp_path / "other.mkv").copied
    far = write_reel(film("far_keys.mp4").path, [Segment(2.1, 3)], tmp_path / "far.mp4")
    assert not far.copied and "2.1 s" in far.encoded_because
    web = write_reel(one.path, [Segment(2.1, 2.5)], tmp_path / "web.webm")
    assert not web.copied and "h264" in web.encoded_because
    check_frames(one, web)


@pytest.mark.parametrize(("copy", "aspect"), [(True, Fraction(4, 3)), (False, Fraction(3, 4))])
def test_pixels_that_are_not_square_stay_so(copy: bool, aspect: Fraction, tmp_path: Path) -> None:
    reel = write_reel(film("wide_pixels.mp4").path, [Segment(0.5, 1)], tmp_path / "reel.mp4", copy=copy)
    with av.open(str(reel.path)) as container:  # the film is turned: a copy says so, what is encoded was turned upright
        assert container.streams.video[0].sample_aspect_ratio == aspect
        assert next(container.decode(video=0)).rotation == (90 if copy else 0)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("segment", [Segment(0.41, 0.415), Segment(0.999, 1.0), Segment(0, 0.001)])
def test_a_segment_shorter_than_a_frame_shows_one(segment: Segment, copy: bool, tmp_path: Path) -> None:
    one = film("second.mp4")
    reel = write_reel(one.path, [segment], tmp_path / "reel.mp4", copy=copy)
    assert reel.duration_s == pytest.approx(0.04) or copy
    assert check_frames(one, reel) == 1 or copy


def test_copied_hevc_has_the_name_that_all_players_know(tmp_path: Path) -> None:
    reel = write_reel(film("hevc.mp4").path, [Segment(1, 2)], tmp_path / "reel.mp4", copy=True)
    with av.open(str(reel.path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_copy_that_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be copied into a .webm reel: h264 pictures"):
        write_reel(film("sound.mp4").path, [Segment(1, 2)], tmp_path / "reel.webm", copy=True)
    with pytest.raises(InputError, match="where decoding can start"):
        write_reel(film("camera.avi").path, [Segment(1, 2)], tmp_path / "reel.mp4", copy=True)
    assert not list(tmp_path.iterdir())


def test_a_build_without_h264_writes_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = encoding.PICTURE_ENCODERS[".mp4"]
    others = {name: options for name, options in known.items() if name != "libx264"}
    monkeypatch.setattr(encoding, "PICTURE_ENCODERS", {".mp4": others})
    one = film("ntsc.mp4")
    reel = write_reel(one.path, segments_of(one), tmp_path / "reel.mp4", copy=False)
    check_frames(one, reel)
    monkeypatch.setattr(encoding, "PICTURE_ENCODERS", {".mp4": {"no_such_encoder": {}}})
    with pytest.raises(VideoError, match="none of no_such_encoder"):
        write_reel(one.path, segments_of(one), tmp_path / "other.mp4", copy=False)
    assert [path.name for path in tmp_path.iterdir()] == ["reel.mp4"]


def test_a_film_of_more_hours_than_one_question_may_be_about_is_cut(tmp_path: Path) -> None:
    hour = 3_600_000  # in thousandths of a second
    long = write_video(tmp_path / "long.mp4", 4, 1, codec="libx264", pts=[0, 3 * hour, 3 * hour + 500, 7 * hour])
    segment = Segment(3 * 3600, 3 * 3600 + 1)
    reel = write_reel(long, [segment], tmp_path / "reel.mp4", copy=False)
    assert reel.duration_s == pytest.approx(1.0)
    assert [read_number(image) for _, image in frames_of(reel.path)] == [1, 2]
    assert len(thumbnails(long, [segment], 2, (64, 64))[0]) == 2


def test_segments_come_in_the_order_of_time_and_end_with_the_film(tmp_path: Path) -> None:
    one = film("second.mp4")
    reel = write_reel(one.path, [Segment(0.8, 5), Segment(0.1, 0.3, title="first")], tmp_path / "reel.mp4", copy=False)
    assert [cut.segment.title for cut in reel.cuts] == ["first", ""]
    assert reel.cuts[-1].end_s == pytest.approx(1.0)
    assert [segment.start_s for segment in reel.segments()] == pytest.approx([0, 0.2], abs=0.041)
    check_frames(one, reel)


def test_segments_that_make_no_reel_are_refused(tmp_path: Path) -> None:
    one = film("second.mp4")
    with pytest.raises(InputError, match="no segment"):
        write_reel(one.path, [], tmp_path / "reel.mp4")
    with pytest.raises(InputError, match="overlap"):
        write_reel(one.path, [Segment(0, 0.5), Segment(0.4, 0.6)], tmp_path / "reel.mp4")
    with pytest.raises(InputError, match="behind the end"):
        write_reel(one.path, [Segment(3, 4)], tmp_path / "reel.mp4")
    assert not list(tmp_path.iterdir())


def test_names_that_can_be_no_reel_are_refused(tmp_path: Path) -> None:
    one = film("second.mp4")
    own = tmp_path / "own.mp4"
    own.write_bytes(one.path.read_bytes())
    with pytest.raises(InputError, match=r"\.gif: name it \.mp4, \.mkv, \.webm"):
        write_reel(one.path, [Segment(0, 1)], tmp_path / "reel.gif")
    with pytest.raises(InputError, match="over its own source"):
        write_reel(own, [Segment(0, 1)], tmp_path / "." / "own.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        write_reel(one.path, [Segment(0, 1)], tmp_path / "folder.mp4")
    with pytest.raises(VideoError, match="can't be written"):
        write_reel(one.path, [Segment(0, 1)], tmp_path / "missing" / "reel.mp4")
    assert own.read_bytes() == one.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "own.mp4"]


@pytest.mark.parametrize("content", ["sound", "empty", "text", "head", "nothing"])
def test_sources_that_are_no_video_are_refused_and_leave_nothing(content: str, tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    if content == "sound":
        write_sound(source)
    elif content != "nothing":
        whole = film("second.mp4").path.read_bytes()
        source.write_bytes({"empty": b"", "text": b"hello, I am no film", "head": whole[:40]}[content])
    with pytest.raises(VideoError):
        write_reel(source, [Segment(0, 1)], tmp_path / "reel.mp4")
    assert [path for path in tmp_path.iterdir() if path != source] == []


@pytest.mark.parametrize("copy", [True, False])
def test_what_comes_before_a_broken_tail_can_be_cut(copy: bool, tmp_path: Path) -> None:
    one = film("open_gop.mkv")
    whole = one.path.read_bytes()
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole[: len(whole) * 6 // 10])
    reel = write_reel(broken, [Segment(1, 2)], tmp_path / "reel.mkv", copy=copy)
    assert reel.cuts[0].end_s == pytest.approx(2, abs=0.2)
    check_frames(one, reel)
    with pytest.raises(InputError, match="behind the end"):
        write_reel(broken, [Segment(7, 8)], tmp_path / "late.mkv", copy=copy)
    cut_off = tmp_path / "cut_off.mp4"
    cut_off.write_bytes(film("second.mp4").path.read_bytes()[:-100])
    with pytest.raises(VideoError):
        write_reel(cut_off, [Segment(0, 1)], tmp_path / "late.mp4", copy=copy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mkv", "cut_off.mp4", "reel.mkv"]


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_told_and_leaves_the_old_reel(copy: bool, suffix: str, tmp_path: Path) -> None:
    one = film("sound.mp4")
    target = tmp_path / f"reel{suffix}"
    target.write_bytes(b"an older reel")
    with files_of_at_most(8192), pytest.raises(VideoError, match="can't be written"):
        write_reel(one.path, [Segment(0, 7)], target, copy=copy)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"an older reel"


@pytest.mark.parametrize("copy", [True, False])
def test_an_interruption_leaves_nothing(copy: bool, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_reel(film("sound.mp4").path, [Segment(1, 3)], tmp_path / "reel.mp4", copy=copy, on_progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("copy", [True, False])
def test_progress_counts_the_frames_of_the_reel(copy: bool, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one = film("silent.mp4")
    write_reel(one.path, [Segment(2, 3)], tmp_path / "r.mp4", copy=copy, on_progress=lambda *pair: told.append(pair))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_players_find_each_segment_by_a_key_frame(tmp_path: Path) -> None:
    reel = write_reel(film("sound.mp4").path, [Segment(1, 1.5), Segment(3, 3.6)], tmp_path / "reel.mp4", copy=False)
    with av.open(str(reel.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.streams.audio[0].codec_context.name == "aac"
        keys = {round(p.pts * p.time_base / Fraction(1, 25)) for p in container.demux(stream) if p.is_keyframe}
    assert {0, round(reel.cuts[1].reel_start_s * 25)} <= keys
    head = reel.path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # so that it plays while it is still being fetched
