"""Configurations with the field names of Hugging Face's config.json. Unknown keys are kept and written back.

The class defaults are the reference's and are *not* the 2.2B geometry: together they describe a 6.9 B model.
Always take a released geometry from its config.json. Source: transformers' configuration_smolvlm.py and Llama's.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .errors import CheckpointError, ConfigError

ACTIVATIONS = ("gelu", "relu", "selu", "gelu_new", "quick_gelu", "gelu_pytorch_tanh", "silu")
Activation = str | Callable[[Any], Any]  # of a tensor


@dataclass(init=False, eq=True)
class _Config:
    """Keyword fields with defaults; what is not a field goes to `extra`."""

    model_type: ClassVar[str] = ""

    def __init__(self, **values: object) -> None:
        values.pop("model_type", None)
        for field in dataclasses.fields(self):
            setattr(self, field.name, values.pop(field.name, field.default))
        self.extra: dict[str, object] = values
        self._check()

    def _check(self) -> None:
        """Complete derived fields and refuse impossible ones."""

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, unknown keys included. A function given as hidden_act can't be written: ConfigError."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if callable(fields.get("hidden_act")):
            raise ConfigError(f"hidden_act is a function and can't be saved; use one of {', '.join(ACTIVATIONS)}.")
        return copy.deepcopy({**self.extra, **fields, "model_type": self.model_type})

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{type(self).__name__}.{name}={value!r}: it must be a whole number of at least 1.")

    def _require_activation(self, value: Activation) -> None:
        if not callable(value) and value not in ACTIVATIONS:
            raise ConfigError(f"hidden_act={value!r} is not known; use one of {', '.join(ACTIVATIONS)}, or a function.")


@dataclass(init=False)
class SmolVLMVisionConfig(_Config):
    """The vision tower (SigLIP). Sizes in pixels; image_size is the side of one tile."""

    model_type: ClassVar[str] = "smolvlm_vision"
    hidden_size: int = 1152
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: Activation = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    initializer_range: float = 0.02

    def _check(self) -> None:
        self._require_positive(
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels",
            "image_size", "patch_size",
        )  # fmt: skip
        self._require_activation(self.hidden_act)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} can't be split over {self.num_attention_heads} attention heads: "
                "it must be a multiple."
            )
        if self.image_size < self.patch_size:
            raise ConfigError(f"image_size {self.image_size} is smaller than one patch of {self.patch_size} pixels.")

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size


@dataclass(init=False)
class SmolVLMTextConfig(_Config):
    """The text model (Llama). Omitted fields take Llama's defaults, on which released checkpoints rely."""

    model_type: ClassVar[str] = "llama"
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: Activation = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    rope_theta: float = 10000.0
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False

    def __init__(self, **values: object) -> None:
        rope = values.pop("rope_parameters", None) or values.pop("rope_scaling", None)
        if isinstance(rope, dict):  # transformers 5 keeps theta in here
            kind = rope.get("rope_type", rope.get("type", "default"))
            if kind != "default":
                raise ConfigError(f"RoPE of type {kind!r} is not part of this family; only 'default' is.")
            values.setdefault("rope_theta", rope.get("rope_theta", type(self).rope_theta))
        super().__init__(**values)

    def _check(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self._require_positive(
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings",
        )  # fmt: skip
        self._require_activation(self.hidden_act)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} attention heads can't share {self.num_key_value_heads} key/value heads: "
                "the first must be a multiple of the second."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary positions need an even one.")

    @property
    def kv_heads(self) -> int:
        assert self.num_key_value_heads is not None, "set by _check"
        return self.num_key_value_heads

    @property
    def head_size(self) -> int:
        assert self.head_dim is not None, "set by _check"
        return self.head_dim


class SmolVLMConfig(_Config):
    """The whole model. `image_token_id` marks the places of image features in `input_ids`.

    pad_token_id is accepted for compatibility only: the published default 128002 lies outside the vocabulary, and
    nothing reads it. Also loads `model_type` "idefics3", which has the same keys, shapes and mathematics.
    """

    model_type: ClassVar[str] = "smolvlm"
    vision_config: SmolVLMVisionConfig
    text_config: SmolVLMTextConfig

    def __init__(
        self,
        use_cache: bool = True,
        image_token_id: int = 128257,
        tie_word_embeddings: bool = False,
        vision_config: SmolVLMVisionConfig | dict[str, object] | None = None,
        text_config: SmolVLMTextConfig | dict[str, object] | None = None,
        scale_factor: int = 2,
        pad_token_id: int | None = 128002,
        **kwargs: object,
    ) -> None:
        self.use_cache = use_cache
        self.image_token_id = image_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.scale_factor = scale_factor
        self.pad_token_id = pad_token_id
        self.source_model_type = str(kwargs.pop("model_type", self.model_type))
        if isinstance(vision_config, SmolVLMVisionConfig):
            self.vision_config = vision_config
        else:
            self.vision_config = SmolVLMVisionConfig(**(vision_config or {}))
        if isinstance(text_config, SmolVLMTextConfig):
            self.text_config = text_config
        else:
            self.text_config = SmolVLMTextConfig(**(text_config if text_config is not None else {"rms_norm_eps": 1e-5}))
        self.extra = kwargs
        self._check()

    def _check(self) -> None:
        self._require_positive("scale_factor")
        if self.source_model_type not in ("smolvlm", "idefics3"):
            raise ConfigError(
                f"model_type {self.source_model_type!r} is not of this family; 'smolvlm' and 'idefics3' are."
            )
        if self.vision_config.patches_per_side < self.scale_factor:
            raise ConfigError(
                f"scale_factor {self.scale_factor} is larger than the tile's side of "
                f"{self.vision_config.patches_per_side} patches."
            )

    @property
    def image_seq_len(self) -> int:
        """Image tokens one tile becomes."""
        return self.vision_config.patches_per_side**2 // self.scale_factor**2

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, unknown keys included, sub-configurations as dictionaries."""
        own = {
            "use_cache": self.use_cache,
            "image_token_id": self.image_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "scale_factor": self.scale_factor,
            "pad_token_id": self.pad_token_id,
            "vision_config": self.vision_config.to_dict(),
            "text_config": self.text_config.to_dict(),
            "model_type": self.source_model_type,
        }
        return copy.deepcopy({**self.extra, **own})

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> SmolVLMConfig:
        """Build from the content of a config.json. Raises ConfigError naming the wrong field."""
        return cls(**copy.deepcopy(values))  # type: ignore[arg-type]

    @classmethod
    def from_file(cls, path: Path) -> SmolVLMConfig:
        """Read a config.json. Raises CheckpointError when it is missing or not a JSON object."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing: a checkpoint directory needs a config.json.") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path} is not valid JSON ({error}).") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{path} holds a {type(values).__name__}, not an object with fields.")
        return cls.from_dict(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SmolVLMConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"SmolVLMConfig({json.dumps(self.to_dict(), indent=2, default=str)})"
