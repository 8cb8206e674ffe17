"""The contact sheet: one PNG with a result at a glance, the score over all the video and pictures of each segment.

Drawn with Pillow and a font of the system's; where none is known it is Pillow's own, which has English letters only.
page.py shows every script.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .lists import one_line, short_clock
from .segments import Curve, Segment
from .thumbnails import thumbnails
from .writing import whole_file

WIDTH, MARGIN, GAP = 1280, 32, 16
COLUMNS, PICTURES = 2, 3  # of the sheet; and pictures of a segment
CURVE_HEIGHT = 150
MOST_SEGMENTS = 60  # the best of them; more would make a picture that many programs refuse
_PAPER, _INK, _SOFT, _RAIL = "#fbfaf7", "#1d2126", "#626a73", "#eceae4"
_BAR, _KEPT, _LINE = "#9fb6d9", "#2f6fdb", "#c2410c"
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MOST_TICKS = 12


class _Place(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def write_sheet(
    path: Path,
    video: Path,
    segments: Sequence[Segment],
    curve: Curve,
    *,
    duration_s: float,
    title: str,
    threshold: float | None = None,
    frame_fps: float | None = None,
) -> None:
    """Draw the sheet. title: what was looked for. threshold: drawn over the curve. frame_fps: of a folder of frames.

    Raises VideoError when the video can't be read or the picture can't be written.
    """
    numbered = sorted(enumerate(segments, 1), key=lambda pair: -pair[1].score)[:MOST_SEGMENTS]
    numbered.sort(key=lambda pair: pair[1].start_s)
    card = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
    side = (card - (PICTURES - 1) * GAP // 2) // PICTURES
    shown = [one for _, one in numbered]
    pictures = thumbnails(video, shown, PICTURES, (side, side * 2), frame_fps=frame_fps)
    tallest = max((picture.height for row in pictures for picture in row), default=0)
    row = 44 + tallest + GAP
    top = MARGIN + 76 + CURVE_HEIGHT + 40 + GAP
    sheet = Image.new("RGB", (WIDTH, top + -(-len(numbered) // COLUMNS) * row + MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, MARGIN, MARGIN, title, 26, _INK, WIDTH - 2 * MARGIN)
    total_s = sum(one.duration_s for one in segments)
    told = f"{len(segments)} segments, {short_clock(total_s)} of {short_clock(duration_s)}"
    if len(numbered) < len(segments):
        told += f"; the best {len(numbered)} are shown"
    _text(draw, MARGIN, MARGIN + 38, told, 17, _SOFT, WIDTH - 2 * MARGIN)
    place = _Place(MARGIN, MARGIN + 76, WIDTH - 2 * MARGIN, CURVE_HEIGHT)
    _draw_curve(draw, place, segments, curve, duration_s, threshold)
    for index, ((number, one), row_pictures) in enumerate(zip(numbered, pictures, strict=True)):
        left, at = MARGIN + index % COLUMNS * (card + GAP), top + index // COLUMNS * row
        _draw_card(sheet, draw, (left, at), card, number, one, row_pictures)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    with whole_file(path) as part:
        part.write_bytes(file.getvalue())


def _draw_card(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    number: int,
    segment: Segment,
    pictures: Sequence[Image.Image],
) -> None:
    left, top = corner
    times = f"{short_clock(segment.start_s)} - {short_clock(segment.end_s)}"
    badge = str(number)
    badge_width = 16 + round(_font(17).getlength(badge))
    draw.rounded_rectangle((left, top, left + badge_width, top + 26), 6, fill=_KEPT)
    draw.text((left + badge_width / 2, top + 13), badge, fill="white", font=_font(17), anchor="mm")
    at = left + badge_width + 10
    draw.text((at, top + 13), times, fill=_INK, font=_font(17), anchor="lm")
    at += round(_font(17).getlength(times)) + 14
    told = f"{segment.score:.2f}  {segment.title}"
    _text(draw, at, top + 4, told, 17, _SOFT, left + width - at)
    for picture in pictures:
        sheet.paste(picture, (left, top + 36))
        left += picture.width + GAP // 2


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    place: _Place,
    segments: Sequence[Segment],
    curve: Curve,
    duration_s: float,
    threshold: float | None,
) -> None:
    """A bar for each column of pixels, as high as the best score that falls into it; blue where it was kept."""
    bottom = place.top + place.height
    draw.rectangle((place.left, place.top, place.left + place.width, bottom), fill=_RAIL)
    for column in range(place.width):
        from_s, to_s = (duration_s * (column + step) / place.width for step in (0, 1))
        first = max(0, bisect.bisect_right(curve.times_s, from_s) - 1)
        score = max(curve.scores[first : max(first + 1, bisect.bisect_left(curve.times_s, to_s))], default=0.0)
        kept = any(one.start_s <= from_s < one.end_s for one in segments)
        x = place.left + column
        draw.line((x, bottom - score * place.height, x, bottom), fill=_KEPT if kept else _BAR)
    if threshold is not None:
        level = bottom - threshold * place.height
        for x in range(place.left, place.left + place.width, 12):
            draw.line((x, level, x + 6, level), fill=_LINE, width=2)
        draw.text((place.left - 4, level), f"{threshold:g}", fill=_LINE, font=_font(13), anchor="rm")
    step_s = next((step for step in _STEPS_S if duration_s / step <= _MOST_TICKS), _STEPS_S[-1])
    for second in range(0, int(duration_s) + 1, step_s):
        x = round(place.left + place.width * second / duration_s)
        draw.line((x, bottom, x, bottom + 6), fill=_SOFT)
        label = short_clock(second).removesuffix(".0")
        anchor = "la" if x < place.left + 20 else "ra" if x > place.left + place.width - 20 else "ma"
        draw.text((x, bottom + 9), label, fill=_SOFT, font=_font(14), anchor=anchor)


def _text(
    draw: ImageDraw.ImageDraw, left: float, top: float, text: str, size: int, colour: str, most_width: float
) -> None:
    """One line, cut where it is too long."""
    shown, font = one_line(text), _font(size)
    if font.getlength(shown) > most_width:
        while shown and font.getlength(shown + "...") > most_width:
            shown = shown[:-1]
        shown += "..."
    draw.text((left, top), shown, fill=colour, font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
