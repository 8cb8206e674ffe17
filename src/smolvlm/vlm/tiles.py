"""What was looked at is not looked at again: features of tiles, known by the bytes of their pixels.

Blank parts of a document, still frames of a video and the picture of the last question are encoded once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

CACHE_BYTES = 64 * 2**20


class TileCache:
    """encode(), remembering. The tiles used longest ago go first. Several threads may use it.

    encode: (tiles, 3, side, side) -> features (tiles, image tokens, hidden) of the runtime's own kind. join: features
    -> one, along the tiles.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray], Any],
        join: Callable[[Sequence[Any]], Any],
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        self._encode = encode
        self._join = join
        self.max_bytes = max_bytes
        self._known: OrderedDict[bytes, Any] = OrderedDict()  # digest -> (1, image tokens, hidden)
        self._bytes = 0
        self._lock = threading.Lock()

    def encode(self, pixel_values: np.ndarray) -> Any:
        """(tiles, 3, side, side) float32 -> (tiles, image tokens, hidden)."""
        digests = [sha256(np.ascontiguousarray(tile).data).digest() for tile in pixel_values]
        with self._lock:
            known = {digest: self._known[digest] for digest in digests if digest in self._known}
        missing = {digest: at for at, digest in enumerate(digests) if digest not in known}
        if missing:
            every = len(missing) == len(digests)  # pixels are large: they are copied only to leave some out
            seen = self._encode(pixel_values if every else pixel_values[list(missing.values())])
            known |= {digest: seen[[row]] for row, digest in enumerate(missing)}  # copies: each can be freed alone
        with self._lock:
            for digest in digests:
                self._keep(digest, known[digest])
        return self._join([known[digest] for digest in digests])

    def _keep(self, digest: bytes, features: Any) -> None:
        if digest not in self._known:
            self._known[digest] = features
            self._bytes += features.nbytes
        self._known.move_to_end(digest)
        while self._bytes > self.max_bytes:
            self._bytes -= self._known.popitem(last=False)[1].nbytes
