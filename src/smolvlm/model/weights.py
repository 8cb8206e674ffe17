"""Checkpoint directory -> module and back. Strict: every tensor has its place, or an error lists those that have none.

The module is built on the meta device, its parameters are then replaced by views of the memory-mapped file, cast or
moved one by one where dtype or device ask for it. Reading and writing the files themselves: checkpoint/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .. import hub
from ..checkpoint import (
    OutgoingTensor,
    TensorEntry,
    map_tensor,
    map_tensors,
    parse_size,
    read_index,
    read_json,
    write,
    write_json,
)
from ..checkpoint.adapters import apply_adapter
from ..checkpoint.quantised import STORED, dequantise, quantised_mode, split_scales
from ..checkpoint.shapes import require_shapes
from ..config import SmolVLMConfig, SmolVLMVisionConfig
from ..errors import CheckpointError, ConfigError, InputError
from . import cuda
from .pretrained import Pretrained
from .vision import SmolVLMVisionTransformer

Module = TypeVar("Module", bound=Pretrained)
Progress = Callable[[int, int], None]
DeviceMap = str | int | torch.device | dict[str, str | int | torch.device]

# Format's name -> how torch reads the bits that numpy holds. Only these can be parameters of this family.
FLOAT_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
# A cast mostly waits for new pages of memory: 4 threads took 0.5 s where one took 1.8 (500M, 2 busy cores).
CAST_THREADS = 4
_NAMES = {dtype: name for name, dtype in FLOAT_TYPES.items()}
_HEAD = "lm_head.weight"
_EMBEDDINGS = "model.text_model.embed_tokens.weight"
_VISION_PREFIXES = ("model.vision_model.", "vision_model.")
_LOAD_OPTIONS = (
    "dtype (or torch_dtype), device_map, attn_implementation (or _attn_implementation), config, revision, "
    "local_files_only, token, cache_dir, adapter, progress"
)


def load_pretrained(
    cls: type[Module],
    name_or_path: str | Path | None,
    *,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device_map: DeviceMap | None = None,
    attn_implementation: str | None = None,
    _attn_implementation: str | None = None,
    config: SmolVLMConfig | SmolVLMVisionConfig | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    adapter: str | Path | None = None,
    progress: Progress | None = None,
    **unknown: object,
) -> Module:
    """A model from a directory, a hub id, or the bundled one (None or "nano"), in eval mode.

    dtype: None is float32; "auto" is what the checkpoint was saved in. device_map: "auto" (GPU if there is one),
    "cpu", "cuda", "cuda:0" or {"": device}; the whole model goes to one device. config: instead of the directory's
    config.json. adapter: directory or hub id of a LoRA or DoRA adapter, merged into the weights in float32.
    progress: called with (bytes done, bytes in all) after each tensor.
    On the CPU and without a cast nothing is copied: pages of the file come in when they are first used.
    Raises ModelNotFoundError, CheckpointError (with what is missing, unexpected or misshaped), ConfigError, InputError.
    """
    if unknown:
        raise InputError(f"from_pretrained has no option {', '.join(sorted(unknown))}; it has {_LOAD_OPTIONS}.")
    _refuse_two("dtype", dtype, "torch_dtype", torch_dtype)
    _refuse_two("attn_implementation", attn_implementation, "_attn_implementation", _attn_implementation)
    wanted = _as_dtype(torch_dtype if dtype is None else dtype)
    device = as_device(device_map)
    directory = hub.resolve(
        name_or_path, revision=revision, local_files_only=local_files_only, token=token, cache_dir=cache_dir
    )
    config = config or _read_config(cls, directory)
    quantised_mode(config, directory)  # refuses what can't be read
    entries, scales = split_scales(read_index(directory))
    with torch.device("meta"), _NoInitialisation():  # every model is made from (config, attn_implementation)
        module = cls(config, attn_implementation or _attn_implementation)  # type: ignore[call-arg]
    own = _match(module, entries, directory)
    target = _saved_dtype(config, own.values()) if wanted == "auto" else wanted
    if adapter is not None:
        own = _adapted(module, own, scales, adapter, local_files_only, token, cache_dir)
    _assign(module, own, {_place(entries[name]): scale for name, scale in scales.items()}, target, device, progress)
    generation = directory / "generation_config.json"
    module.generation_config = read_json(generation) if generation.is_file() else None  # type: ignore[assignment]
    return module.eval()


def save_pretrained(
    module: Pretrained, directory: str | Path, *, max_shard_size: int | str = "5GB", **unknown: object
) -> None:
    """Write config.json, generation_config.json when there is one, and safetensors, as transformers loads them.

    max_shard_size: bytes, or a text like "500MB"; more than that is split over several files with an index.
    The directory may be the one the model was loaded from. Raises InputError for an option or place that can't be used.
    """
    if unknown:
        raise InputError(f"save_pretrained has no option {', '.join(sorted(unknown))}; it has max_shard_size.")
    directory = Path(directory).expanduser()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; save_pretrained needs the name of a directory.")
    shard_bytes = parse_size(max_shard_size)
    config = _config_to_save(module)  # before anything is written: a config that can't be saved raises
    if any(name.endswith(".lora_A") for name in module.state_dict()):
        raise InputError("The model has an adapter: save the adapter itself, or merge it into the model first.")
    tensors = {name: outgoing(name, tensor) for name, tensor in module.state_dict().items()}
    if _is_tied(module):
        del tensors[_HEAD]  # the same tensor as the embeddings
    write(directory, tensors, max_shard_bytes=shard_bytes)
    write_json(directory / "config.json", config)
    generation = getattr(module, "generation_config", None)
    if generation is not None:
        write_json(directory / "generation_config.json", generation)


class _NoInitialisation(TorchFunctionMode):
    """Leaves out random initial values: on the meta device they cost 1 s and 70 MB of imports, and mean nothing."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor", args[0] if args else None)
        return func(*args, **kwargs)


