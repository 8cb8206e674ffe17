"""The cache of what was seen stays under a bound: the longest unused goes first, and nothing that anybody works on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import smolvlm
from smolvlm.errors import InputError
from smolvlm.highlights import build_index
from smolvlm.highlights.cache import CACHE_VARIABLE, LIMIT_VARIABLE, Shelf, cache_directory, make_room, most_bytes
from smolvlm.vlm import VLM
from tests.commands import REPOSITORY, run
from tests.eventful import write_eventful

needs_locks = pytest.mark.skipif(os.name == "nt", reason="directories with open files can't be moved on Windows")


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return smolvlm.load()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [write_eventful(folder / f"{seed}.mp4", ["move"], seed=seed).path for seed in range(3)]


def keep(videos: Path, name: str, num_bytes: int, used_s: float) -> Path:
    """A video of the cache, last used at that time."""
    directory = Shelf(videos / name).directory
    (directory / "features.bin").write_bytes(bytes(num_bytes))
    os.utime(directory / "used", (used_s, used_s))
    return directory


def names(videos: Path) -> set[str]:
    return {entry.name for entry in videos.iterdir()}


def size(videos: Path) -> int:
    return sum(file.stat().st_size for file in videos.rglob("*") if file.is_file())


def test_the_longest_unused_go_first_until_the_others_fit(tmp_path: Path) -> None:
    for name, used_s in (("new", 300), ("old", 100), ("middle", 200)):
        keep(tmp_path, name, 1000, used_s)
    make_room(tmp_path, 3000)
    assert names(tmp_path) == {"new", "middle", "old"}
    make_room(tmp_path, 2999)
    assert names(tmp_path) == {"new", "middle"}
    make_room(tmp_path, 0)
    assert names(tmp_path) == set()


def test_being_asked_about_again_counts_as_use(tmp_path: Path) -> None:
    keep(tmp_path, "first", 1000, 100)
    keep(tmp_path, "second", 1000, 200)
    Shelf(tmp_path / "first")
    make_room(tmp_path, 1000)
    assert names(tmp_path) == {"first"}


def test_what_is_in_use_stays_however_old(tmp_path: Path) -> None:
    keep(tmp_path, "held", 1000, 100)
    held = Shelf(tmp_path / "held")
    os.utime(held.directory / "used", (100, 100))
    keep(tmp_path, "other", 1000, 200)
    make_room(tmp_path, 1000)
    assert names(tmp_path) == {"held"}
    del held
    make_room(tmp_path, 0)
    assert names(tmp_path) == set()


def test_what_an_older_version_left_and_what_a_kill_left_go_too(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "features.bin").write_bytes(bytes(1000))
    (tmp_path / ".removed-x-1").mkdir()
    make_room(tmp_path, 500)
    assert names(tmp_path) == set()


def start(program: str, *words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-c", "from smolvlm.highlights.cache import Shelf, make_room\n" + program]
    return subprocess.Popen([*command, *map(str, words)], env=environment, stdout=subprocess.PIPE, text=True)


@needs_locks
def test_what_another_process_uses_stays_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    keep(tmp_path, "theirs", 1000, 100)
    other = start(
        "import pathlib, sys, time; held = Shelf(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)",
        tmp_path / "theirs",
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    make_room(tmp_path, 0)
    assert names(tmp_path) == {"theirs"}
    other.kill()
    other.wait()
    other.stdout.close()
    make_room(tmp_path, 0)
    assert names(tmp_path) == set()


@needs_locks
def test_runs_that_make_room_at_once_never_take_what_another_holds(tmp_path: Path) -> None:
    program = """
import pathlib, random, sys
videos, rng = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(150):
    shelf = Shelf(videos / rng.choice("ab"))
    note = shelf.directory / f"{sys.argv[2]}.bin"
    note.write_bytes(bytes(100))
    make_room(videos, rng.choice([0, 100]))
    assert note.exists() and (shelf.directory / "used").exists()
    note.unlink()
    del shelf
"""
    others = [start(program, tmp_path, seed) for seed in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    for other in others:
        assert other.stdout is not None
        other.stdout.close()


def test_looking_at_a_video_makes_room_for_all_of_it(vlm: VLM, films: list[Path], tmp_path: Path) -> None:
    kept = [build_index(vlm, film, cache=tmp_path).directory for film in films[:2]]
    os.utime(kept[0] / "used", (100, 100))
    limit = size(tmp_path / "videos") + 2000  # the third doesn't fit beside the two
    last = build_index(vlm, films[2], cache=tmp_path, cache_gb=limit / 1e9)
    assert names(tmp_path / "videos") == {kept[1].name, last.directory.name}
    assert size(tmp_path / "videos") <= limit


def test_an_index_that_somebody_holds_can_be_asked_whatever_the_bound(
    vlm: VLM, films: list[Path], tmp_path: Path
) -> None:
    held = build_index(vlm, films[0], cache=tmp_path)
    build_index(vlm, films[1], cache=tmp_path, cache_gb=0)
    shown = held.features(vlm, held.choose(0.0, 9.0))
    assert vlm.decide("Does anything move?", features=shown).label_mass > 0.9


def test_a_cache_that_can_only_be_read_is_used(
    vlm: VLM, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build_index(vlm, films[0], cache=tmp_path).directory
    monkeypatch.setattr("smolvlm.highlights.cache.os.open", _refused)
    assert build_index(vlm, films[0], cache=tmp_path).directory == made


def _refused(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_the_bound_comes_from_the_caller_the_environment_or_is_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert most_bytes(None) == 10e9
    monkeypatch.setenv(LIMIT_VARIABLE, "2.5")
    assert (most_bytes(None), most_bytes(0)) == (2.5e9, 0)
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(InputError, match="SMOLVLM_CACHE_GB='much' can't be used: .*gigabytes"):
        most_bytes(None)
    with pytest.raises(InputError, match=r"cache_gb=-1 can't be used"):
        most_bytes(-1)


def test_the_directory_comes_from_the_caller_the_environment_or_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert (cache_directory(None), cache_directory("~/x")) == (tmp_path, Path.home() / "x")
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_directory(None) == Path.home() / ".cache" / "smolvlm"


def test_the_command_line_bounds_the_cache(
    films: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for film in films[:2]:
        words = ["describe-video", str(film), "--cache", str(tmp_path), "--cache-gb", "0"]
        assert run(capsys, words).code == 0
    assert len(names(tmp_path / "videos")) == 1
    outcome = run(capsys, ["describe-video", str(films[0]), "--cache", str(tmp_path), "--cache-gb", "x"])
    assert outcome.code == 2
