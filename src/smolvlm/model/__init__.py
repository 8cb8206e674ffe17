"""THE WORKSHOP: tensors in, logits out. Knows no text and no files but weights."""

from .cache import KVCache
from .model import SmolVLMForConditionalGeneration, SmolVLMModel
from .outputs import SmolVLMBaseModelOutputWithPast, SmolVLMCausalLMOutputWithPast
from .vision import SmolVLMVisionTransformer

__all__ = [
    "KVCache",
    "SmolVLMBaseModelOutputWithPast",
    "SmolVLMCausalLMOutputWithPast",
    "SmolVLMForConditionalGeneration",
    "SmolVLMModel",
    "SmolVLMVisionTransformer",
]