def _refuse_two(name: str, value: object, synonym: str, other: object) -> None:
    if value is not None and other is not None and value != other:
        raise InputError(f"{name}={value!r} and {synonym}={other!r} are the same option; give one of them.")


def _as_dtype(value: torch.dtype | str | None) -> torch.dtype | Literal["auto"]:
    if value is None:
        return torch.float32
    if value == "auto":
        return "auto"
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if dtype not in _NAMES:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _NAMES)
        raise InputError(f"dtype={value!r} can't be used; use one of {allowed}, or 'auto' for the checkpoint's own.")
    return dtype


def as_device(device_map: DeviceMap | None) -> torch.device:
    """The one device of a device_map. Raises InputError for several, an unknown or an absent one."""
    if isinstance(device_map, dict):
        if list(device_map) != [""]:
            raise InputError(
                f"device_map={device_map!r} spreads the model over devices; it runs on one: {{'': 'cuda:0'}} or 'auto'."
            )
        return as_device(device_map[""])
    if device_map is None:
        return torch.device("cpu")
    if device_map == "auto":
        return torch.device(best_device())
    try:
        device = torch.device(device_map)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:  # AssertionError: torch was built without this device
        reason = str(error).split(". ")[0].split("\n")[0][:200].rstrip(".")
        raise InputError(
            f"The device {device_map!r} can't be used here ({reason}); "
            f"use 'auto' (here: {best_device()}), 'cpu', 'cuda', 'cuda:0' or {{'': device}}."
        ) from None
    return device


def best_device() -> str:
    """ "cuda", "mps" or "cpu": the first of them that is here."""
    if cuda.is_here():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _read_config(cls: type[Pretrained], directory: Path) -> SmolVLMConfig | SmolVLMVisionConfig:
    file = directory / "config.json"
    values = read_json(file)
    try:
        if not issubclass(cls, SmolVLMVisionTransformer):
            return SmolVLMConfig.from_dict(values)
        if "vision_config" in values or values.get("model_type") in ("smolvlm", "idefics3"):
            return SmolVLMConfig.from_dict(values).vision_config
        return SmolVLMVisionConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _saved_dtype(config: SmolVLMConfig | SmolVLMVisionConfig, entries: Iterable[TensorEntry]) -> torch.dtype:
    """What dtype="auto" means: the config's word, or else the type of the first tensor."""
    named = config.extra.get("dtype") or config.extra.get("torch_dtype")
    if isinstance(named, str) and getattr(torch, named, None) in _NAMES:
        return getattr(torch, named)
    return next(FLOAT_TYPES[entry.dtype] for entry in entries if entry.dtype in FLOAT_TYPES)


def _is_tied(module: nn.Module) -> bool:
    config = module.config
    return isinstance(config, SmolVLMConfig) and config.tie_word_embeddings and hasattr(module, "lm_head")


