"""The reference's names: a published snippet runs after changing one import line.

The one room that follows transformers' habits instead of ours: keyword soup, dict-like inputs, prompt and answer in
one tensor. The work is done by model/, processing/ and generation/. What differs on purpose is in docs/internals.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from . import hub
from .config import SmolVLMConfig
from .errors import InputError
from .generation.generate import Generated, NewToken, generate
from .media.image import load_image
from .model import SmolVLMForConditionalGeneration as _Model
from .processing.image import SmolVLMImageProcessor
from .processing.processor import SmolVLMProcessor
from .processing.text_stream import TextStream
from .processing.tokenizer import SmolVLMTokenizer
from .types import SamplingParams

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoProcessor",
    "AutoTokenizer",
    "GenerationConfig",
    "SmolVLMForConditionalGeneration",
    "load_image",
]

_LOG = logging.getLogger(__name__)
DEFAULT_NEW_TOKENS = 256
DEFAULT_TOP_K = 50  # the reference's, when sampling and nothing else is said
# Arguments of the reference's generate that mean "off" or change nothing with these values; None always does.
_IDLE: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
    "output_logits": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "synced_gpus": (False,),
    "cache_implementation": ("static", "dynamic"),
    "early_stopping": (False,),
    "no_repeat_ngram_size": (0,),
    "length_penalty": (1, 1.0),
    "typical_p": (1, 1.0),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "remove_invalid_values": (False,),
}
_UNUSED = ("bos_token_id", "mm_token_type_ids", "token_type_ids", "transformers_version", "_from_model_config")


class Streamer(Protocol):
    """What `generate` tells new tokens to, as the reference's TextStreamer."""

    def put(self, value: Tensor) -> object: ...

    def end(self) -> object: ...


class GenerationConfig(dict[str, Any]):
    """The content of generation_config.json: the defaults of `generate`. Keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class SmolVLMForConditionalGeneration(_Model):
    """The model with the reference's `generate`."""

    generation_config: GenerationConfig

    def __init__(self, config: SmolVLMConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.generation_config = GenerationConfig()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None, **options: Any) -> Self:
        """As the model's own, and reads generation_config.json; without one, the tokenizer says where answers end."""
        where = {
            key: options.pop(key) for key in ("revision", "local_files_only", "token", "cache_dir") if key in options
        }
        for key in ("trust_remote_code", "low_cpu_mem_usage", "use_safetensors"):
            options.pop(key, None)
        directory = hub.resolve(name_or_path, **where)
        model = super().from_pretrained(directory, **options)
        model.generation_config = GenerationConfig(model.generation_config or {})
        if model.generation_config.eos_token_id is None and (directory / "tokenizer.json").is_file():
            model.generation_config.eos_token_id = SmolVLMTokenizer.from_directory(directory).eos_token_id
        return model

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        image_hidden_states: Tensor | None = None,
        generation_config: Mapping[str, Any] | None = None,
        tokenizer: SmolVLMTokenizer | None = None,
        streamer: Streamer | None = None,
        **options: Any,
    ) -> Tensor:
        """Continue every row of input_ids (batch, tokens). Returns prompt and new tokens, (batch, tokens + new), int64.

        inputs: the reference's other name of input_ids. Rows that end early are filled with the pad token. Prompts
        padded on the right are moved to the left first.
        options: max_new_tokens (or max_length, prompt included), do_sample, temperature, top_k, top_p, min_p,
        repetition_penalty, num_return_sequences, eos_token_id (one or several), pad_token_id, use_cache, seed,
        stop_strings (with tokenizer=). They default to generation_config, then to generation_config.json, then to
        greedy and 256 new tokens. Sampling follows torch.manual_seed unless seed is given.
        Raises InputError for an option that isn't one of these.
        """
        settings = _settings(self.generation_config, generation_config, options)
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is None or input_ids.dim() != 2:
            raise InputError("generate needs input_ids of shape (batch, tokens), as the processor makes them.")
        ends = self._ends(settings)
        pad = self._pad(settings, ends)
        ids, mask = _left_padded(input_ids, attention_mask, pad)
        media = {
            "pixel_values": pixel_values,
            "pixel_attention_mask": pixel_attention_mask,
            "image_hidden_states": image_hidden_states,
        }
        batch = _repeat({"input_ids": ids, "attention_mask": mask, **media}, settings)
        params = _params(settings, batch["input_ids"], self.config)
        if streamer is not None:
            if len(params) > 1:
                raise InputError(f"A streamer follows one answer, but this batch has {len(params)}.")
            streamer.put(input_ids.cpu())
        answers = generate(
            self,
            batch,
            params,
            eos_token_ids=ends,
            stop_check=_stop_check(settings.get("stop_strings"), tokenizer, len(params)),
            on_token=None if streamer is None else _Teller(streamer),
            use_cache=settings.get("use_cache") is not False,
        )
        if streamer is not None:
            streamer.end()
        return _joined(batch["input_ids"], answers, pad)

    def _ends(self, settings: Mapping[str, Any]) -> list[int]:
        found = settings.get("eos_token_id")
        if found is None:
            found = self.config.text_config.eos_token_id
        if isinstance(found, Tensor):
            found = found.tolist()
        return [] if found is None else [found] if isinstance(found, int) else [int(end) for end in found]

    def _pad(self, settings: Mapping[str, Any], ends: Sequence[int]) -> int:
        """Never the composite config's pad_token_id: the released files have one outside of the vocabulary there."""
        for found in (settings.get("pad_token_id"), self.config.text_config.pad_token_id, *ends):
            if found is not None:
                return int(found)
        return 0


