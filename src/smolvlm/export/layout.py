"""The folder that transformers.js loads: graphs under onnx/, and beside them the small files as it wants to find them.

Source: transformers.js 4.3; which file it reads for what is in docs/export.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .. import hub
from ..checkpoint import read_json, write_json
from ..config import SmolVLMConfig
from ..errors import ConfigError, InputError
from ..processing.processor import SmolVLMProcessor
from ..processing.template import DEFAULT_TEMPLATE
from ..runtimes.graphs import FORMS, SUBFOLDER, write_graphs
from ..runtimes.onnx import SETTINGS, is_export

DTYPES = tuple(FORMS)
ORIGINAL = "exported_from"  # in config.json: what `export verify` compares with


def export_onnx(
    source: Path,
    target: Path,
    dtypes: Sequence[str] = ("fp32",),
    *,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an export of a checkpoint directory. Returns the target.

    dtypes: of DTYPES; the first is what readers take when nothing else is asked for. name: what others know the
    checkpoint by. progress: called with (bytes done, bytes in all) of the checkpoint.
    Raises ConfigError, InputError, CheckpointError, MissingDependencyError.
    """
    dtypes = list(dict.fromkeys(dtypes))
    unknown = [dtype for dtype in dtypes if dtype not in DTYPES]
    if unknown or not dtypes:
        raise ConfigError(f"dtype={', '.join(unknown) or 'none'} can't be exported; use {', '.join(DTYPES)}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already, and not empty: give the name of a new directory.")
    if is_export(source):
        raise InputError(f"{source} is an export itself: give the checkpoint that it was made from.")
    processor = SmolVLMProcessor.from_pretrained(source)
    chunks: dict[str, int] = {}
    for number, dtype in enumerate(dtypes):
        report = None if progress is None else _part(progress, number, len(dtypes))
        chunks |= write_graphs(source, target / SUBFOLDER, dtype, progress=report)
    hub.copy_processor_files(source, target)
    _write_processor(target, processor)
    config = SmolVLMConfig.from_file(source / "config.json").to_dict()
    config.pop("quantization_config", None)  # of the source's files
    config.setdefault("architectures", ["SmolVLMForConditionalGeneration"])
    config[SETTINGS] = {"dtype": dtypes[0], "use_external_data_format": chunks}
    write_json(target / "config.json", config | ({ORIGINAL: name} if name else {}))
    return target


def _part(progress: Callable[[int, int], None], number: int, count: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(number * total + done, count * total)


def _write_processor(target: Path, processor: SmolVLMProcessor) -> None:
    """Settings in the files and keys that transformers.js reads, whatever layout the checkpoint has them in."""

    def update(file: str, **content: object) -> None:
        path = target / file
        write_json(path, {**(read_json(path) if path.is_file() else {}), **content})

    images = processor.image_processor.to_dict()
    update("preprocessor_config.json", **{"processor_class": "SmolVLMProcessor", **images})
    update("processor_config.json", image_seq_len=processor.image_seq_len)
    update("tokenizer_config.json", chat_template=processor.chat_template or DEFAULT_TEMPLATE)
    tokenizer = processor.tokenizer
    ends = [one for one in (tokenizer.end_of_utterance_token_id, tokenizer.eos_token_id) if isinstance(one, int)]
    if not (target / "generation_config.json").is_file():
        update("generation_config.json", eos_token_id=ends[0] if ends else None)
