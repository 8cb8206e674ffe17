"""From a name to a VLM: which files, which device, which dtype. Also the previews, which need no weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from .. import hub
from ..checkpoint import read_json
from ..checkpoint.adapters import seeing_fingerprint
from ..checkpoint.quantised import quantised_mode
from ..config import SmolVLMConfig
from ..errors import CheckpointError, ConfigError
from ..processing.processor import SmolVLMProcessor
from ..runtimes.memory import ITEM_BYTES
from ..runtimes.onnx import is_export
from ..types import MemoryReport, SamplingParams, TokenReport
from .driver import Driver
from .memory import can_predict, predict, require_room_for_weights, stored_tensors
from .requests import MediaOptions, read_request
from .vlm import VLM, count_tokens

if TYPE_CHECKING:
    import torch

    from ..runtimes.motor import Motor

RUNTIMES = ("auto", "torch", "native", "onnx")
# Up to this size float32 is as fast as anything on a CPU, and exact: half precision saves no time on small matrices.
SMALL_BYTES = 100 * 2**20
SAVED = {"F32": "float32", "BF16": "bfloat16", "I8": "int8", "U8": "int4"}  # a checkpoint's type -> a native dtype
MOST_RUNNING_ON_GPU = 64  # requests of one step; not measured: rows share the reading of the weights
SHARE_FOR_CACHES = 0.5  # of the memory that is free when the weights are loaded


def load(
    model: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    progress: Callable[[int, int], None] | None = None,
    runtime: str = "auto",
    cache_bytes: int | None = None,
    most_waiting: int = 1024,
    lookup_tokens: int = 0,
    adapter: str | Path | None = None,
) -> VLM:
    """A model that answers questions about pictures and videos.

    model: None is the bundled nano, which knows drawn material only; else a directory or a hub id such as
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct". device: "cuda", "mps" or "cpu"; None takes the best that is here.
    dtype: "float32", "bfloat16", "float16", "auto" (as saved); in the native runtime "int8", "int8-vision" (8-bit
    activations in the vision tower, too) and "int4" as well; in the onnx runtime "float32", "float16", "int8", "int4",
    "int4-float16"; None is what is fast and safe there. attn_implementation: "sdpa" (default), "eager",
    "flash_attention_2". revision, token, local_files_only: for the hub.
    progress: called with (bytes done, bytes in all) while weights are read.
    runtime: "torch" for any device; "native" for the CPU kernels, which need less time and memory and no import of
    torch; "onnx" for ONNX Runtime, which reads exports, too, and needs no torch either; "auto" takes the native one
    where it can run the model and there is no GPU, and onnx for an export.
    cache_bytes: memory for the tokens of all requests together, half of what is free by default; most_waiting: requests
    that may wait for a place in it. lookup_tokens: most tokens at a time that are guessed to repeat what stood before;
    answers stay the same and come sooner where they quote the prompt or themselves.
    adapter: directory or hub id of a LoRA or DoRA adapter in PEFT's layout, merged into the weights as they are read.
    Raises ModelNotFoundError, CheckpointError, ConfigError.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime={runtime!r} is not known; use one of {', '.join(RUNTIMES)}.")
    directory = hub.resolve(model, revision=revision, local_files_only=local_files_only, token=token)
    added = None
    if adapter is not None:
        added = hub.resolve_adapter(adapter, local_files_only=local_files_only, token=token)
    config = SmolVLMConfig.from_file(directory / "config.json")
    if runtime == "auto" and is_export(directory):
        runtime = "onnx"
    elif runtime == "auto":
        runtime, _ = choose_runtime(config, device=device, dtype=dtype, attn_implementation=attn_implementation)
    processor = SmolVLMProcessor.from_pretrained(directory)  # first: what it takes for a moment is free again then
    ends = _end_ids(directory, processor)
    motor = _open_motor(
        runtime, directory, config, device=device, dtype=dtype, attn_implementation=attn_implementation, adapter=added,
        progress=progress,
    )  # fmt: skip
    if cache_bytes is None:
        cache_bytes = int(SHARE_FOR_CACHES * motor.available_memory())
    limits = {"memory_bytes": cache_bytes, "most_waiting": most_waiting, "lookup_tokens": lookup_tokens}
    if motor.device.startswith("cuda"):
        limits["most_running"] = MOST_RUNNING_ON_GPU
    driver, name = Driver(motor, frozenset(ends), limits), str(model or hub.BUNDLED)
    return VLM(driver, processor, name=name, end_ids=ends, seen_through=seeing_fingerprint(added))


