"""Picture or video: told by content, also of every kind that Pillow and FFmpeg write here."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from smolvlm.errors import FetchError, MediaError
from smolvlm.media.kind import identify
from tests.videos import write_sound, write_video

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
CONTAINERS = ("mp4", "mov", "mkv", "avi", "mpg", "ts", "flv", "wmv")


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_of_any_name_is_a_picture(form: str, tmp_path: Path) -> None:
    path = tmp_path / "something.mp4"
    Image.new("RGB", (40, 30), "red").save(path, form)
    assert identify(path)[0] == "image"
    assert identify(path.read_bytes()) == ("image", path.read_bytes())


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_video_in_any_container_is_a_video(container: str, tmp_path: Path) -> None:
    codec = {"mpg": "mpeg2video", "flv": "flv1", "wmv": "wmv2"}.get(container, "mpeg4")
    path = write_video(tmp_path / f"clip.{container}", codec=codec, rate=25)
    assert identify(path) == ("video", path)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_picture_that_moves_is_a_video(tmp_path: Path, ending: str) -> None:
    still, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    still.save(tmp_path / f"still.{ending}")
    still.save(tmp_path / f"moving.{ending}", save_all=True, append_images=[second])
    assert identify(tmp_path / f"still.{ending}")[0] == "image"
    assert identify(tmp_path / f"moving.{ending}")[0] == "video"


def test_a_file_that_is_neither_is_left_to_the_door_its_name_asks_for(tmp_path: Path) -> None:
    for name, kind in (("words.png", "image"), ("words.mp4", "video"), ("words", "image")):
        (tmp_path / name).write_text("just some words")
        assert identify(tmp_path / name)[0] == kind
    assert identify(write_sound(tmp_path / "sound.mp4"))[0] == "video"


def test_what_is_not_there_or_not_allowed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no file"):
        identify(tmp_path / "nowhere.png")
    with pytest.raises(FetchError, match="allow_url"):
        identify("https://example.com/cat.png")