class _Teller:
    """Hands each new token to a streamer."""

    def __init__(self, streamer: Streamer) -> None:
        self._streamer = streamer

    def __call__(self, token: NewToken) -> None:
        self._streamer.put(torch.tensor([token.token_id]))


_SETTINGS = (
    "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "num_return_sequences", "eos_token_id", "pad_token_id", "use_cache", "seed", "stop_strings",
)  # fmt: skip


def _settings(file: Mapping[str, Any] | None, config: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The call's options over the given config over the file's. Raises InputError for a keyword that is none."""
    given = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    for name, value in options.items():
        if name in _SETTINGS or name in _UNUSED or value is None:
            continue
        if name not in _IDLE:
            raise InputError(f"generate has no argument {name!r}. It has: {', '.join(sorted(_SETTINGS))}.")
        if value not in _IDLE[name]:
            raise InputError(
                f"generate can't do {name}={value!r}; leave it out. It has: {', '.join(sorted(_SETTINGS))}."
            )
    if options.get("max_length") is not None and options.get("max_new_tokens") is None:
        file = {name: value for name, value in (file or {}).items() if name != "max_new_tokens"}
        given.pop("max_new_tokens", None)
    layers = (file or {}, given, options)
    return {name: value for layer in layers for name, value in layer.items() if value is not None and name in _SETTINGS}


def _params(settings: Mapping[str, Any], ids: Tensor, config: SmolVLMConfig) -> list[SamplingParams]:
    """One SamplingParams a row, each with a seed of its own."""
    rows, prompt = ids.shape
    new_tokens = settings.get("max_new_tokens")
    if new_tokens is None and settings.get("max_length") is not None:
        new_tokens = settings["max_length"] - prompt
        if new_tokens < 1:
            raise InputError(
                f"max_length={settings['max_length']} counts the prompt, which has {prompt} tokens already: nothing "
                "is left to generate. Pass max_new_tokens instead."
            )
    new_tokens = DEFAULT_NEW_TOKENS if new_tokens is None else new_tokens
    context = config.text_config.max_position_embeddings
    if prompt + new_tokens > context:
        _LOG.warning("%d prompt and %d new tokens go beyond the model's context of %d.", prompt, new_tokens, context)
    penalty = settings.get("repetition_penalty", 1.0)
    if not settings.get("do_sample"):
        return [SamplingParams(new_tokens, repetition_penalty=penalty)] * rows
    if not settings.get("temperature", 1.0) > 0:
        raise InputError(f"temperature={settings['temperature']!r} must be above 0 to sample; pass do_sample=False.")
    seed = settings.get("seed")
    first = int(torch.randint(2**62, ())) if seed is None else int(seed)
    return [
        SamplingParams(
            new_tokens,
            temperature=settings.get("temperature", 1.0),
            top_k=settings.get("top_k", DEFAULT_TOP_K),
            top_p=settings.get("top_p", 1.0),
            min_p=settings.get("min_p", 0.0),
            repetition_penalty=penalty,
            seed=first + row,
        )
        for row in range(rows)
    ]


def _left_padded(ids: Tensor, mask: Tensor | None, pad: int) -> tuple[Tensor, Tensor]:
    """Every row with its padding in front; without a mask, the pad tokens of a batch are its padding."""
    if mask is None:
        mask = (ids != pad).long() if len(ids) > 1 else torch.ones_like(ids)
    if mask.shape != ids.shape:
        raise InputError(
            f"attention_mask has the shape {tuple(mask.shape)}, input_ids {tuple(ids.shape)}: make them equal."
        )
    order = mask.long().argsort(dim=1, stable=True)  # padding first, the rest in its own order
    return ids.gather(1, order), mask.gather(1, order)


def _repeat(batch: dict[str, Tensor | None], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Each row num_return_sequences times."""
    count = settings.get("num_return_sequences") or 1
    present = {name: value for name, value in batch.items() if value is not None}
    if count == 1:
        return present
    if not settings.get("do_sample"):
        raise InputError(
            f"num_return_sequences={count} gives {count} equal answers without sampling: pass do_sample=True."
        )
    if "image_hidden_states" in present:
        raise InputError("num_return_sequences can't repeat image_hidden_states: pass pixel_values.")
    return {name: value.repeat_interleave(count, dim=0) for name, value in present.items()}


def _stop_check(stops: Any, tokenizer: SmolVLMTokenizer | None, rows: int) -> Any:
    if not stops:
        return None
    if tokenizer is None:
        raise InputError("stop_strings are texts: pass tokenizer=processor.tokenizer with them.")
    texts = (stops,) if isinstance(stops, str) else tuple(stops)
    streams = [TextStream(tokenizer.token_bytes, texts) for _ in range(rows)]

    def check(row: int, token_id: int) -> bool:
        streams[row].push(token_id)
        return streams[row].stopped

    return check


def _joined(prompts: Tensor, answers: Sequence[Generated], pad: int) -> Tensor:
    width = max(len(answer.token_ids) for answer in answers)
    new = [[*answer.token_ids, *[pad] * (width - len(answer.token_ids))] for answer in answers]
    return torch.cat([prompts, torch.tensor(new, dtype=prompts.dtype, device=prompts.device)], dim=1)


class AutoModelForImageTextToText:
    """The model of a checkpoint of this family, whichever generation it is of."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path | None = None, **options: Any) -> SmolVLMForConditionalGeneration:
        return SmolVLMForConditionalGeneration.from_pretrained(name_or_path, **options)

    @staticmethod
    def from_config(config: SmolVLMConfig, **options: Any) -> SmolVLMForConditionalGeneration:
        """A model with random weights."""
        attention = options.pop("_attn_implementation", None)
        return SmolVLMForConditionalGeneration(config, options.pop("attn_implementation", attention))


class AutoModelForVision2Seq(AutoModelForImageTextToText):
    """The older name of AutoModelForImageTextToText."""


class AutoProcessor:
    """The processor of a checkpoint."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path | None = None, **options: Any) -> SmolVLMProcessor:
        return SmolVLMProcessor.from_pretrained(name_or_path, **options)


class AutoTokenizer:
    """The tokenizer of a checkpoint."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path | None = None, **options: Any) -> SmolVLMTokenizer:
        for key in ("use_fast", "trust_remote_code"):
            options.pop(key, None)
        return SmolVLMTokenizer.from_pretrained(name_or_path, **options)


class AutoImageProcessor:
    """The image processor of a checkpoint."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path | None = None, **options: Any) -> SmolVLMImageProcessor:
        return SmolVLMProcessor.from_pretrained(name_or_path, **options).image_processor


class AutoConfig:
    """The configuration of a checkpoint."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path | None = None, **where: Any) -> SmolVLMConfig:
        where.pop("trust_remote_code", None)
        return SmolVLMConfig.from_file(hub.resolve(name_or_path, patterns=hub.PROCESSOR_FILES, **where) / "config.json")
