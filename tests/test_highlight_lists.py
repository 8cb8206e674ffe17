"""Chapters, playlists, edit lists and the record of a result: each is read back by the rules of its own format."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from smolvlm.errors import DataError, InputError, VideoError
from smolvlm.highlights.lists import edl, relative_uri, short_clock, webvtt, xspf, youtube_chapters
from smolvlm.highlights.record import read_record, write_record
from smolvlm.highlights.reel import write_reel
from smolvlm.highlights.segments import Curve, Segment
from tests.films import film

NASTY = 'A & B --> <b>"goal"</b>\n\nNOTE \x00\x1b tab\there\u2028'
SHOWN = 'A & B --> <b>"goal"</b> NOTE tab here'
SEGMENTS = [
    Segment(0.4, 12.25, 0.9, "The red circle moves"),
    Segment(75.0, 80.5, 0.8, NASTY),
    Segment(3723.04, 3800.9996, 0.7),
]
TITLES = ["The red circle moves", SHOWN, "Highlight 3"]
XSPF = "{http://xspf.org/ns/0/}"
VLC = "{http://www.videolan.org/vlc/playlist/ns/0/}"


def parse_webvtt(text: str) -> list[tuple[float, float, str]]:
    """The cues of a file, by the W3C's grammar: blocks between blank lines, the arrow line, text with entities."""
    header, *blocks = re.split(r"\n{2,}", text.strip("\n"))
    assert header == "WEBVTT"
    stamp = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"
    cues = []
    for block in blocks:
        name, times, payload = block.split("\n")
        assert "-->" not in name and "-->" not in payload
        matched = re.fullmatch(f"{stamp} --> {stamp}", times)
        assert matched is not None
        parts = [int(part) for part in matched.groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (parts[:4], parts[4:]))
        assert start < end
        assert not re.search(r"<|&(?!amp;|lt;|gt;)", payload)
        cues.append((start, end, payload.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))
    return cues


def test_webvtt_holds_every_segment_to_the_millisecond() -> None:
    cues = parse_webvtt(webvtt(SEGMENTS))
    assert [cue[2] for cue in cues] == TITLES
    assert [cue[0] for cue in cues] == pytest.approx([0.4, 75.0, 3723.04], abs=1e-9)
    assert [cue[1] for cue in cues] == pytest.approx([12.25, 80.5, 3801.0], abs=1e-9)
    assert parse_webvtt(webvtt([])) == []


def test_youtube_takes_the_chapter_list() -> None:
    lines = [line.split(" ", 1) for line in youtube_chapters(SEGMENTS).splitlines()]
    assert lines == [["0:00:00", TITLES[0]], ["0:01:15", SHOWN], ["1:02:03", "Highlight 3"]]
    close = [Segment(20, 21, title="one"), Segment(25, 26, title="too near"), Segment(31, 40, title="two")]
    assert youtube_chapters(close) == "0:00 Start\n0:20 one\n0:31 two\n"


def test_vlc_plays_each_segment_of_the_playlist() -> None:
    root = ElementTree.fromstring(xspf(SEGMENTS, "my%20films/a%26b.mp4", "Highlights of <a & b>"))
    assert root.tag == f"{XSPF}playlist" and root.get("version") == "1"
    assert root.findtext(f"{XSPF}title") == "Highlights of <a & b>"
    tracks = root.findall(f"{XSPF}trackList/{XSPF}track")
    assert [track.findtext(f"{XSPF}title") for track in tracks] == TITLES
    assert {track.findtext(f"{XSPF}location") for track in tracks} == {"my%20films/a%26b.mp4"}
    options = [[option.text for option in track.iter(f"{VLC}option")] for track in tracks]
    assert options[0] == ["start-time=0.400", "stop-time=12.250"]
    assert options[2] == ["start-time=3723.040", "stop-time=3801.000"]
    assert [track.findtext(f".//{VLC}id") for track in tracks] == ["0", "1", "2"]
    assert [track.findtext(f"{XSPF}duration") for track in tracks] == ["11850", "5500", "77960"]
    assert all(
        one.get("application", "").startswith("http://www.videolan.org/") for one in root.iter(f"{XSPF}extension")
    )


