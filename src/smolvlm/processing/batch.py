"""Named arrays that become tensors at the edge: what tokenizer, image processor and processor return.

The names and habits are the reference's (`inputs["input_ids"]`, `inputs.input_ids`, `inputs.to(device, dtype=...)`).
No torch is imported before somebody asks for tensors.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError

_PACKAGES = {"pt": "torch", "tf": "tensorflow", "jax": "jax"}


class BatchFeature(dict[str, Any]):
    """A dictionary whose keys are attributes too, ready for `model.generate(**inputs)`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"These inputs have no {name!r}; they hold {', '.join(self) or 'nothing'}.") from None

    def to(self, device: object = None, dtype: object = None, *, non_blocking: bool = False) -> BatchFeature:
        """The same object with every tensor on `device`; floating tensors also in `dtype`, integers keep theirs.

        `inputs.to("cuda")`, `inputs.to(torch.bfloat16)` and `inputs.to("cuda", dtype=torch.bfloat16)` all work.
        Arrays and lists of numbers are turned into PyTorch tensors first.
        """
        torch = require("torch")
        if isinstance(device, torch.dtype):
            device, dtype = None, device if dtype is None else dtype
        for name, value in self.items():
            if _holds_numbers(value):
                value = to_tensors(value, "pt", name)
            if isinstance(value, torch.Tensor):
                new_type = dtype if value.is_floating_point() else None
                self[name] = value.to(device=device, dtype=new_type, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, kind: object) -> BatchFeature:
        """Turn every value into arrays of `kind`: "np", "pt", "tf", "jax"; None leaves lists."""
        name = tensor_kind(kind)
        for key, value in self.items():
            self[key] = to_tensors(value, name, key)
        return self


def tensor_kind(kind: object) -> str | None:
    """None, "np", "pt", "tf" or "jax", from a string or an enum member. Raises InputError for anything else."""
    name = getattr(kind, "value", kind)
    if name is None or name in ("np", *_PACKAGES):
        return name
    raise InputError(f"return_tensors={kind!r} is not known: use None (lists), 'np', 'pt', 'tf' or 'jax'.")


def to_tensors(value: Any, kind: str | None, name: str = "value") -> Any:
    """Nested lists or arrays -> one array of `kind`. Ragged values raise InputError that names them and the cure."""
    if kind is None or isinstance(value, str | Mapping) or value is None:
        return value
    if kind == "pt" and type(value).__module__.partition(".")[0] == "torch":
        return value
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise _ragged(name) from error
    if value.dtype == object:
        raise _ragged(name)
    if kind == "np":
        return value
    package = require(_PACKAGES[kind])
    if kind == "pt":
        return package.from_numpy(np.ascontiguousarray(value) if value.flags.writeable else value.copy())
    return package.convert_to_tensor(value) if kind == "tf" else package.numpy.asarray(value)


def _holds_numbers(value: Any) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, int | float | np.ndarray | np.generic)


def require(package: str) -> ModuleType:
    """Import a package that is needed only here, or say how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"return_tensors for {package} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {package}. Or use return_tensors='np'."
        ) from error


def _ragged(name: str) -> InputError:
    return InputError(
        f"Unable to create a tensor of {name!r}: its rows differ in length. Pass padding=True to make them equal."
    )
