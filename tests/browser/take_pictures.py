"""Take the pictures of the page that docs/server.md shows: python -m tests.browser.take_pictures [FOLDER]

Everything on them is drawn here, and every answer is the bundled model's. Needs Chromium.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from smolvlm.scenes import draw
from tests.browser.asking import attach, say, settle, turn_to
from tests.browser.conftest import FLAGS, serving

FOLDER = Path(__file__).resolve().parents[2] / "docs"
DESKTOP, PHONE = (1200, 900), (360, 740)
SEED = 5
FILM_SIDE, FILM_FPS = 480, 8
CAMERA_FPS, CAMERA_S = 30, 10  # Chromium plays a file at this rate
Visit = Callable[..., Any]


def write_film(path: Path) -> None:
    """Seven seconds in which two things happen one after the other."""
    clip = draw("video", SEED, 2).clip
    assert clip is not None, "this skill draws clips"
    large = [frame.resize((FILM_SIDE, FILM_SIDE), Image.Resampling.LANCZOS) for frame in clip.frames]
    encode(path, (frame for frame in large for _ in range(FILM_FPS)), FILM_FPS, "libx264", "yuv420p", {"crf": "14"})


def write_camera(path: Path) -> None:
    """What the camera sees: a table of shapes over which a red circle passes now and then."""
    frames = (camera_frame(number / CAMERA_FPS) for number in range(CAMERA_FPS * CAMERA_S))
    encode(path, frames, CAMERA_FPS, "mjpeg", "yuvj420p", {"qscale": "2"})


def camera_frame(second: float) -> Image.Image:
    frame = Image.new("RGB", (640, 480), (250, 247, 238))
    pen = ImageDraw.Draw(frame)
    pen.rectangle((440, 290, 550, 400), fill=(40, 88, 214))
    pen.polygon([(150, 300), (215, 420), (85, 420)], fill=(242, 208, 28))
    if second % 5 > 1.5:
        x, y = 640 * (0.2 + 0.6 * (second % 5 - 1.5) / 3.5), 150 + 25 * math.sin(2 * second)
        pen.ellipse((x - 58, y - 58, x + 58, y + 58), fill=(218, 38, 42))
    return frame


def encode(
    path: Path, frames: Iterable[Image.Image], fps: int, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, picture in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=options)
                stream.width, stream.height, stream.pix_fmt = *picture.size, pix_fmt
                stream.codec_context.time_base = Fraction(1, fps)
            frame = av.VideoFrame.from_image(picture).reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def keep(page: Any, path: Path) -> None:
    """A screenshot in 256 colours, which is all that a drawn page has."""
    page.mouse.move(2, 300)
    page.wait_for_timeout(400)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def take_chat(visit: Visit, given: Path, folder: Path) -> None:
    for name, size, scheme in (("chat", DESKTOP, "light"), ("chat-dark", DESKTOP, "dark"), ("phone", PHONE, "light")):
        page = visit(size, scheme)
        say(page, "List the items.", given / "receipt.png")
        say(page, "What is the total price?")
        attach(page, given / "shapes.png")
        page.fill("#words", "Describe the picture.")
        settle(page, "#tray .card", "tiles")
        settle(page, "#meter-text", "left")
        keep(page, folder / f"page-{name}.png")
        page.context.close()


def take_camera(visit: Visit, folder: Path) -> None:
    page = visit(DESKTOP, "light")
    turn_to(page, "camera")
    page.check("[name=eye-mode][value=watch]", force=True)
    page.fill("#eye-words", "Is there a red circle?")
    page.click("#eye-start")
    page.locator("#eye-device option").wait_for(state="attached")
    page.evaluate("document.querySelector('#eye-device option').textContent = 'Front camera'")  # else a path
    page.wait_for_timeout(20_000)
    settle(page, "#verdict", "No")
    settle(page, "#verdict", "Yes")
    page.wait_for_timeout(700)
    keep(page, folder / "page-camera.png")
    page.context.close()


def take_video(visit: Visit, given: Path, folder: Path) -> None:
    page = visit(DESKTOP, "dark")
    turn_to(page, "video")
    page.set_input_files("#film-file", str(given / "rings.mp4"))
    page.locator("#frames canvas").nth(6).wait_for()
    page.click("#film-ask")
    page.locator("#film-log .foot").wait_for()
    page.locator("#frames canvas").nth(6).wait_for()
    page.locator("#frames button").nth(4).click()
    keep(page, folder / "page-video.png")
    page.context.close()


def main(folder: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("This needs Chromium.")
    with tempfile.TemporaryDirectory() as temporary, serving() as address, sync_playwright() as playwright:
        given = Path(temporary)
        draw("document", SEED, 5).pictures[0].save(given / "receipt.png")
        draw("tiles", SEED, 0).pictures[0].save(given / "shapes.png")
        write_film(given / "rings.mp4")
        write_camera(given / "camera.mjpeg")
        seen = f"--use-file-for-fake-video-capture={given / 'camera.mjpeg'}"
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, seen])

        def visit(size: tuple[int, int], scheme: str) -> Any:
            viewport = {"width": size[0], "height": size[1]}
            page = browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB").new_page()
            page.goto(address)
            page.locator("#model option").first.wait_for(state="attached")
            return page

        take_chat(visit, given, folder)
        take_camera(visit, folder)
        take_video(visit, given, folder)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
