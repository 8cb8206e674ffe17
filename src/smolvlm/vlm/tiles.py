"""What was looked at is not looked at again: features of tiles, known by the bytes of their pixels.

Blank parts of a document, still frames of a video and the picture of the last question are encoded once. Many tiles
are looked at some at a time, so that whoever shares the model isn't held up by somebody's video.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..runtimes.motor import LiveAdapter

CACHE_BYTES = 64 * 2**20
LOOKED_UP = 8  # times more tiles are looked up than encoded in one go: to hash one costs a hundredth of looking at it


class TileCache:
    """encode(), remembering. The tiles used longest ago go first. Several threads may use it.

    encode: (tiles, 3, side, side) and an adapter or None -> features (tiles, image tokens, hidden) of the runtime's own
    kind. join: features -> one, along the tiles. at_once: most tiles of one call of encode; None: all there are.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray, LiveAdapter | None], Any],
        join: Callable[[Sequence[Any]], Any],
        max_bytes: int = CACHE_BYTES,
        at_once: int | None = None,
    ) -> None:
        self._encode = encode
        self._join = join
        self.max_bytes = max_bytes
        self.at_once = at_once
        self._known: OrderedDict[bytes, Any] = OrderedDict()  # digest -> (1, image tokens, hidden)
        self._bytes = 0
        self._lock = threading.Lock()

    def encode(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> Any:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden)."""
        looking = self.look(pixel_values, adapter)
        while looking.left:
            looking.step()
        return looking.features()

    def look(self, pixel_values: np.ndarray, adapter: LiveAdapter | None = None) -> Looking:
        """encode(), step by step. An adapter that doesn't change how pictures are seen shares what others saw."""
        return Looking(self, pixel_values, adapter if adapter is not None and adapter.seen_through else None)

    def encode_tiles(self, pixel_values: np.ndarray, adapter: LiveAdapter | None) -> list[Any]:
        """Look at tiles, whatever is known. Returns a copy of each one's features, so that each can be freed alone."""
        seen = self._encode(pixel_values, adapter)
        return [seen[[row]] for row in range(len(pixel_values))]

    def find(self, digest: bytes) -> Any | None:
        """(1, image tokens, hidden), None when they aren't known or not any more."""
        with self._lock:
            return self._known.get(digest)

    def keep(self, digests: Sequence[bytes], known: dict[bytes, Any]) -> None:
        """Remember these; the last ones go last."""
        with self._lock:
            for digest in digests:
                self._keep(digest, known[digest])

    def join(self, features: Sequence[Any]) -> Any:
        return self._join(features)

    def _keep(self, digest: bytes, features: Any) -> None:
        if digest not in self._known:
            self._known[digest] = features
            self._bytes += features.nbytes
        self._known.move_to_end(digest)
        while self._bytes > self.max_bytes:
            self._bytes -= self._known.popitem(last=False)[1].nbytes


class Looking:
    """The tiles of one request, of which some have been looked at. left: how many haven't."""

    def __init__(self, cache: TileCache, pixel_values: np.ndarray, adapter: LiveAdapter | None) -> None:
        self._cache = cache
        self._adapter = adapter
        self._eyes = sha256(b"" if adapter is None else adapter.seen_through.encode())
        self._pixels: np.ndarray | None = pixel_values
        self._digests: list[bytes] = []
        self._found: dict[bytes, Any] = {}
        self.left = len(pixel_values)

    def step(self) -> int:
        """Look at some more, as many as the cache does at once. Returns how many were not known."""
        assert self._pixels is not None, "there are tiles left"
        at_once = self._cache.at_once or self.left
        start, missing = len(self._digests), dict[bytes, int]()
        for at in range(start, start + min(LOOKED_UP * at_once, self.left)):
            if len(missing) == at_once:
                break
            digest = self._digest(self._pixels[at])
            self._digests.append(digest)
            if digest in self._found or digest in missing:
                continue
            known = self._cache.find(digest)
            if known is None:
                missing[digest] = at
            else:
                self._found[digest] = known
        if missing:
            seen = self._cache.encode_tiles(_rows(self._pixels, list(missing.values())), self._adapter)
            self._found |= zip(missing, seen, strict=True)
        self.left -= len(self._digests) - start
        self._cache.keep(self._digests[start:], self._found)
        if not self.left:
            self._pixels = None  # they are large
        return len(missing)

    def features(self) -> Any:
        """(tiles, image tokens, hidden), when no tile is left."""
        assert not self.left, "all tiles have been looked at"
        return self._cache.join([self._found[digest] for digest in self._digests])

    def _digest(self, tile: np.ndarray) -> bytes:
        """Of what is looked at, and through which eyes."""
        digest = self._eyes.copy()
        digest.update(np.ascontiguousarray(tile).data)
        return digest.digest()


def _rows(pixel_values: np.ndarray, rows: list[int]) -> np.ndarray:
    """Some tiles; a view where they lie side by side, because pixels are large."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return pixel_values[rows[0] : rows[-1] + 1]
    return pixel_values[rows]
