"""The table of what a picture costs, in docs/models.md, is what the processors make of such a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from smolvlm.processing.image import SmolVLMImageProcessor
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.processing.template import DEFAULT_TEMPLATE
from smolvlm.processing.tokenizer import SmolVLMTokenizer

TOKENIZER = Path(__file__).parents[2] / "shared" / "data" / "tokenizer"
TABLE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
ROW = r"^\| (\d+) x (\d+)" + r" \| (\d+) tiles?, (\d+) tokens" * 4
ROWS = [tuple(map(int, row)) for row in re.findall(ROW, TABLE, re.M)]
# edge, tile, tokens a tile, which cell of a row is that of "high"
GEOMETRIES = {"256M and 500M": (2048, 512, 64, 2), "2.2B": (1536, 384, 81, 6)}


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason="the family's tokenizer is not here")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_documented_costs_of_pictures_are_the_processors_own(geometry: str) -> None:
    edge, tile, tokens, column = GEOMETRIES[geometry]
    images = SmolVLMImageProcessor(size={"longest_edge": edge}, max_image_size={"longest_edge": tile})
    processor = SmolVLMProcessor(images, SmolVLMTokenizer.from_directory(TOKENIZER), None, tokens, DEFAULT_TEMPLATE)

    def cost(content: list[dict[str, object]], detail: str) -> tuple[int, int]:
        inputs = processor.prepare([{"role": "user", "content": content}], detail=detail)  # type: ignore[arg-type]
        return 0 if inputs.pixel_values is None else len(inputs.pixel_values), len(inputs.input_ids)

    _, text = cost([{"type": "text", "text": ""}], "low")
    assert len(ROWS) == 5
    for width, height, *cells in ROWS:
        picture: list[dict[str, object]] = [{"type": "image", "image": Image.new("RGB", (width, height))}]
        for detail, at in (("auto", column - 2), ("high", column)):
            tiles, length = cost(picture, detail)
            assert [tiles, length - text] == cells[at : at + 2]
