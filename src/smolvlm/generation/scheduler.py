"""Who runs: requests wait in order of arrival for a place, for memory, or for a prefix that another one is reading.

Slots, those of running requests and those kept as prefixes, stay under one memory budget. Reading and choosing tokens
is engine.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BusyError, InputError, MemoryBudgetError
from ..runtimes.motor import LiveAdapter, Motor, Slot
from ..types import FinishReason, SamplingParams
from .likelihood import Likely
from .lookup import Lookup
from .prefix import SHORTEST, Prefix, PrefixCache, prefix_key, shared_length
from .sampling import Sampler, TokenMask

MOST_RUNNING = 16  # more rows a step are slower for everyone and hardly faster in all
MOST_WAITING = 1024
PREFIX_BYTES = 256 * 2**20


@dataclass(eq=False)
class Generation:
    """A request on its way. token_ids: what was chosen so far; finish_reason: None until it has ended.

    pictures: features, (image tokens of the prompt, hidden); None without any. stop_check: token id -> True when the
    answer ends with it; called once for each new token. mask: what it may write, used up by it. tell_likely: how
    likely the token was, when params.logprobs asks; called before stop_check. keep_logits: nothing is written; the
    logits of the prompt from this place on are kept, a row a token; keep: (number of the row, row) -> what of it is.
    adapter: that all of it is read with. cached_tokens: how much of the prompt had been read for others. cancelled: set
    it, from any thread, to give the request up; what it had written stays. failure: what ended it, if it was that.
    """

    prompt_ids: np.ndarray
    pictures: Any
    params: SamplingParams
    eos_token_ids: Collection[int]
    stop_check: Callable[[int], bool] | None = None
    mask: TokenMask | None = None
    tell_likely: Callable[[Likely], None] | None = None
    keep_logits: int | None = None
    keep: Callable[[int, np.ndarray], np.ndarray] | None = None
    adapter: LiveAdapter | None = None
    token_ids: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    cancelled: bool = False
    failure: Exception | None = None
    slot: Slot | None = None
    sampler: Sampler | None = None
    lookup: Lookup | None = None
    key: np.ndarray | None = None
    is_picture: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.cancelled or self.failure is not None

    @property
    def adapter_number(self) -> int:
        """0 without one."""
        return 0 if self.adapter is None else self.adapter.number

    @property
    def room(self) -> int:
        """Tokens that its slot must hold: the last one chosen is never read."""
        more = 0 if self.keep_logits is not None else self.params.max_new_tokens - 1
        return len(self.prompt_ids) + more


class Scheduler:
    """Owns the slots of a motor. memory_bytes: for all slots; prefix_bytes: of it for those that nobody runs on."""

    def __init__(
        self,
        motor: Motor,
        *,
        memory_bytes: int,
        most_running: int = MOST_RUNNING,
        most_waiting: int = MOST_WAITING,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        self.motor = motor
        self.memory_bytes = memory_bytes
        self.most_running = most_running
        self.most_waiting = most_waiting
        self.prefixes = PrefixCache(motor, prefix_bytes)
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []

    def submit(self, generation: Generation) -> Generation:
        """Queue a request; it is read when a place is free.

        Raises InputError when pictures and placeholders differ, MemoryBudgetError when it can never fit, BusyError
        when too many are waiting.
        """
        config = self.motor.config
        generation.is_picture = generation.prompt_ids == config.image_token_id
        places = int(generation.is_picture.sum())
        features = 0 if generation.pictures is None else len(generation.pictures)
        if generation.pictures is not None and places != features:
            raise InputError(f"The prompt has {places} image tokens, its pictures give {features} features.")
        needed = self.motor.slot_bytes(generation.room)
        if needed > self.memory_bytes:
            raise MemoryBudgetError(
                f"{generation.room} tokens of prompt and answer need {needed / 2**20:,.0f} MiB of cache, more than the "
                f"{self.memory_bytes / 2**20:,.0f} MiB there are: use fewer or smaller pictures, fewer frames, or a "
                "smaller max_new_tokens."
            )
        if len(self.waiting) >= self.most_waiting:
            raise BusyError(f"{len(self.waiting)} requests are waiting already: try again later.")
        content = None if generation.pictures is None else self.motor.content(generation.pictures)
        generation.key = prefix_key(
            generation.prompt_ids, content, config.image_token_id, config.image_seq_len, generation.adapter_number
        )
        self.waiting.append(generation)
        return generation

    def admit(self) -> None:
        """Give slots to those who waited longest."""
        for generation in list(self.waiting):
            if len(self.running) >= self.most_running:
                return
            prefix, shared = self._known(generation)
            if shared < self._coming(generation):
                continue  # a running request is just reading more of it: wait, then copy
            try:
                if not self._open(generation, prefix, shared):
                    return  # nobody overtakes one that waits for memory
            except Exception as error:  # no memory after all, say: the others may do with less
                generation.failure, generation.slot = error, None
            self.waiting.remove(generation)
            if generation.failure is None:
                self.running.append(generation)

    def drop_ended(self) -> None:
        """Forget the requests that have ended or were given up; unless one failed, what it read is kept as a prefix.

        Of a prompt whose logits were kept that is the part before them: what is behind it is a choice among others.
        """
        for generation in [one for one in (*self.running, *self.waiting) if one.ended]:
            if generation in self.running:
                self.running.remove(generation)
                if generation.failure is None:
                    self.prefixes.put(_read_key(generation)[: generation.keep_logits], _slot_of(generation))
            else:
                self.waiting.remove(generation)
            generation.slot = None

    def _known(self, generation: Generation) -> tuple[Prefix | None, int]:
        """What has been read already and can be used: from the prefixes, or copied from a running request."""
        key = _key_of(generation)[:-1]  # the last token is read in any case, for its logits
        if generation.keep_logits is not None:
            key = key[: generation.keep_logits]
        found, most = self.prefixes.longest(key)
        for other in self.running:
            read = _read_key(other)
            shared = shared_length(read, key)
            if shared > most:
                found, most = Prefix(read, _slot_of(other)), shared
        return (found, most) if most >= SHORTEST else (None, 0)

    def _coming(self, generation: Generation) -> int:
        """How much of its prompt running requests are going to read."""
        key = _key_of(generation)[:-1]
        if generation.keep_logits is not None:
            key = key[: generation.keep_logits]
        shared = [shared_length(_key_of(other), key) for other in self.running]
        return max((count for count in shared if count >= SHORTEST), default=0)

    def _open(self, generation: Generation, prefix: Prefix | None, shared: int) -> bool:
        """Find a slot; False when running requests hold the memory."""
        kept = prefix in self.prefixes.prefixes
        if prefix is not None and kept and prefix.slot.capacity >= generation.room and 2 * shared >= len(prefix.key):
            generation.slot = self.prefixes.take(prefix)
            generation.slot.length = shared
        else:
            if not self._make_room(self.motor.slot_bytes(generation.room), prefix if kept else None):
                return False
            generation.slot = self.motor.open(generation.room)
            if kept and prefix not in self.prefixes.prefixes:  # it had to go
                shared = 0
            elif prefix is not None:
                if kept:
                    self.prefixes.use(prefix)
                self.motor.copy_prefix(prefix.slot, generation.slot, shared)
        generation.cached_tokens = shared
        generation.sampler = Sampler(generation.params, generation.prompt_ids, generation.mask)
        return True

    def _make_room(self, needed: int, wanted: Prefix | None) -> bool:
        """Let prefixes go until there is memory, the wanted one last."""
        in_use = sum(self.motor.slot_bytes(_slot_of(one).capacity) for one in self.running)
        if in_use + needed > self.memory_bytes:
            return False
        prefixes = self.prefixes
        while in_use + needed + prefixes.num_bytes > self.memory_bytes:
            others = [prefix for prefix in prefixes.prefixes if prefix is not wanted]
            prefixes.take((others or prefixes.prefixes)[0])
        return True


def _key_of(generation: Generation) -> np.ndarray:
    assert generation.key is not None, "set when it was submitted"
    return generation.key


def _slot_of(generation: Generation) -> Slot:
    assert generation.slot is not None, "running requests have slots"
    return generation.slot


def _read_key(generation: Generation) -> np.ndarray:
    """The key of what its slot holds."""
    key, length = _key_of(generation), _slot_of(generation).length
    if length <= len(key):
        return key[:length]
    return np.concatenate([key, np.array(generation.token_ids[: length - len(key)], np.int64)])
