"""Draw shapes, boxes and letters on a light ground. Shapes are drawn at twice the size and reduced; letters at size.

Only Pillow's built-in font (Aileron, basic layout) is used: the same Pillow draws the same bytes on every machine.
"""

from __future__ import annotations

import math
from functools import lru_cache
from io import BytesIO
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont

from .material import Mark
from .things import ALL_COLOURS, ALL_SHAPES, RGB, Thing

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SCALE = 2  # supersampling of shapes
GROUNDS: tuple[RGB, ...] = (
    (255, 255, 255), (255, 255, 255), (250, 247, 238), (244, 246, 250), (240, 248, 242), (250, 242, 244),
    (246, 243, 236),
)  # fmt: skip
GLYPH_PAD = 2  # room at the left of a letter's mask
CAP_HEIGHT = 0.7  # height of a capital letter as a share of the font size


def _heart() -> tuple[tuple[float, float], ...]:
    steps = [2 * math.pi * i / 28 for i in range(28)]
    return tuple(
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1)
        for t in steps
    )


def _crescent() -> tuple[tuple[float, float], ...]:
    outer = [math.radians(50 + 260 * i / 20) for i in range(21)]
    tip = (math.cos(outer[0]), math.sin(outer[0]))
    centre, radius = 0.45, math.hypot(tip[0] - 0.45, tip[1])
    start = math.atan2(tip[1], tip[0] - centre)
    inner = [-start + (2 * start - 2 * math.pi) * i / 20 for i in range(21)]
    arc = [(math.cos(t), math.sin(t)) for t in outer]
    return tuple(arc + [(centre + radius * math.cos(t), radius * math.sin(t)) for t in inner])


_STAR = tuple(
    (r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5) + 0.06)
    for i, r in enumerate((1.1, 0.45) * 5)
)  # fmt: skip
_THIRD = 0.34
POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -0.95), (1.02, 0.85), (-1.02, 0.85)),
    "diamond": ((0.0, -1.05), (0.78, 0.0), (0.0, 1.05), (-0.78, 0.0)),
    "star": _STAR,
    "heart": _heart(),
    "cross": (
        (-_THIRD, -1), (_THIRD, -1), (_THIRD, -_THIRD), (1, -_THIRD), (1, _THIRD), (_THIRD, _THIRD),
        (_THIRD, 1), (-_THIRD, 1), (-_THIRD, _THIRD), (-1, _THIRD), (-1, -_THIRD), (-_THIRD, -_THIRD),
    ),
    "crescent": _crescent(),
    "arrow": ((-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)),
}  # fmt: skip


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


@lru_cache(maxsize=4096)
def _advance(character: str, size: int) -> float:
    return font(size).getlength(character)


def text_width(text: str, size: int) -> float:
    """Pixels from the first letter's origin to the end of the last; letters are set one by one, without kerning."""
    return sum(_advance(character, size) for character in text)


@lru_cache(maxsize=16384)
def _glyph(character: str, size: int, bold: bool, quarter: int) -> Image.Image:
    """One letter as a mask, drawn a few quarters of a pixel from its left edge; its baseline is at `size`."""
    mask = Image.new("L", (size + 4, size + size // 3 + 2))
    at = (GLYPH_PAD + quarter / 4, size)
    ImageDraw.Draw(mask).text(at, character, 255, font(size), "ls", stroke_width=0.5 if bold else 0)
    return mask


@lru_cache(maxsize=16)
def _ramp(side: int, upright: bool) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side, side))
    return ramp if upright else ramp.transpose(Image.Transpose.ROTATE_90)