def _open_motor(
    runtime: str,
    directory: Path,
    config: SmolVLMConfig,
    *,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    attn_implementation: str | None,
    adapter: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Motor:
    if runtime == "torch":
        from ..model import SmolVLMForConditionalGeneration
        from ..runtimes.torch import TorchMotor

        device = str(device or best_device())
        wanted = _dtype_of("torch", directory, config, device, dtype)
        if not device.startswith("cuda"):
            require_room_for_weights(directory, config, "torch", wanted)
        model = SmolVLMForConditionalGeneration.from_pretrained(
            directory, dtype=wanted, device_map=device, attn_implementation=attn_implementation, adapter=adapter,
            progress=progress,
        )  # fmt: skip
        return TorchMotor(model)
    if str(device or "cpu") != "cpu":
        raise ConfigError(
            f"The {runtime} runtime runs on the CPU, not on {device}: leave device out, or runtime='torch'."
        )
    if attn_implementation is not None:
        raise ConfigError(f"attn_implementation is the torch runtime's: the {runtime} one has a single attention.")
    if runtime == "onnx":
        from ..runtimes.onnx import OnnxMotor

        named = None if dtype is None or dtype == "auto" else str(dtype).removeprefix("torch.")
        return OnnxMotor(directory, named, progress=progress, adapter=adapter)
    from ..runtimes.native import NativeMotor

    wanted = _dtype_of("native", directory, config, "cpu", dtype)
    require_room_for_weights(directory, config, "native", wanted)
    return NativeMotor(directory, wanted, progress=progress, adapter=adapter)


def _dtype_of(
    runtime: str, directory: Path, config: SmolVLMConfig, device: str, dtype: str | torch.dtype | None
) -> str:
    """The name of the dtype that a runtime takes. dtype: None is what is fast and safe, "auto" as saved."""
    if dtype is not None and dtype != "auto":
        return str(dtype).removeprefix("torch.")
    stored = stored_tensors(directory, config)
    small = sum(entry.num_bytes for entry in stored.values()) <= SMALL_BYTES
    saved = [SAVED.get(entry.dtype, entry.dtype) for entry in stored.values()]
    if runtime == "native":
        from ..runtimes import bindings

        if dtype == "auto":
            return saved[0]
        return quantised_mode(config, directory) or ("float32" if small else bindings.fast_dtype())
    if dtype is None:
        return str(default_dtype(device, small=small)).removeprefix("torch.")
    named = config.extra.get("dtype") or config.extra.get("torch_dtype")
    return str(named) if named in ITEM_BYTES else next(name for name in saved if name in ITEM_BYTES)


def preview(
    model: str | Path | None = None,
    question: str | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    **options: Unpack[MediaOptions],
) -> TokenReport:
    """`VLM.tokens` without the weights: fetches and reads only the small files of a checkpoint, and needs no torch."""
    directory = hub.resolve(
        model, revision=revision, local_files_only=local_files_only, token=token, patterns=hub.PROCESSOR_FILES
    )
    request = read_request("preview", question, options, MediaOptions)
    context = SmolVLMConfig.from_file(directory / "config.json").text_config.max_position_embeddings
    return count_tokens(SmolVLMProcessor.from_pretrained(directory), request, context)


def preview_memory(
    model: str | Path | None = None,
    question: str | None = None,
    *,
    runtime: str = "auto",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    max_new_tokens: int = SamplingParams.max_new_tokens,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    **options: Unpack[MediaOptions],
) -> MemoryReport:
    """The memory that this process would hold if it loaded the model on the CPU and answered the question.

    Weights are not read: their shapes are in config.json. runtime, device, dtype: as of `load`.
    Raises ConfigError for a GPU, for the onnx runtime, and for a dtype that the runtime doesn't have.
    """
    directory = hub.resolve(
        model, revision=revision, local_files_only=local_files_only, token=token, patterns=hub.PROCESSOR_FILES
    )
    config = SmolVLMConfig.from_file(directory / "config.json")
    if runtime == "auto":
        runtime = "onnx" if is_export(directory) else choose_runtime(config, device=device, dtype=dtype)[0]
    device = str(device or ("cpu" if runtime == "native" else best_device()))
    wanted = "" if runtime == "onnx" else _dtype_of(runtime, directory, config, device, dtype)
    if device != "cpu" or not can_predict(runtime, wanted):
        raise ConfigError(
            f"Memory is predicted for the native and the torch runtime on a CPU, not for runtime={runtime!r}, "
            f"device={device!r}, dtype={wanted or dtype!r}."
        )
    question = "" if question is None and options.get("messages") is None else question
    request = read_request("preview_memory", question, options, MediaOptions)
    context = config.text_config.max_position_embeddings
    tokens = count_tokens(SmolVLMProcessor.from_pretrained(directory), request, context)
    return predict(directory, config, runtime, wanted, tokens, max_new_tokens)


def choose_runtime(
    config: SmolVLMConfig,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[str, str]:
    """What runtime="auto" takes, "native" or "torch", and why. Imports torch only where there may be a GPU."""
    from ..runtimes import bindings, machine
    from ..runtimes.native import MODES, unusual_parts

    if attn_implementation is not None:
        return "torch", "attn_implementation is given"
    if device is not None and str(device) != "cpu":
        return "torch", f"device is {device}"
    if dtype is not None and str(dtype).removeprefix("torch.") not in (*MODES, "auto"):
        return "torch", f"dtype is {dtype}"
    if device is None and machine.may_have_gpu() and best_device() != "cpu":
        return "torch", "there is a GPU"
    try:
        kernels = bindings.kernels_name()
    except ConfigError:
        return "torch", "the native kernels were not compiled when the package was installed"
    if kernels == "plain":
        return "torch", "the native kernels have no code for this processor's instructions"
    unusual = unusual_parts(config)
    if unusual:
        return "torch", f"the native kernels can't run {', '.join(unusual)}"
    return "native", f"its kernels for {kernels} need the least time and memory"


def best_device() -> str:
    """ "cuda", "mps" or "cpu": the first of them that is here."""
    from ..model import weights

    return weights.best_device()


def default_dtype(device: str, *, small: bool = False) -> torch.dtype:
    """The fastest dtype that is safe on a device: bfloat16 where the hardware multiplies it, else float32.

    small: the model has at most SMALL_BYTES of weights. float16 is never chosen: activations of this family may
    leave its range.
    """
    import torch

    kind = device.split(":")[0]
    if kind == "cuda":
        from ..model import cuda

        return torch.bfloat16 if cuda.multiplies_bf16() else torch.float32
    if kind != "cpu" or small:
        return torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def _end_ids(directory: Path, processor: SmolVLMProcessor) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's own as a safety net, and those of generation_config.json.

    Some checkpoints have no such file or a wrong id in it; without the tokenizer's, answers would never end.
    """
    tokenizer = processor.tokenizer
    path = directory / "generation_config.json"
    written = read_json(path).get("eos_token_id") if path.is_file() else None
    ids = [tokenizer.end_of_utterance_token_id, tokenizer.eos_token_id]
    ids += written if isinstance(written, list) else [written]
    found = tuple(dict.fromkeys(token_id for token_id in ids if isinstance(token_id, int)))
    if not found:
        raise CheckpointError(
            f"{directory} names no token that ends an answer: neither generation_config.json (eos_token_id) nor "
            "tokenizer_config.json (eos_token) does."
        )
    return found