def _match(module: Pretrained, entries: dict[str, TensorEntry], directory: Path) -> dict[str, TensorEntry]:
    """The module's own name -> entry, for every tensor of the module. Raises CheckpointError with the differences."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if _is_tied(module):
        del expected[_HEAD]
        entries = {name: entry for name, entry in entries.items() if name != _HEAD}
    name = type(module).__name__
    if hasattr(module, "lm_head") and entries and not any(key.startswith(("model.", "lm_head.")) for key in entries):
        raise CheckpointError(
            f"{directory} holds a part of the model (its first tensor is {next(iter(entries))}), without the head that "
            f"{name} needs. Load it with SmolVLMModel or SmolVLMVisionTransformer, or take a whole checkpoint."
        )
    found = _strip_prefix(module, expected, entries)
    require_shapes(expected, found, directory, name)
    for name, entry in found.items():
        if entry.dtype not in FLOAT_TYPES and entry.dtype not in STORED:
            raise CheckpointError(
                f"{entry.file}: {name!r} is stored as {entry.dtype}; weights in {', '.join(FLOAT_TYPES)} can be used. "
                "If the checkpoint is quantised, take the original one."
            )
    return found


def _adapted(
    module: Pretrained,
    own: dict[str, TensorEntry],
    scales: dict[str, TensorEntry],
    adapter: str | Path,
    local_files_only: bool,
    token: str | bool | None,
    cache_dir: str | Path | None,
) -> dict[str, TensorEntry]:
    if not isinstance(module.config, SmolVLMConfig) or not hasattr(module, "lm_head"):
        raise InputError("adapter= needs the whole model: load it with SmolVLMForConditionalGeneration.")
    directory = hub.resolve_adapter(adapter, local_files_only=local_files_only, token=token, cache_dir=cache_dir)
    return apply_adapter(directory, module.config, own, scales)


def _strip_prefix(
    module: Pretrained, expected: dict[str, tuple[int, ...]], entries: dict[str, TensorEntry]
) -> dict[str, TensorEntry]:
    """Entries under the module's own names: a part of the model finds itself in a checkpoint of the whole."""
    # Buffers that old exports kept and that are computed here.
    entries = {name: entry for name, entry in entries.items() if not name.endswith("rotary_emb.inv_freq")}
    if isinstance(module, SmolVLMVisionTransformer):
        for prefix in _VISION_PREFIXES:
            part = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
            if part:
                return part
    elif _HEAD not in expected and not _is_tied(module) and any(name.startswith("model.") for name in entries):
        return {name.removeprefix("model."): entry for name, entry in entries.items() if name != _HEAD}
    return entries


def _assign(
    module: Pretrained,
    own: dict[str, TensorEntry],
    scales: dict[tuple[Path, int], TensorEntry],
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None,
) -> None:
    total, done = sum(entry.num_bytes for entry in own.values()), 0
    state: dict[str, torch.Tensor] = {}

    # What stays in the file shares one mapping. The rest is mapped one by one: its pages go when it has been read.
    on_cpu = device.type == "cpu"
    stays = {name: entry for name, entry in own.items() if on_cpu and FLOAT_TYPES.get(entry.dtype) == dtype}
    mapped = dict(map_tensors(stays))

    def place(item: tuple[str, TensorEntry]) -> tuple[str, torch.Tensor]:
        name, entry = item
        array = mapped[name] if name in mapped else map_tensor(entry)
        if entry.dtype in STORED:
            values = torch.from_numpy(dequantise(array, map_tensor(scales[_place(entry)])))
        else:
            values = torch.from_numpy(array).view(FLOAT_TYPES[entry.dtype])
        return name, values.to(device=device, dtype=dtype)

    with ThreadPoolExecutor(CAST_THREADS) as pool:
        for name, tensor in pool.map(place, own.items()):
            state[name] = tensor
            done += own[name].num_bytes
            if progress is not None:
                progress(done, total)
    if _is_tied(module):
        state[_HEAD] = state[_EMBEDDINGS]
    module.load_state_dict(state, strict=True, assign=True)
    if _is_tied(module):
        module.tie_weights()  # type: ignore[operator]  # assigning made two parameters of the one
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, f"{left} were not filled; buffers of a model must be computed, not stored"


def _place(entry: TensorEntry) -> tuple[Path, int]:
    return entry.file, entry.offset


def outgoing(name: str, tensor: torch.Tensor) -> OutgoingTensor:
    """A tensor as checkpoint/ writes it. Raises InputError for one that isn't of floats, or has no values."""
    if tensor.dtype not in _NAMES or tensor.is_meta:
        raise InputError(f"{name} is {tensor.dtype} on {tensor.device}; {', '.join(map(str, _NAMES))} can be saved.")

    def read() -> np.ndarray:
        values = tensor.detach().cpu().contiguous()
        return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()

    return OutgoingTensor(_NAMES[tensor.dtype], tuple(tensor.shape), read)


def _config_to_save(module: Pretrained) -> dict[str, object]:
    config = module.config
    is_idefics3 = isinstance(config, SmolVLMConfig) and config.source_model_type == "idefics3"
    name = type(module).__name__
    dtype = str(module.dtype).removeprefix("torch.")
    values = config.to_dict()
    values.pop("quantization_config", None)  # what was in 8 or 4 bits is plain now
    return {
        **values,
        "architectures": [name.replace("SmolVLM", "Idefics3", 1) if is_idefics3 else name],
        "dtype": dtype,
        "torch_dtype": dtype,  # readers older than transformers 4.56 know this name only
    }
