"""Checkpoint files without torch: safetensors by memory map, sharded or not, and the JSON files beside them.

bfloat16 has no numpy type, so its arrays hold the raw bits as uint16; `TensorEntry.dtype` says what they are.
What a tensor means (which module, which dtype it ends in) is for model/weights.py.
"""

from .directory import INDEX_NAME, WEIGHTS_NAME, map_tensors, read_index, read_json, write_json
from .safetensors import TensorEntry, map_tensor, read_header
from .writer import OutgoingTensor, parse_size, write

__all__ = [
    "INDEX_NAME",
    "WEIGHTS_NAME",
    "OutgoingTensor",
    "TensorEntry",
    "map_tensor",
    "map_tensors",
    "parse_size",
    "read_header",
    "read_index",
    "read_json",
    "write",
    "write_json",
]
