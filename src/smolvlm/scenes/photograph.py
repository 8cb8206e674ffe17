"""What looks like a photograph: shaded, textured, crowded. The one right answer is that it is not a drawn picture.

Nothing is photographed. Natural pictures have detail at every scale and things that cover each other, so these are
textures of noise in octaves, piled up as leaves, hills, houses or one lit thing. Integers and Pillow only, so the same
arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from .ask import ask
from .canvas import weather
from .material import Clip, Scene, Turn
from .scene import SIDE
from .text import question_on_a_picture
from .things import RGB

REFUSAL = "I only understand drawn pictures."
TONES: tuple[RGB, ...] = (  # of skies, leaves, skin, wood, stone, sea, night, sand, snow, brick
    (122, 168, 214), (188, 208, 226), (236, 180, 120), (58, 92, 44), (104, 138, 62), (150, 160, 90), (214, 168, 138),
    (150, 100, 74), (92, 60, 36), (140, 120, 96), (110, 112, 112), (168, 166, 160), (40, 84, 104), (24, 52, 70),
    (22, 24, 36), (60, 54, 58), (208, 190, 150), (232, 234, 238), (138, 62, 48), (196, 60, 48), (220, 190, 70),
)  # fmt: skip


def draw_photograph(rng: Random, level: float) -> Scene:
    """One picture of one or four tiles, two pictures, or a clip in which the camera moves. level: how many sorts."""
    sort = rng.random() * (0.4 + 0.6 * level)
    turns = _turns(rng)
    if sort < 0.4:
        return Scene("photograph", (_picture(rng, SIDE),), turns=turns, detail="low")
    if sort < 0.7:
        return Scene("photograph", (_picture(rng, 2 * SIDE),), turns=turns, detail="auto")
    if sort < 0.8:
        return Scene("photograph", (_picture(rng, SIDE), _picture(rng, SIDE)), turns=turns, detail="low")
    return Scene("photograph", clip=_clip(rng), turns=turns, detail="low")


def _turns(rng: Random) -> tuple[Turn, ...]:
    asked = [ask(rng, "photograph") if rng.random() < 0.4 else question_on_a_picture(rng) for _ in range(3)]
    return tuple(Turn(question, REFUSAL, "photograph") for question in dict.fromkeys(asked))


def _clip(rng: Random) -> Clip:
    """A window that wanders over one large picture."""
    count = rng.randint(2, 6)
    image = _picture(rng, SIDE + 64)
    x, y, dx, dy = rng.randint(0, 64), rng.randint(0, 64), rng.randint(-16, 16), rng.randint(-6, 6)
    frames = []
    for _ in range(count):
        frames.append(image.crop((x, y, x + SIDE, y + SIDE)))
        x, y = min(64, max(0, x + dx)), min(64, max(0, y + dy))
    return Clip(tuple(frames), tuple(float(second) for second in range(count)), float(count))


def _picture(rng: Random, side: int) -> Image.Image:
    image = rng.choice(_SORTS)(rng, side)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.choice((0.5, 0.8, 1.2))))
    if rng.random() < 0.12:
        image = image.convert("L").convert("RGB")
    image = ImageEnhance.Color(image).enhance(rng.choice((0.5, 0.8, 1.0, 1.3, 1.7)))
    image = ImageEnhance.Brightness(image).enhance(rng.choice((0.6, 0.8, 1.0, 1.15, 1.3)))
    return weather(rng, image)


# ---- textures --------------------------------------------------------------------------------------------------------


def _noise(rng: Random, side: int) -> Image.Image:
    """Grey clouds: random grids of more and more cells, each finer one fainter. "L"."""
    stretch = rng.choice((1, 1, 1, 3, 6))
    tall = rng.random() < 0.5
    total = np.zeros((side, side), np.int32)
    weight, cells = 64, rng.choice((2, 3, 5))
    fading = rng.choice((1.4, 1.8, 2.3))
    while cells <= side // 2 and weight:
        wide, high = (cells * stretch, cells) if tall else (cells, cells * stretch)
        grid = Image.frombytes("L", (wide, high), rng.randbytes(wide * high))
        total += weight * np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC), np.int32)
        weight, cells = int(weight / fading), 2 * cells
    total -= total.min()
    return Image.fromarray((total * 255 // max(1, int(total.max()))).astype(np.uint8))


def _texture(rng: Random, side: int) -> Image.Image:
    """Clouds in a few tones that lie near each other."""
    first = rng.choice(TONES)
    spread = rng.choice((25, 50, 90))
    tones = [tuple(min(255, max(0, value + rng.randint(-spread, spread))) for value in first) for _ in range(3)]
    stops = np.array([0, 128, 255])
    table = [np.interp(np.arange(256), stops, [tone[channel] for tone in tones]).astype(int) for channel in range(3)]
    grey = _noise(rng, side)
    return Image.merge("RGB", [grey.point(list(map(int, one))) for one in table])


def _shaded(rng: Random, texture: Image.Image, strength: float = 0.7) -> Image.Image:
    """Lit from one side."""
    light = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(texture.size)
    light = light.point([int(255 - strength * (255 - value)) for value in range(256)])
    return ImageChops.multiply(texture, Image.merge("RGB", (light, light, light)))


# ---- sorts of pictures -----------------------------------------------------------------------------------------------


def _leaves(rng: Random, side: int) -> Image.Image:
    """Many small and a few large things that cover each other."""
    image = _texture(rng, side)
    pool = [_shaded(rng, _texture(rng, side), 0.5) for _ in range(rng.randint(2, 4))]
    for _ in range(rng.randint(25, 110)):
        radius = max(2, int(side * 0.03 / max(0.08, rng.random()) ** rng.choice((0.8, 1.1))))
        mask = Image.new("L", (2 * radius, 2 * radius))
        draw = ImageDraw.Draw(mask)
        if rng.random() < 0.5:
            flat = rng.randint(0, radius // 2 + 1)
            draw.ellipse((0, flat, 2 * radius - 1, 2 * radius - 1 - flat), fill=255)
        else:
            draw.polygon(
                [(rng.randint(0, 2 * radius), rng.randint(0, 2 * radius)) for _ in range(rng.randint(3, 6))], 255
            )
        at = (rng.randint(-radius, side), rng.randint(-radius, side))
        corner = (rng.randint(0, max(0, side - 2 * radius)), rng.randint(0, max(0, side - 2 * radius)))
        leaf = rng.choice(pool).crop((*corner, corner[0] + 2 * radius, corner[1] + 2 * radius))
        image.paste(leaf, at, mask.rotate(rng.randint(0, 359)))
    return image


def _hills(rng: Random, side: int) -> Image.Image:
    """A sky and ridges, each nearer one lower and rougher."""
    image = _shaded(rng, _texture(rng, side), rng.choice((0.2, 0.5)))
    y = side * rng.uniform(0.25, 0.6)
    for layer in range(rng.randint(1, 4)):
        rough = side * rng.uniform(0.01, 0.09)
        line, height = [(0.0, y)], y
        for step in range(1, 13):
            height += rng.uniform(-rough, rough)
            line.append((side * step / 12, height))
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).polygon([*line, (side, side), (0, side)], fill=255)
        image.paste(_shaded(rng, _texture(rng, side), 0.3 + 0.1 * layer), (0, 0), mask)
        y += side * rng.uniform(0.08, 0.22)
    return image


def _houses(rng: Random, side: int) -> Image.Image:
    """Walls with rows of windows in front of a sky."""
    image = _shaded(rng, _texture(rng, side), 0.3)
    x = -rng.randint(0, side // 5)
    while x < side:
        width, top = rng.randint(side // 6, side // 2), rng.randint(0, side * 2 // 3)
        wall = _shaded(rng, _texture(rng, side), 0.6)
        draw = ImageDraw.Draw(wall)
        step, pane = rng.randint(side // 14, side // 7), rng.randint(side // 30, side // 14)
        glass = rng.choice(TONES)
        for row in range(top + step // 2, side, step):
            for column in range(step // 2, width, step):
                shade = rng.randint(-30, 30)
                fill = tuple(min(255, max(0, value + shade)) for value in glass)
                draw.rectangle((column, row - top, column + pane, row - top + pane * 3 // 2), fill=fill)
        image.paste(wall.crop((0, 0, width, side)), (x, top))
        x += width + rng.choice((0, 0, rng.randint(0, side // 4)))
    return image


def _object(rng: Random, side: int) -> Image.Image:
    """One or a few round, lit things with their shadows on a soft ground."""
    image = _shaded(rng, _texture(rng, side).filter(ImageFilter.GaussianBlur(3)), 0.5)
    for _ in range(rng.choice((1, 1, 2, 3))):
        wide, high = (rng.randint(side // 5, side * 4 // 5) for _ in range(2))
        x, y = rng.randint(-wide // 4, side - wide * 3 // 4), rng.randint(-high // 4, side - high * 3 // 4)
        mask = Image.new("L", (wide, high))
        ImageDraw.Draw(mask).ellipse((0, 0, wide - 1, high - 1), fill=255)
        soft = mask.filter(ImageFilter.GaussianBlur(4)).point([value // 2 for value in range(256)])
        image.paste((10, 10, 14), (x + wide // 10, y + high // 8), soft)
        ball = ImageChops.invert(Image.radial_gradient("L")).resize((wide, high))
        ball = ImageChops.offset(ball, -wide // 8, -high // 8)
        skin = ImageChops.multiply(_texture(rng, side).resize((wide, high)), Image.merge("RGB", (ball, ball, ball)))
        image.paste(ImageChops.add(skin, skin, 1.4), (x, y), mask)
    return image


def _plain(rng: Random, side: int) -> Image.Image:
    """Water, a lawn, a wall: one texture that fills the picture."""
    return _shaded(rng, _texture(rng, side), rng.choice((0.2, 0.6)))


_SORTS: tuple[Callable[[Random, int], Image.Image], ...] = (_leaves, _leaves, _hills, _houses, _object, _object, _plain)
