"""Samples as a page to look at: pictures as the model sees them, and in colour which tokens are learned.

One file that loads nothing and runs nothing, see pages.py. Whatever comes from data is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ...pages import whole_page
from ...processing.parts import Parts
from ...types import MediaTokens
from .encode import Encoded, Pair
from .sample import Skipped
from .tokens import Shown, show

LONG_SIDE = 224  # pixels of a picture on the page
FRAME_SIDE = 144  # of a frame
SMALL_SIDE = 72  # of a tile


def write_page(title: str, facts: str, samples: Iterable[Encoded | Pair | Skipped], parts: Parts) -> str:
    """The whole page. facts: one line under the title."""
    shown = list(samples)
    articles = [_skipped(one) if isinstance(one, Skipped) else _sample(one, parts) for one in shown]
    skipped = sum(isinstance(one, Skipped) for one in shown)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>{escape(facts)}{f"; {skipped} would be skipped" if skipped else ""}</p>
<p class="legend"><span class="learned">learned</span> the model must say these tokens, shaded one by one
<span class="read">read</span> it only sees these <span class="tiles">tiles</span> the tokens of a picture</p>
</header>
<main>
{"".join(articles)}</main>"""
    return whole_page(title, body, style)


def _sample(one: Encoded | Pair, parts: Parts) -> str:
    talks = [("", one)] if isinstance(one, Encoded) else [("chosen", one.chosen), ("rejected", one.rejected)]
    first = talks[0][1]
    notes = [f"{one.tokens:,} tokens", f"{int(first.learned.sum()):,} learned"]
    notes.append(f"{len(first.tiles)} tile{'s' * (len(first.tiles) != 1)}" if len(first.tiles) else "no pictures")
    badges = "".join(f"<span>{note}</span>" for note in notes)
    if one.given_up:
        badges += f'<span class="warn">{one.given_up} tiles fewer, to fit</span>'
    texts = "".join(_talk(name, talk, parts) for name, talk in talks)
    figures = list(_media(first))
    strip = f'<div class="media">{"".join(figures)}</div>' if figures else ""
    beside = ' class="beside"' if len(figures) == 1 else ""  # the text stands beside a single picture, else below
    return (
        f'<article>\n<h2>{escape(str(one.place))}</h2>\n<p class="badges">{badges}</p>\n'
        f"<div{beside}>{strip}<div>{texts}</div></div></article>\n"
    )


def _skipped(one: Skipped) -> str:
    return (
        f'<article class="skipped">\n<h2>{escape(str(one.place))}</h2>\n'
        f'<p class="badges"><span class="warn">skipped: {escape(one.kind)}</span></p>\n'
        f"<p>{escape(one.reason)}</p></article>\n"
    )


def _talk(name: str, talk: Encoded, parts: Parts) -> str:
    title = f"<h3>{name}</h3>" if name else ""
    spans = "".join(_span(one, number % 2) for number, one in enumerate(show(parts, talk)))
    return f'{title}<div class="talk">{spans}</div>\n'


def _span(one: Shown, odd: int) -> str:
    """A token with its id as a hint; line breaks are drawn, for they are tokens too."""
    names = [one.kind, "learned" if one.learned else "read", *(["odd"] if odd else [])]
    ids = ", ".join(map(str, one.ids[:6])) + (" ..." if len(one.ids) > 6 else "")
    text = escape(one.text).replace("\n", "<i>↵</i>\n")
    return f'<span class="{" ".join(names)}" title="id {ids}">{text}</span>'


def _media(talk: Encoded) -> Iterator[str]:
    """A figure for each picture and each frame, from the tiles that the model gets."""
    start = 0
    for number, medium in enumerate(talk.media, 1):
        tiles = talk.tiles[start : start + medium.tiles]
        start += medium.tiles
        if medium.kind == "image":
            yield _picture(number, medium, tiles)
        else:
            yield from (_frame(medium, *one) for one in zip(medium.timestamps_s, tiles, strict=True))


def _picture(number: int, medium: MediaTokens, tiles: np.ndarray) -> str:
    """The whole picture is its last tile, which was pressed into a square: it is shown in its own shape."""
    size = f"{medium.width} × {medium.height}"
    figure = f"{_image(tiles[-1], medium, LONG_SIDE, f'picture {number}')}<figcaption>{size}, "
    if not medium.rows:
        return f"<figure>{figure}1 tile</figcaption></figure>"
    cells = "".join(_image(tile, None, SMALL_SIDE, "") for tile in tiles[:-1])
    grid = f'<div class="grid" style="grid-template-columns: repeat({medium.cols}, auto)">{cells}</div>'
    summary = f"<summary>{medium.rows} × {medium.cols} + 1 tiles</summary>"
    return f"<figure>{figure}<details>{summary}{grid}</details></figcaption></figure>"


def _frame(medium: MediaTokens, seconds: float, tile: np.ndarray) -> str:
    clock = f"{int(seconds // 60):02d}:{seconds % 60:04.1f}"
    picture = _image(tile, medium, FRAME_SIDE, f"frame at {clock}")
    return f"<figure>{picture}<figcaption>{clock}</figcaption></figure>"


def _image(tile: np.ndarray, shape: MediaTokens | None, side: int, name: str) -> str:
    """A tile as a small JPEG. shape: whose proportions it gets back."""
    width, height = (shape.width, shape.height) if shape else (1, 1)
    longest = max(width, height)
    size = max(1, round(side * width / longest)), max(1, round(side * height / longest))
    file = io.BytesIO()
    Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=85)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img width="{size[0]}" height="{size[1]}" alt="{escape(name)}" src="data:image/jpeg;base64,{content}">'
