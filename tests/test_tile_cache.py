"""The cache of tiles' features: each different tile is encoded once, and answers stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from smolvlm.vlm import load
from smolvlm.vlm.tiles import TileCache

pytestmark = pytest.mark.filterwarnings("error")


class Eye:
    """An encoder that counts the tiles it sees; features are the means of a tile's planes."""

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, pixel_values: np.ndarray, adapter: object = None) -> np.ndarray:
        self.seen += len(pixel_values)
        return pixel_values.mean(axis=(2, 3))[:, None].astype(np.float32)  # (tiles, 1, 3)


def tiles(*seeds: int) -> np.ndarray:
    return np.stack([np.random.default_rng(seed).standard_normal((3, 8, 8), np.float32) for seed in seeds])


def test_each_different_tile_is_encoded_once() -> None:
    eye = Eye()
    cache = TileCache(eye.encode, np.concatenate)
    for asked, seen in (((1, 2, 1, 1), 2), ((2, 3), 3), ((3, 2, 1), 3), ((4,), 4), ((5, 6, 7), 7)):
        assert np.array_equal(cache.encode(tiles(*asked)), Eye().encode(tiles(*asked)))
        assert eye.seen == seen


def test_the_tile_used_longest_ago_goes_first() -> None:
    eye = Eye()
    cache = TileCache(eye.encode, np.concatenate, max_bytes=2 * 12)
    for asked, seen in (((1, 2), 2), ((1,), 2), ((3,), 3), ((1,), 3), ((2,), 4), ((1, 2, 3), 5)):
        cache.encode(tiles(*asked))
        assert eye.seen == seen
        assert cache._bytes <= cache.max_bytes


def test_what_was_handed_out_is_not_the_caches_own() -> None:
    cache = TileCache(Eye().encode, np.concatenate)
    first = cache.encode(tiles(1))
    first[:] = 0
    assert cache.encode(tiles(1)).any()


@pytest.mark.parametrize("runtime", ["torch", "native"])
def test_a_picture_that_is_asked_about_again_is_not_looked_at_again(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load(runtime=runtime)
    picture = Image.effect_noise((300, 200), 80).convert("RGB")
    first = vlm.ask("What is this?", images=[picture])
    monkeypatch.setattr(vlm._tiles, "_encode", lambda *_: pytest.fail("encoded again"))
    assert vlm.ask("What is this?", images=[picture]).token_ids == first.token_ids
    assert vlm.encode(images=[picture, picture]).values.shape[0] % 2 == 0
