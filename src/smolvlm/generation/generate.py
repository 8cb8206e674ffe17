"""The plain generation loop, the reference for every faster engine: Inputs as tensors in, token ids out.

One prefill with the pictures, then one token a row and step over a static KVCache. Knows no text and no files: stop
checks and token masks are handed in. How a token is chosen is in sampling.py, how text comes of it in
processing/text_stream.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..model import KVCache, SmolVLMForConditionalGeneration
from ..types import FinishReason, SamplingParams
from .sampling import Sampler, TokenMask

# (row of the batch, token id) -> True when the answer ends with this token.
StopCheck = Callable[[int, int], bool]
MEDIA_KEYS = ("pixel_values", "pixel_attention_mask", "image_hidden_states")


class NewToken(NamedTuple):
    """One chosen token. finish_reason is set on the last one of its row."""

    row: int
    token_id: int
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Generated:
    """One row's new tokens, the end token included when there was one."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason


def generate(
    model: SmolVLMForConditionalGeneration,
    batch: Mapping[str, Tensor],
    params: SamplingParams | Sequence[SamplingParams],
    *,
    eos_token_ids: Collection[int],
    stop_check: StopCheck | None = None,
    masks: Sequence[TokenMask | None] = (),
    on_token: Callable[[NewToken], None] | None = None,
    use_cache: bool = True,
) -> list[Generated]:
    """Answer every row of a batch. Arguments and errors are those of `iter_steps`; on_token sees each new token."""
    token_ids: list[list[int]] = [[] for _ in batch["input_ids"]]
    reasons: list[FinishReason] = ["length"] * len(token_ids)
    steps = iter_steps(
        model, batch, params, eos_token_ids=eos_token_ids, stop_check=stop_check, masks=masks, use_cache=use_cache
    )
    for step in steps:
        for token in step:
            token_ids[token.row].append(token.token_id)
            if token.finish_reason is not None:
                reasons[token.row] = token.finish_reason
            if on_token is not None:
                on_token(token)
    return [Generated(tuple(ids), reason) for ids, reason in zip(token_ids, reasons, strict=True)]


@torch.inference_mode()
def iter_steps(
    model: SmolVLMForConditionalGeneration,
    batch: Mapping[str, Tensor],
    params: SamplingParams | Sequence[SamplingParams],
    *,
    eos_token_ids: Collection[int],
    stop_check: StopCheck | None = None,
    masks: Sequence[TokenMask | None] = (),
    use_cache: bool = True,
) -> Iterator[list[NewToken]]:
    """Yield the new tokens step by step, one for each row that hasn't ended; the first step includes the prefill.

    batch: input_ids (batch, tokens), optionally attention_mask of the same shape (padding on the left only) and
    pixel_values (batch, tiles, 3, height, width) with pixel_attention_mask, or image_hidden_states.
    params: for all rows, or one a row; a row draws the same numbers whatever else is in the batch. masks: none, or one
    a row, which is used up.
    use_cache=False computes everything anew at each step: slow, the yardstick of the cache.
    Raises InputError for padding on the right or a wrong number of params.
    """
    count = len(batch["input_ids"])
    each = [params] * count if isinstance(params, SamplingParams) else list(params)
    if len(each) != count:
        raise InputError(f"The batch has {count} rows, but {len(each)} sampling params came: give one, or one a row.")
    reader = _Reader(model, batch, max(row_params.max_new_tokens for row_params in each), use_cache)
    each_mask = list(masks) or [None] * count
    live = [_Row(row, row, Sampler(each[row], prompt, each_mask[row])) for row, prompt in enumerate(reader.prompts())]
    ends = frozenset(eos_token_ids)
    logits = reader.first()
    while True:
        chosen = _choose(logits, live)
        step = [row.take(token_id, ends, stop_check) for row, token_id in zip(live, chosen, strict=True)]
        yield step
        live = [row for row, token in zip(live, step, strict=True) if token.finish_reason is None]
        if not live:
            return
        if 2 * len(live) <= reader.slots and use_cache:
            reader.keep([row.slot for row in live])
            for slot, row in enumerate(live):
                row.slot = slot
        logits = reader.next({row.slot: row.last_id for row in live})


@dataclass(slots=True)
class _Row:
    """A request that is being answered: its place in the batch, and its place among the rows still computed."""

    index: int
    slot: int
    sampler: Sampler
    last_id: int = -1

    def take(self, token_id: int, ends: Collection[int], stop_check: StopCheck | None) -> NewToken:
        self.last_id = token_id
        stopped = stop_check is not None and stop_check(self.index, token_id)
        if stopped or token_id in ends:
            return NewToken(self.index, token_id, "stop")
        if self.sampler.ending is not None:
            return NewToken(self.index, token_id, self.sampler.ending)
        full = self.sampler.step == self.sampler.params.max_new_tokens
        return NewToken(self.index, token_id, "length" if full else None)


