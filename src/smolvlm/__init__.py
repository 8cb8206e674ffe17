"""smolvlm: ask a picture or a video.

    import smolvlm
    print(smolvlm.load().ask("What is this?", images=["picture.png"]))

Every public name is resolved on first use (PEP 562), so `import smolvlm` costs milliseconds and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint.lora import LoraConfig as LoraConfig
    from .config import SmolVLMConfig as SmolVLMConfig
    from .config import SmolVLMVisionConfig as SmolVLMVisionConfig
    from .errors import BusyError as BusyError
    from .errors import CheckpointError as CheckpointError
    from .errors import ClosedError as ClosedError
    from .errors import ConfigError as ConfigError
    from .errors import ContextLengthError as ContextLengthError
    from .errors import DataError as DataError
    from .errors import FetchError as FetchError
    from .errors import HostError as HostError
    from .errors import ImageError as ImageError
    from .errors import InputError as InputError
    from .errors import MediaError as MediaError
    from .errors import MemoryBudgetError as MemoryBudgetError
    from .errors import MissingDependencyError as MissingDependencyError
    from .errors import ModelNotFoundError as ModelNotFoundError
    from .errors import PromptError as PromptError
    from .errors import SmolVLMError as SmolVLMError
    from .errors import TrainingError as TrainingError
    from .errors import VideoError as VideoError
    from .hf import AutoImageProcessor as AutoImageProcessor
    from .hf import AutoModelForImageTextToText as AutoModelForImageTextToText
    from .hf import AutoModelForVision2Seq as AutoModelForVision2Seq
    from .hf import AutoProcessor as AutoProcessor
    from .hf import AutoTokenizer as AutoTokenizer
    from .hf import SmolVLMForConditionalGeneration as SmolVLMForConditionalGeneration
    from .media.image import load_image as load_image
    from .model.adapters import Adapter as Adapter
    from .model.adapters import add_adapter as add_adapter
    from .model.adapters import load_adapter as load_adapter
    from .model.model import SmolVLMModel as SmolVLMModel
    from .model.outputs import SmolVLMCausalLMOutputWithPast as SmolVLMCausalLMOutputWithPast
    from .model.vision import SmolVLMVisionTransformer as SmolVLMVisionTransformer
    from .processing.image import SmolVLMImageProcessor as SmolVLMImageProcessor
    from .processing.processor import SmolVLMProcessor as SmolVLMProcessor
    from .processing.video import SmolVLMVideoProcessor as SmolVLMVideoProcessor
    from .types import Answer as Answer
    from .types import Decision as Decision
    from .types import Features as Features
    from .types import MemoryReport as MemoryReport
    from .types import SamplingParams as SamplingParams
    from .types import TokenLogprob as TokenLogprob
    from .types import TokenReport as TokenReport
    from .vlm import VLM as VLM
    from .vlm import load as load
    from .vlm import preview_memory as preview_memory

__version__ = "0.1.0"

_HOMES = {
    "checkpoint.lora": ("LoraConfig",),
    "config": ("SmolVLMConfig", "SmolVLMVisionConfig"),
    "errors": (
        "BusyError",
        "CheckpointError",
        "ClosedError",
        "ConfigError",
        "ContextLengthError",
        "DataError",
        "FetchError",
        "HostError",
        "ImageError",
        "InputError",
        "MediaError",
        "MemoryBudgetError",
        "MissingDependencyError",
        "ModelNotFoundError",
        "PromptError",
        "SmolVLMError",
        "TrainingError",
        "VideoError",
    ),
    "hf": (
        "AutoImageProcessor",
        "AutoModelForImageTextToText",
        "AutoModelForVision2Seq",
        "AutoProcessor",
        "AutoTokenizer",
        "SmolVLMForConditionalGeneration",
    ),
    "media.image": ("load_image",),
    "model.adapters": ("Adapter", "add_adapter", "load_adapter"),
    "model.model": ("SmolVLMModel",),
    "model.outputs": ("SmolVLMCausalLMOutputWithPast",),
    "model.vision": ("SmolVLMVisionTransformer",),
    "processing.image": ("SmolVLMImageProcessor",),
    "processing.processor": ("SmolVLMProcessor",),
    "processing.video": ("SmolVLMVideoProcessor",),
    "types": ("Answer", "Decision", "Features", "MemoryReport", "SamplingParams", "TokenLogprob", "TokenReport"),
    "vlm": ("VLM", "load", "preview_memory"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  the one list of names is _HOMES


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
