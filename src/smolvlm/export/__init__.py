"""A checkpoint for other runtimes, and the proof that nothing was lost on the way.

layout.py writes the folder that transformers.js loads, portable.py drives it as transformers.js does, parity.py
compares any runtime with the PyTorch model, stage by stage.
"""

from .layout import DTYPES, export_onnx
from .parity import Report, Stage, verify

__all__ = ["DTYPES", "Report", "Stage", "export_onnx", "verify"]