def _choose(logits: Tensor, live: Sequence[_Row]) -> list[int]:
    """One token id for each live row. logits: (slots, vocabulary)."""
    if logits.device.type != "cpu" and all(row.sampler.is_argmax for row in live):
        best = logits.argmax(dim=-1).tolist()
        return [row.sampler.accept(best[row.slot]) for row in live]
    scores = logits.float().cpu().numpy()  # numpy's argmax takes 3 us for 49,280 logits, torch's 110
    return [row.sampler.choose(scores[row.slot]) for row in live]


class _Reader:
    """Feeds the model: owns cache, padding and positions. `slots` counts the rows it still computes.

    Half of the slots are given up when half of the rows have ended, so that all the copying together stays below one
    copy of the cache. Without a cache nothing is given up: pictures can't be told apart by row.
    """

    def __init__(
        self, model: SmolVLMForConditionalGeneration, batch: Mapping[str, Tensor], max_new_tokens: int, use_cache: bool
    ) -> None:
        self._model = model
        self._ids = batch["input_ids"].to(model.device)  # (slots, tokens)
        self._media = {key: batch[key].to(model.device) for key in MEDIA_KEYS if batch.get(key) is not None}
        self.slots, prompt_length = self._ids.shape
        capacity = prompt_length + max_new_tokens - 1  # the last token is never read
        self._mask = _left_padding(batch.get("attention_mask"), self._ids, capacity)
        self._cache = None
        if use_cache:
            text = model.config.text_config
            self._cache = KVCache.allocate(text, self.slots, capacity, model.dtype, model.device)

    def prompts(self) -> list[np.ndarray]:
        """Each row's prompt without its padding."""
        ids = self._ids.cpu().numpy()
        if self._mask is None:
            return list(ids)
        real = self._mask[:, : ids.shape[1]].cpu().numpy() > 0
        return [row_ids[row_real] for row_ids, row_real in zip(ids, real, strict=True)]

    def first(self) -> Tensor:
        """Read the prompts and pictures. Returns the logits of the first new token, (slots, vocabulary)."""
        return self._forward(self._ids, self._ids.shape[1])

    def next(self, token_ids: Mapping[int, int]) -> Tensor:
        """Read one new token a slot; slots without one read token 0 for nothing. Returns (slots, vocabulary)."""
        new = [[token_ids.get(slot, 0)] for slot in range(self.slots)]
        ids = torch.tensor(new, device=self._ids.device)  # (slots, 1)
        if self._cache is not None:
            return self._forward(ids, self._cache.length + 1)
        self._ids = torch.cat([self._ids, ids], dim=1)
        return self._forward(self._ids, self._ids.shape[1])

    def keep(self, slots: list[int]) -> None:
        """Go on with these slots only, in this order."""
        assert self._cache is not None, "rows can only be dropped from a cache"
        chosen = torch.tensor(slots, device=self._ids.device)
        self._cache.reorder(chosen)
        self._mask = None if self._mask is None else self._mask[chosen]
        self.slots = len(slots)

    def _forward(self, ids: Tensor, length: int) -> Tensor:
        """length: of the whole sequence, past and new."""
        mask = positions = None
        if self._mask is not None:
            mask = self._mask[:, :length]  # (slots, length)
            positions = (mask.cumsum(dim=1) - 1).clamp_(min=0)[:, -ids.shape[1] :]  # (slots, new)
        cached = self._cache is not None
        media = {} if cached and length > ids.shape[1] else self._media
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache,
            use_cache=cached, logits_to_keep=1, **media,
        )  # fmt: skip
        return output.logits[:, -1]


def _left_padding(attention_mask: Tensor | None, ids: Tensor, capacity: int) -> Tensor | None:
    """The mask prolonged by ones to (batch, capacity); None when no row has padding, which is faster and the same."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    if attention_mask.shape != ids.shape:
        raise InputError(
            f"attention_mask has the shape {tuple(attention_mask.shape)}, input_ids {tuple(ids.shape)}: "
            "they must be equal. The processor makes both."
        )
    if not bool(attention_mask[:, -1].all()) or bool((attention_mask.diff(dim=1) < 0).any()):
        raise InputError(
            "A prompt to be continued must be padded on the left: its last tokens can't be padding. "
            "Call the processor with padding_side='left'."
        )
    mask = attention_mask.new_ones(len(ids), capacity, dtype=torch.long, device=ids.device)
    mask[:, : ids.shape[1]] = attention_mask
    return mask
