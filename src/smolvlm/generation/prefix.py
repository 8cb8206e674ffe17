"""What was read before is not read again: prefixes of ended requests, in their slots, for those that begin alike.

A prefix is known by its token ids, with each image token's place taken by the content of what was seen there, and by
the adapter that it was read with.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..runtimes.motor import Motor, Slot

SHORTEST = 32  # tokens: to read fewer again costs less than to lose what else the slot holds
SECRET = secrets.token_bytes(16)  # so that nobody can look for two pictures that are taken for one


@dataclass(eq=False)
class Prefix:
    """A slot that nobody writes to. key: its tokens, see prefix_key."""

    key: np.ndarray
    slot: Slot


class PrefixCache:
    """The prefixes kept, the one used last at the end; the first go when there are more bytes than max_bytes."""

    def __init__(self, motor: Motor, max_bytes: int) -> None:
        self._motor = motor
        self.max_bytes = max_bytes
        self.prefixes: list[Prefix] = []

    @property
    def num_bytes(self) -> int:
        return sum(self._motor.slot_bytes(prefix.slot.capacity) for prefix in self.prefixes)

    def longest(self, key: np.ndarray) -> tuple[Prefix | None, int]:
        """The prefix that shares the most first tokens with a key, and how many."""
        found, most = None, 0
        for prefix in self.prefixes:
            shared = shared_length(prefix.key, key)
            if shared > most:
                found, most = prefix, shared
        return found, most

    def put(self, key: np.ndarray, slot: Slot) -> None:
        """Keep an ended request's slot. Prefixes that it contains whole go."""
        key = key[: slot.length]
        self.prefixes = [one for one in self.prefixes if shared_length(one.key, key) < len(one.key)]
        if len(key) >= SHORTEST:
            self.prefixes.append(Prefix(key, slot))
        while self.num_bytes > self.max_bytes:
            self.prefixes.pop(0)

    def use(self, prefix: Prefix) -> None:
        """Make it the last to go."""
        self.prefixes.remove(prefix)
        self.prefixes.append(prefix)

    def take(self, prefix: Prefix) -> Slot:
        """Hand its slot over to a request that writes to it."""
        self.prefixes.remove(prefix)
        return prefix.slot


def prefix_key(
    prompt_ids: np.ndarray, content: np.ndarray | None, image_token_id: int, tokens_a_tile: int, adapter: int = 0
) -> np.ndarray:
    """(tokens,) int64: token ids; in an image token's place a number of its tile's features and its place in the tile.

    content: the features' bytes, (image tokens of the prompt, bytes), tile after tile. adapter: its number, 0 without
    one. It is in the first token's place, too, so that keys of two adapters share no token.
    """
    key = prompt_ids.astype(np.int64)
    if content is not None:
        tiles = content.reshape(len(content) // tokens_a_tile, -1)
        digests = b"".join(blake2b(tile.data, digest_size=8, key=SECRET).digest() for tile in tiles)
        names = np.frombuffer(digests, np.int64) | np.int64(-(2**63))  # below every token id
        key[prompt_ids == image_token_id] = (names[:, None] + np.arange(tokens_a_tile)).reshape(-1)
    key[:1] += adapter << 32  # above every token id
    return key


def shared_length(one: np.ndarray, other: np.ndarray) -> int:
    """How many first tokens of two keys are the same."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
