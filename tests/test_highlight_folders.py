"""A folder of pictures stands for a video wherever no reel is cut; lists and a page need no reel either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import smolvlm
from smolvlm.errors import InputError, VideoError
from smolvlm.highlights import build_index, read_record
from smolvlm.media.folder import open_folder, pictures_in
from smolvlm.media.video import FrameList
from smolvlm.vlm import VLM
from tests.commands import run
from tests.eventful import FPS, Eventful, overlap, pictures, plans, write_eventful

SORTS = (None, "move", None)
MOVES = "Does anything move?"


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Eventful:
    return write_eventful(tmp_path_factory.mktemp("film") / "film.mp4", SORTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The film's frames, two a second, with names that only people put in order."""
    folder = tmp_path_factory.mktemp("film") / "frames"
    folder.mkdir()
    for number, picture in enumerate(list(pictures(plans(SORTS)))[:: FPS // 2]):
        picture.save(folder / f"frame{number + 1}.png")
    (folder / "Thumbs.db").write_text("nothing to see")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def few(folder: Path, names: list[str], times: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (32, 32), "navy").save(folder / name)
    if times is not None:
        (folder / "timestamps.txt").write_text(times)
    return folder


# ---- the folder ----


def test_pictures_are_ordered_as_people_count(tmp_path: Path) -> None:
    few(tmp_path, ["shot10.png", "shot9.JPG", "shot1.png", ".hidden.png", "b.png"])
    (tmp_path / "notes.txt").write_text("x")
    assert [one.name for one in pictures_in(tmp_path)] == ["b.png", "shot1.png", "shot9.JPG", "shot10.png"]


def test_frames_are_one_a_second_at_a_rate_or_when_the_list_beside_them_says(tmp_path: Path) -> None:
    few(tmp_path, ["1.png", "2.png", "3.png"])

    def seconds(**given: float) -> list[float]:
        video = open_folder(tmp_path, **given)
        return [video.timestamp_s(number) for number in range(3)]

    assert (seconds(), seconds(fps=4.0)) == ([0, 1, 2], [0, 0.25, 0.5])
    few(tmp_path, [], "0.5\n2\n\n30.25\n")
    assert seconds() == [0.5, 2, 30.25]


@pytest.mark.parametrize(
    ("times", "fps", "message"),
    [
        ("0\n1\n", 2.0, "has times of its own in timestamps.txt"),
        ("0\nx\n", None, "holds 'x' where seconds belong"),
        ("0\nnan\n", None, "holds 'nan' where seconds belong"),
        ("0\n", None, "2 frames but 1 timestamps_s"),
        ("1\n0\n", None, "must ascend"),
    ],
)
def test_times_that_cannot_be_used_are_refused(times: str, fps: float | None, message: str, tmp_path: Path) -> None:
    few(tmp_path, ["1.png", "2.png"], times)
    with pytest.raises(InputError, match=message):
        open_folder(tmp_path, fps=fps)


def test_a_folder_without_pictures_says_what_belongs_into_it(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"holds no pictures. Frames must end in \.avif, .*\.webp"):
        open_folder(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match="holds no pictures. Name the videos in it one by one"):
        open_folder(tmp_path)


# ---- looking ----


def test_a_folder_is_seen_as_the_list_of_its_pictures_and_once(
    vlm: VLM, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = build_index(vlm, [str(one) for one in pictures_in(folder)], frame_fps=2.0, cache=cache)
    index = build_index(vlm, folder, frame_fps=2.0, cache=cache)
    assert list(index.encoded["time_s"]) == list(listed.encoded["time_s"]) == [n / 2 for n in range(len(index.encoded))]
    assert (index.directory / "features.bin").read_bytes() == (listed.directory / "features.bin").read_bytes()
    assert index.name == str(folder)
    monkeypatch.setattr(FrameList, "frames", lambda *_: pytest.fail("frames were decoded again"))
    assert build_index(vlm, str(folder), frame_fps=2.0, cache=cache).directory == index.directory


def test_frames_as_many_as_a_video_has_are_looked_at_like_one(vlm: VLM, folder: Path, cache: Path) -> None:
    index = build_index(vlm, folder, frame_fps=10.0, cache=cache)
    count = len(pictures_in(folder))
    assert list(index.encoded["time_s"]) == [float(second) for second in range(-(-count // 10))]
    assert build_index(vlm, folder, frame_fps=10.0, fps=10.0, cache=cache).encoded.size == count


def test_a_picture_that_was_replaced_is_looked_at_again(vlm: VLM, tmp_path: Path) -> None:
    frames = few(tmp_path / "frames", ["1.png", "2.png"])
    first = build_index(vlm, frames, cache=tmp_path)
    Image.new("RGB", (32, 32), "red").save(frames / "2.png")
    assert build_index(vlm, frames, cache=tmp_path).directory != first.directory


# ---- the commands ----


def test_events_of_a_folder_are_found_and_written_without_a_reel(
    film: Eventful, folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["highlights", str(folder), "--frame-fps", "2", "--cache", str(cache), "--padding", "0"]
    outcome = run(capsys, [*words, "--criteria", MOVES, "-o", str(tmp_path / "marks.html")])
    assert outcome.code == 0, outcome.err
    assert {one.name for one in tmp_path.iterdir()} == {"marks.html", "marks.highlights.json", "marks.vtt", "marks.png"}
    record = read_record(tmp_path / "marks.highlights.json")
    (segment,) = record.segments
    assert overlap((segment.start_s, segment.end_s), film.spans("move")[0]) >= 0.5
    assert record.facts["frame_fps"] == 2 and record.facts["reel"] is None
    page = (tmp_path / "marks.html").read_text(encoding="utf-8")
    assert "is a folder of pictures, which can't be played" in page and " src=" not in page.split("<script")[0]
    content = json.loads(page.split('id="result">')[1].split("</script>")[0])
    assert content["reel"].endswith("marks.html") and content["posters"]
    assert content["options"] == ["--frame-fps", "2", "--cache", str(cache)]
    again = ["highlights", "--from", str(tmp_path / "marks.highlights.json"), "--top", "1"]
    assert run(capsys, [*again, "-o", str(tmp_path / "again.html")]).code == 0
    assert (tmp_path / "again.png").stat().st_size


def test_lists_and_page_of_a_film_need_no_reel(
    film: Eventful, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["highlights", str(film.path), "--criteria", MOVES, "--cache", str(cache)]
    outcome = run(capsys, [*words, "-o", str(tmp_path / "marks.html")])
    assert outcome.code == 0, outcome.err
    suffixes = {"".join(one.suffixes) for one in tmp_path.iterdir()}
    assert suffixes == {".html", ".highlights.json", ".vtt", ".xspf", ".edl", ".png"}
    assert '"reel": "' + str(tmp_path / "marks.mp4") in (tmp_path / "marks.html").read_text(encoding="utf-8")


def test_every_command_on_videos_takes_a_folder(
    film: Eventful, folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = ["--frame-fps", "2", "--cache", str(cache)]
    found = run(capsys, ["search", str(folder), str(film.path), MOVES, "--json", *look])
    best = {json.loads(line)["video"] for line in found.out.splitlines()[:2]}
    assert best == {str(folder), str(film.path)}
    chapters = json.loads(run(capsys, ["chapters", str(folder), "--format", "json", *look]).out)
    assert chapters["video"] == str(folder) and chapters["chapters"][-1]["end_s"] == pytest.approx(film.seconds)
    log = run(capsys, ["describe-video", str(folder), *look])
    assert log.code == 0 and "moves" in log.out
    long = run(capsys, ["ask", str(folder), "What moves?", "--long", "--json", "--max-new-tokens", "8", *look])
    assert json.loads(long.out)["log"]
    asked = run(capsys, ["ask", str(folder), "What moves?", "--json", "--frame-fps", "2", "--max-frames", "6"])
    (seen,) = json.loads(asked.out)["frames"]
    assert len(seen["indices"]) == 6 and seen["timestamps_s"][1] == seen["indices"][1] / 2
    counted = run(capsys, ["tokens", str(folder), "--max-frames", "6"])
    assert "6 frames" in counted.out
    dry = run(capsys, ["highlights", str(folder), "--criteria", MOVES, "--dry-run", *look])
    assert dry.code == 0 and dry.out.startswith("  1  ")


def test_times_beside_the_pictures_are_shown_to_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = few(tmp_path / "frames", ["1.png", "2.png"], "0\n90\n")
    asked = run(capsys, ["ask", str(frames), "What changes?", "--json"])
    assert json.loads(asked.out)["frames"][0]["timestamps_s"] == [0, 90]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["highlights", "frames", "-o", "reel.mp4"], "frames is a folder of pictures: name a page, e.g. -o reel.html"),
        (["highlights", "film.mp4", "-o", "marks.html", "--copy"], "--copy and --encode are of a reel"),
        (["highlights", "film.mp4", "-o", "reel.gif"], "can't be written as .gif: name it .mp4, .mkv, .webm"),
        (["highlights", "film.mp4", "-o", "nowhere/reel.mp4"], "there is no directory nowhere to write reel.mp4 to"),
        (["highlights", "film.mp4", "-o", "frames"], "frames is a directory: name a file in it"),
        (["highlights", "film.mp4", "--dry-run", "--frame-fps", "2"], "--frame-fps is for a folder of pictures"),
        (["chapters", "film.mp4", "-o", "nowhere/list.txt"], "there is no directory nowhere"),
        (["describe-video", "empty"], "The folder 'empty' holds no pictures"),
        (["search", "empty", "a dog"], "The folder 'empty' holds no pictures"),
        (["ask", "empty", "What is it?"], "The folder 'empty' holds no pictures"),
        (["ask", "frames", "What is it?", "--frame-fps", "0"], "argument --frame-fps"),
        (["chat", "frames"], "frames is a directory"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_loaded(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smolvlm.vlm.load", lambda *_, **__: pytest.fail("the model was loaded"))
    few(tmp_path / "frames", ["1.png"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "film.mp4").write_bytes(b"a film")
    outcome = run(capsys, words)
    assert outcome.code == 2 and message in outcome.error