@lru_cache(maxsize=4)
def _faint(strength: int) -> list[int]:
    return [value * (2 * strength + 1) // 256 for value in range(256)]


def ground(rng: Random, side: int, base: RGB | None = None) -> Image.Image:
    """A light background at drawing scale: plain, or a soft gradient from one pale colour to another."""
    first = base or rng.choice(GROUNDS)
    large = side * SCALE
    image = Image.new("RGB", (large, large), first)
    if base is None and rng.random() < 0.25:
        shade = rng.randint(8, 22)
        second = tuple(value - shade for value in first)
        image.paste(second, (0, 0), _ramp(large, rng.random() < 0.5))
    return image


class Canvas:
    """One picture in the making. Coordinates are shares of the side for things, pixels for boxes and letters."""

    def __init__(self, rng: Random, side: int, base: RGB | None = None, picture: int = 0) -> None:
        self.side = side
        self.picture = picture
        self.marks: list[Mark] = []
        self._rng = rng
        self._image = ground(rng, side, base)
        self._draw = ImageDraw.Draw(self._image)
        self._letters: list[tuple[float, float, str, int, RGB, bool]] = []

    def thing(self, thing: Thing) -> None:
        draw_thing(self._draw, thing, self.side)
        self.marks.append(mark_thing(thing, self.picture))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, colour: str | None = None) -> None:
        """A filled rectangle in pixels; with the name of a colour it is also marked."""
        self._draw.rectangle((x0 * SCALE, y0 * SCALE, x1 * SCALE - 1, y1 * SCALE - 1), fill=fill)
        if colour:
            self._mark(x0, y0, x1, y1, colour=ALL_COLOURS.index(colour))

    def text(self, x: float, y: float, text: str, size: int, ink: RGB, *, bold: bool = False) -> None:
        """Letters on one line; x is the left edge, y the middle of a capital letter's height."""
        height = CAP_HEIGHT * size
        for character in text:
            width = _advance(character, size)
            if character != " ":
                self._letters.append((x, y, character, size, ink, bold))
            if character in CHARACTERS:
                self._mark(x, y - height / 2, x + width, y + height / 2, character=CHARACTERS.index(character))
            x += width

    def centred(self, x: float, y: float, text: str, size: int, ink: RGB, *, bold: bool = False) -> None:
        """Letters centred on a point in pixels."""
        self.text(x - text_width(text, size) / 2, y, text, size, ink, bold=bold)

    def _mark(self, x0: float, y0: float, x1: float, y1: float, *, colour: int = -1, character: int = -1) -> None:
        edges = (x0 / self.side, y0 / self.side, x1 / self.side, y1 / self.side)
        self.marks.append(Mark(self.picture, edges, colour=colour, character=character))

    def finish(self) -> Image.Image:
        """Reduce, write the letters, and add what cameras and files add: faint noise, JPEG artefacts."""
        image = self._image.reduce(SCALE)
        for x, y, character, size, ink, bold in self._letters:
            quarters = round(4 * x)
            at = (quarters // 4 - GLYPH_PAD, round(y + CAP_HEIGHT * size / 2) - size)
            image.paste(ink, at, _glyph(character, size, bold, quarters % 4))
        return weather(self._rng, image)


def draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, side: int) -> None:
    """Draw one shape on an image of `side` pixels at drawing scale."""
    x, y, radius = (value * side * SCALE for value in (thing.x, thing.y, thing.diameter / 2))
    if thing.shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=thing.rgb)
    elif thing.shape == "ring":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=thing.rgb, width=round(radius * 0.42))
    else:
        cos, sin = math.cos(math.radians(thing.angle)) * radius, math.sin(math.radians(thing.angle)) * radius
        draw.polygon([(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in POLYGONS[thing.shape]], fill=thing.rgb)


def mark_thing(thing: Thing, picture: int) -> Mark:
    half = thing.diameter / 2
    edges = (thing.x - half, thing.y - half, thing.x + half, thing.y + half)
    return Mark(picture, edges, shape=ALL_SHAPES.index(thing.shape), colour=ALL_COLOURS.index(thing.colour))


def weather(rng: Random, image: Image.Image) -> Image.Image:
    """Faint noise on a quarter of the pictures, JPEG artefacts on a fifth."""
    if rng.random() < 0.25:
        strength = rng.randint(2, 5)
        noise = Image.frombytes("L", image.size, rng.randbytes(image.width * image.height)).point(_faint(strength))
        image = ImageChops.add(image, Image.merge("RGB", (noise, noise, noise)), 1.0, -strength)
    if rng.random() < 0.2:
        file = BytesIO()
        image.save(file, "JPEG", quality=rng.randint(55, 92))
        image = Image.open(file)
        image.load()
    return image.convert("RGB")
