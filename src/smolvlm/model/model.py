"""SmolVLM: vision tower, connector and text model joined; with and without the language-model head.

Attribute names are the checkpoint's keys, so loading is a strict load_state_dict. Generation lives elsewhere.
Source: transformers 5.23's modeling_smolvlm.py, and the published documentation where the two disagree
(`labels` ignore image tokens; `image_hidden_states` is one tensor, in and out). Parity: tests/reference/test_model.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SmolVLMConfig
from ..errors import InputError, PromptError
from .attention import check_implementation
from .cache import KVCache, LegacyCache
from .connector import SmolVLMConnector
from .outputs import SmolVLMBaseModelOutputWithPast, SmolVLMCausalLMOutputWithPast
from .pretrained import Pretrained
from .text import SmolVLMTextModel
from .vision import SmolVLMVisionTransformer

# Patches encoded at once without gradients on a CPU: more leave the cache and run 1.5x slower (13 tiles of 1,024).
CPU_PATCHES_AT_ONCE = 1024


class SmolVLMModel(Pretrained):
    """Tokens and tiles in, hidden states out.

    config: SmolVLMConfig. attn_implementation: eager, sdpa (default) or flash_attention_2, for both towers.
    """

    config: SmolVLMConfig

    def __init__(self, config: SmolVLMConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config)
        implementation = check_implementation(attn_implementation)
        self.vision_model = SmolVLMVisionTransformer(config.vision_config, implementation)
        self.connector = SmolVLMConnector(config)
        self.text_model = SmolVLMTextModel(config, implementation)
        self.connector.apply(self._init_weights)
        self.text_model.apply(self._init_weights)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text_model.embed_tokens

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        self.text_model.embed_tokens = embeddings

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Grow or cut the vocabulary; new rows start at the mean of the old. Returns the new table."""
        self.text_model.embed_tokens = _resized_embedding(self.text_model.embed_tokens, new_num_tokens)
        self.config.text_config.vocab_size = new_num_tokens
        return self.text_model.embed_tokens

    def get_image_features(self, pixel_values: Tensor, pixel_attention_mask: Tensor | None = None) -> Tensor:
        """Encode tiles: (batch, tiles, 3, height, width) -> (real tiles, image tokens, hidden).

        pixel_attention_mask: (batch, tiles, height, width), nonzero = real pixel. All-zero tiles are padding and left
        out. Raises InputError when the shape is another.
        """
        real = self._real_tiles(pixel_values)
        tiles = pixel_values.flatten(0, 1)[real.flatten()].to(self.dtype)  # (real tiles, 3, height, width)
        patch_mask = None
        if pixel_attention_mask is not None:
            patch_mask = self._patch_mask(pixel_attention_mask.flatten(0, 1)[real.flatten()])
        return self._encode(tiles, patch_mask)

    def _encode(self, tiles: Tensor, patch_mask: Tensor | None) -> Tensor:
        patches = (tiles.shape[-2] // self.config.vision_config.patch_size) ** 2
        at_once = len(tiles)
        if tiles.device.type == "cpu" and not torch.is_grad_enabled():
            at_once = max(1, CPU_PATCHES_AT_ONCE // patches)
        features = []
        for start in range(0, len(tiles), at_once):
            mask = None if patch_mask is None else patch_mask[start : start + at_once]
            x = self.vision_model(tiles[start : start + at_once], mask).last_hidden_state  # (tiles, patches, hidden)
            features.append(self.connector(x))  # (tiles, image tokens, hidden)
        return features[0] if len(features) == 1 else torch.cat(features)

    def _real_tiles(self, pixel_values: Tensor) -> Tensor:
        """(batch, tiles) bool: which are not padding. When all are zero the first counts as real, as the reference."""
        if pixel_values.dim() != 5:
            raise InputError(
                f"pixel_values has the shape {tuple(pixel_values.shape)}; it must be (batch, tiles, 3, height, width). "
                "The processor makes it."
            )
        real = (pixel_values != 0).flatten(2).any(dim=2)
        if not bool(real.any()):
            real[0, 0] = True
        return real

    def _patch_mask(self, pixel_mask: Tensor) -> Tensor:
        """(tiles, height, width) -> (tiles, rows, columns): a patch is real when any of its pixels is."""
        size = self.config.vision_config.patch_size
        return F.max_pool2d(pixel_mask.float()[:, None], kernel_size=size, stride=size)[:, 0] > 0

    def _merge(self, embeddings: Tensor, is_image: Tensor, features: Tensor, per_sample: Tensor | None) -> Tensor:
        """Put features (tiles, image tokens, hidden) where is_image (batch, tokens) says, left to right."""
        counts = is_image.sum(dim=1)  # (batch,)
        rows = features.flatten(0, -2)  # (all image tokens, hidden)
        if per_sample is not None:
            wrong = (counts != per_sample).nonzero()
            if len(wrong):
                sample = int(wrong[0])
                raise PromptError(
                    f"Image features and image tokens do not match in sample {sample}: the prompt has "
                    f"{int(counts[sample])} image tokens, its pictures give {int(per_sample[sample])} features. "
                    "Make text and pictures with one call of the processor."
                )
        elif int(counts.sum()) != len(rows):
            raise PromptError(
                f"Image features and image tokens do not match, tokens: {int(counts.sum())}, features: {len(rows)}. "
                f"Tokens per sample: {counts.tolist()}."
            )
        return embeddings.masked_scatter(is_image[..., None], rows.to(embeddings.dtype))

    def _image_places(self, input_ids: Tensor | None, embeddings: Tensor) -> Tensor:
        if input_ids is not None:
            return input_ids == self.config.image_token_id
        marker = self.get_input_embeddings().weight[self.config.image_token_id].to(embeddings.dtype)
        return (embeddings == marker).all(dim=-1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | LegacyCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        image_hidden_states: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> SmolVLMBaseModelOutputWithPast | tuple[object, ...]:
        """input_ids (batch, tokens) or inputs_embeds (batch, tokens, hidden); tiles as in `get_image_features`.

        image_hidden_states: features already encoded, (tiles, image tokens, hidden), instead of pixel_values.
        attention_mask: (batch, past + tokens). position_ids default to cache_position, else to counting on from the
        cache. use_cache defaults to the config's. Raises InputError, PromptError (naming the sample and both numbers).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("You must specify exactly one of input_ids or inputs_embeds.")
        if pixel_values is not None and image_hidden_states is not None:
            raise InputError("You must specify at most one of pixel_values and image_hidden_states, not both.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)  # (batch, tokens, hidden)
        assert inputs_embeds is not None, "made from input_ids"
        x, features = self._with_pictures(
            input_ids, inputs_embeds, pixel_values, pixel_attention_mask, image_hidden_states
        )
        cache = self._cache(past_key_values, use_cache)
        past = cache.length if cache is not None else 0
        if position_ids is None:
            counting = torch.arange(past, past + x.shape[1], device=x.device)
            position_ids = (counting if cache_position is None else cache_position)[None]  # (1, tokens)
        hidden, states, attentions = self.text_model(
            x, attention_mask, position_ids, cache, bool(output_attentions), bool(output_hidden_states)
        )
        output = SmolVLMBaseModelOutputWithPast(hidden, cache, states, attentions, features)
        return output if return_dict is not False else output.to_tuple()

    def _with_pictures(
        self,
        input_ids: Tensor | None,
        embeddings: Tensor,
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None,
        features: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        per_sample = None
        if pixel_values is not None:
            features = self.get_image_features(pixel_values, pixel_mask)
            per_sample = self._real_tiles(pixel_values).sum(dim=1) * features.shape[1]  # (batch,)
        if features is None:
            return embeddings, None
        if features.dim() != 3:
            raise InputError(
                f"image_hidden_states has the shape {tuple(features.shape)}; it must be (tiles, image tokens, hidden)."
            )
        return self._merge(embeddings, self._image_places(input_ids, embeddings), features, per_sample), features

    def _cache(self, past: KVCache | LegacyCache | None, use_cache: bool | None) -> KVCache | None:
        """None where layers are recomputed in the backward pass: they would store their keys twice."""
        if past is not None:
            return past if isinstance(past, KVCache) else KVCache.from_legacy(past)
        recomputed = self.training and self.text_model.gradient_checkpointing
        wanted = self.config.use_cache if use_cache is None else use_cache
        return KVCache() if wanted and not recomputed else None


class SmolVLMForConditionalGeneration(Pretrained):
    """SmolVLMModel with the language-model head: the class that checkpoints hold."""

    config: SmolVLMConfig

    def __init__(self, config: SmolVLMConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config)
        self.model = SmolVLMModel(config, attn_implementation)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self._init_weights(self.lm_head)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Share one matrix between embeddings and head when the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.text_model.embed_tokens.weight

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        self.model.set_input_embeddings(embeddings)
        self.tie_weights()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, head: nn.Linear) -> None:
        self.lm_head = head

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Grow or cut the vocabulary of table and head; new rows start at the mean of the old."""
        table = self.model.resize_token_embeddings(new_num_tokens)
        if not self.config.tie_word_embeddings:
            head = nn.Linear(self.lm_head.in_features, new_num_tokens, bias=False, device=self.device, dtype=self.dtype)
            _copy_rows(self.lm_head.weight, head.weight)
            self.lm_head = head
        self.lm_head.out_features = new_num_tokens
        self.tie_weights()
        return table

    def get_image_features(self, pixel_values: Tensor, pixel_attention_mask: Tensor | None = None) -> Tensor:
        """See SmolVLMModel.get_image_features."""
        return self.model.get_image_features(pixel_values, pixel_attention_mask)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | LegacyCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        image_hidden_states: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache_position: Tensor | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> SmolVLMCausalLMOutputWithPast | tuple[object, ...]:
        """As SmolVLMModel.forward, with logits.

        labels: (batch, tokens); -100 and image_token_id are ignored; the loss is the mean over the rest, in fp32.
        logits_to_keep: the last k positions (0 = all), a 1-D tensor of positions for all samples, a 2-D integer tensor
        of positions per sample, or a 2-D bool tensor, which gives (positions kept, vocabulary).
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise InputError("labels need the logits of all positions: leave logits_to_keep at 0.")
        output = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, pixel_values,
            pixel_attention_mask, image_hidden_states, use_cache, output_attentions, output_hidden_states,
            True, cache_position,
        )  # fmt: skip
        logits = self.lm_head(_keep(output.last_hidden_state, logits_to_keep))  # (batch, kept, vocabulary)
        result = SmolVLMCausalLMOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=output.image_hidden_states,
        )
        return result if return_dict is not False else result.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Each position predicts the next label."""
        targets = labels[:, 1:].to(logits.device).flatten()
        targets = targets.masked_fill(targets == self.config.image_token_id, -100)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=-100)


def _keep(hidden: Tensor, keep: int | Tensor) -> Tensor:
    if isinstance(keep, int):
        return hidden[:, -keep:] if keep else hidden
    if keep.dim() == 1:
        return hidden[:, keep]
    if keep.dtype == torch.bool:
        return hidden[keep]
    return hidden.gather(1, keep[..., None].expand(-1, -1, hidden.shape[-1]))


def _resized_embedding(old: nn.Embedding, rows: int) -> nn.Embedding:
    pad = old.padding_idx if old.padding_idx is not None and old.padding_idx < rows else None
    weight = old.weight
    new = nn.Embedding(rows, old.embedding_dim, padding_idx=pad, device=weight.device, dtype=weight.dtype)
    _copy_rows(weight, new.weight)
    return new


def _copy_rows(old: Tensor, new: Tensor) -> None:
    shared = min(len(old), len(new))
    with torch.no_grad():
        new[:shared] = old[:shared]
        new[shared:] = old.mean(dim=0)