@pytest.mark.parametrize(("fps", "rate"), [(25, 25), (Fraction(30000, 1001), 30), (1, 1), (240, 60), (59.94, 60)])
def test_edit_list_adds_up(fps: float, rate: int) -> None:
    text = edl(SEGMENTS, "a b.mp4", "Reel", fps=float(fps), sound=True)
    assert text.startswith("TITLE: Reel\nFCM: NON-DROP FRAME\n")
    code = r"(\d\d):([0-5]\d):([0-5]\d):(\d\d)"
    events = re.findall(rf"^(\d{{3}})  AX       B     C        {code} {code} {code} {code}$", text, re.MULTILINE)
    assert [event[0] for event in events] == ["001", "002", "003"]
    position = 0
    counted = float(fps) / (4 if fps == 240 else 1)
    for event, segment in zip(events, SEGMENTS, strict=True):
        numbers = [int(part) for part in event[1:]]
        assert all(frame < rate for frame in numbers[3::4])
        source_in, source_out, record_in, record_out = (
            ((h * 60 + m) * 60 + s) * rate + f for h, m, s, f in zip(*[iter(numbers)] * 4, strict=True)
        )
        assert abs(source_in - segment.start_s * counted) <= 0.5 + 1e-6
        assert source_out - source_in == record_out - record_in > 0
        assert record_in == position
        position = record_out
    assert text.count("* FROM CLIP NAME: a b.mp4\n") == 3
    assert f"* COMMENT: {SHOWN}\n" in text
    assert "  V     C  " in edl(SEGMENTS, "a.mp4", "Reel", fps=25, sound=False)


def test_edit_list_has_its_limit() -> None:
    with pytest.raises(InputError, match="999 edits at most, and these are 1,000"):
        edl([Segment(second, second + 1) for second in range(1000)], "a.mp4", "Reel", fps=25, sound=False)


def test_lists_name_the_video_so_that_both_can_move(tmp_path: Path) -> None:
    assert relative_uri(tmp_path / "my films" / "a&b #1.mp4", tmp_path) == "my%20films/a%26b%20%231.mp4"
    assert relative_uri(tmp_path / "a.mp4", tmp_path / "out") == "../a.mp4"
    uri = relative_uri(tmp_path / "é:ü.mp4", tmp_path)
    assert unquote(uri) == "é:ü.mp4" and ":" not in uri  # what stands before a colon would be a scheme


def test_times_are_written_as_people_read_them() -> None:
    assert [short_clock(second) for second in (0, 5.04, 59.96, 65.25, 3599.96, 3723.5)] == [
        "0:00.0", "0:05.0", "1:00.0", "1:05.2", "60:00.0", "1:02:04",
    ]  # fmt: skip


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    curve = Curve((0.0, 1.0, 2.5), (0.1, 0.92345678, 0.0))
    facts = {"criteria": ["a goal"], "prompts": {"question": "Ist das ein Tor? ✓"}, "seed": 0, "duration_s": 4.0}
    path = tmp_path / "reel.highlights.json"
    write_record(path, SEGMENTS, curve, facts)
    back = read_record(path)
    assert back.segments == tuple(SEGMENTS)
    assert back.curve == Curve((0.0, 1.0, 2.5), (0.1, 0.923457, 0.0))
    assert {name: back.facts[name] for name in facts} == facts
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [set(one) >= {"start_s", "end_s", "score"} for one in written["segments"]] == [True] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["reel.highlights.json"]


def test_a_record_tells_how_the_reel_was_cut(tmp_path: Path) -> None:
    reel = write_reel(film("silent.mp4").path, [Segment(2.1, 3.0)], tmp_path / "reel.mp4", copy=True)
    path = tmp_path / "reel.highlights.json"
    write_record(path, [Segment(2.1, 3.0)], Curve((0.0,), (0.5,)), {}, reel)
    told = json.loads(path.read_text())["reel"]
    assert (told["file"], told["copied"], told["encoded_because"]) == ("reel.mp4", True, "")
    assert told["cuts"] == [
        {
            "asked_start_s": 2.1,
            "asked_end_s": 3.0,
            "start_s": 2.0,
            "end_s": pytest.approx(3.0, abs=0.1),
            "reel_start_s": 0,
        }
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "is no JSON"),
        ("[]", "no segments with a score curve"),
        ('{"format": 9, "segments": [], "curve": {}}', "format 9"),
        ('{"format": 1, "segments": [], "curve": {"times_s": [0]}}', "'scores' is missing"),
        ('{"format": 1, "segments": [{"start_s": 3, "end_s": 1, "score": 1}], "curve": {}}', "from 3 s to 1 s"),
        ('{"format": 1, "segments": [{"start_s": "x", "end_s": 1, "score": 1}], "curve": {}}', "'x' stands where"),
        ('{"format": 1, "segments": [{"start_s": 0, "end_s": Infinity, "score": 1}], "curve": {}}', "inf stands where"),
        ('{"format": 1, "segments": [], "curve": {"times_s": [1, 0], "scores": [0, 0]}}', "times that ascend"),
        ('{"format": 1, "segments": [3], "curve": {}}', "can't be used"),
    ],
)
def test_files_that_are_no_record_are_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.highlights.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_record(path)


def test_places_that_cannot_be_read_or_written_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_record(tmp_path / "none.json")
    with pytest.raises(VideoError, match="can't be written"):
        write_record(tmp_path / "none" / "x.json", [], Curve((), ()), {})
    with pytest.raises(ValueError):
        write_record(tmp_path / "x.json", [], Curve((), ()), {"score": math.nan})
    assert not list(tmp_path.iterdir())
