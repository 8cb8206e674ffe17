"""Results of the models: attributes, keys and tuple places at once, as users of the reference expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .cache import KVCache


class ModelOutput:
    """`out.logits`, `out["logits"]`, `out[0]` and `tuple(out)`; fields that are None have no place and no key."""

    def keys(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: str | int | slice) -> object:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class BaseModelOutput(ModelOutput):
    """Vision tower. last_hidden_state: (tiles, patches, hidden), after post_layernorm."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class SmolVLMBaseModelOutputWithPast(ModelOutput):
    """Model without head. last_hidden_state: (batch, tokens, hidden), after the final norm.

    hidden_states: merged embeddings, then one a layer; the last is after the final norm.
    image_hidden_states: (tiles, image tokens, hidden), padding tiles left out.
    """

    last_hidden_state: Tensor
    past_key_values: KVCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None


@dataclass
class SmolVLMCausalLMOutputWithPast(ModelOutput):
    """Model with head. loss: scalar, when labels were given. logits: (batch, tokens kept, vocabulary), model dtype."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: KVCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None
