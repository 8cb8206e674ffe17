"""Measure this machine: how fast a model answers here, in how much memory, and what share of its limit that is.

examples:
  smolvlm bench --quick
  smolvlm bench --size 500m --dtype int8
  smolvlm bench --model HuggingFaceTB/SmolVLM2-256M-Video-Instruct --json

Without --model the weights are random ones of a released size: nothing is downloaded, and the speed is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, SmolVLMError
from .arguments import Parser, add_model_options, whole_number
from .terminal import load_model, waiting

if TYPE_CHECKING:
    from ..vlm import VLM
    from ..vlm.measure import Speed, Work

PICTURES, NEW_TOKENS, CONTEXT = 4, 64, 900  # the first picture warms up
QUICK_PICTURES, QUICK_NEW_TOKENS = 2, 16
GIGA, MEGA = 1e9, 1e6
ALONE = """
import sys
from smolvlm.cli import main
from smolvlm.runtimes.machine import peak_memory
code = main(sys.argv[1:])
print(f"\\n{peak_memory() or 0}")
sys.exit(code)
"""  # an answer in a process of its own, and the most memory that it held


def add_arguments(parser: Parser) -> None:
    parser.usage = "smolvlm bench [options]"
    parser.add_argument("--size", choices=("256m", "500m", "2.2b"), default="256m", help="of the random weights")
    parser.add_argument(
        "--context",
        metavar="N",
        type=whole_number,
        default=CONTEXT,
        help="tokens before a new one; default: %(default)s",
    )
    parser.add_argument("--quick", action="store_true", help="one tile and few tokens: under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from ..vlm.standin import write_picture

    with TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        name = _choose_model(options, Path(folder))
        side = (512, 512) if options.quick else (1920, 1080)
        count = QUICK_PICTURES if options.quick else PICTURES
        pictures = [write_picture(Path(folder, f"{seed}.jpg"), *side, seed=seed) for seed in range(count)]
        found = {"model": name, **measure_all(options, pictures, Path(folder))}
    if options.json:
        print(json.dumps(found))
    else:
        print_report(found)
    return 0


def _choose_model(options: argparse.Namespace, folder: Path) -> str:
    """Make options.model a model that is here, of random weights where none was named. Returns what to call it."""
    if options.model is not None:
        return str(options.model)
    from ..vlm.standin import geometry, write_standin

    with waiting("Writing random weights ...", options):
        options.model = str(write_standin(folder / options.size, geometry(options.size)))
    return f"random weights, {options.size}"


def measure_all(options: argparse.Namespace, pictures: list[Path], folder: Path) -> dict[str, Any]:
    """Everything of the report, one after another, so that nothing shares the machine with anything."""
    from .. import hub
    from ..runtimes import limits, machine
    from ..vlm.measure import measure, work_of
    from ..vlm.memory import stored_tensors

    directory = hub.resolve(options.model, revision=options.revision, local_files_only=options.offline)
    vlm = load_model(options)
    detail, new_tokens = ("low", QUICK_NEW_TOKENS) if options.quick else ("high", NEW_TOKENS)
    with waiting("Measuring a process of its own ...", options):
        alone = answer_alone(options, vlm, pictures[0], detail, new_tokens)
    with waiting("Measuring each step ...", options):
        speed = measure(vlm, pictures, detail=detail, context=options.context, new_tokens=new_tokens)  # type: ignore[arg-type]
    work = work_of(vlm, stored_tensors(directory, vlm.config), speed.context)
    with waiting("Measuring the machine ...", options):
        known = {} if work is None else {name: limits.multiply_rate(name) for name in limits.FORMATS}
        rates = {**known, "read": limits.read_rate()} if known else {}
    with waiting("Measuring transformers ...", options):
        rival = ask_rival(vlm, directory, pictures[0], detail, speed, folder)
    return {
        "runtime": vlm.runtime, "device": vlm.device, "dtype": vlm.dtype,
        "machine": {"cores": machine.usable_cores(), "kernels": _kernels(), "free_bytes": machine.available_memory()},
        "speed": {**asdict(speed), **alone}, "limits": rates, "shares": _shares(speed, work, rates),
        "transformers": rival,
    }  # fmt: skip


def answer_alone(
    options: argparse.Namespace, vlm: VLM, picture: Path, detail: str, new_tokens: int
) -> dict[str, float | int]:
    """Seconds from the start of a process to its finished answer, and the most memory that it held."""
    words = ["ask", str(picture), "-q", "What is it?", "--detail", detail, "--max-new-tokens", str(new_tokens)]
    words += ["--quiet", "--model", options.model, "--runtime", vlm.runtime, "--dtype", vlm.dtype, "--offline"]
    words += ["--revision", options.revision] if options.revision else []
    words += ["--adapter", options.adapter] if options.adapter else []
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words, "--device", vlm.device], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise SmolVLMError(f"A process that answers alone failed: {done.stderr.strip()}")
    return {"cold_s": time.perf_counter() - start, "peak_bytes": int(done.stdout.splitlines()[-1])}


def ask_rival(
    vlm: VLM, directory: Path, picture: Path, detail: str, speed: Speed, folder: Path
) -> dict[str, Any] | str:
    """What transformers measures in a process of its own, in the nearest dtype; or why it doesn't."""
    import numpy as np

    from ..vlm.measure import QUESTION

    if find_spec("transformers") is None:
        return "transformers isn't installed here; where it is, it is measured beside."
    if not any(directory.glob("*.safetensors")):
        return "transformers can't read an export."
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": QUESTION}]
    inputs = vlm.processor.prepare([{"role": "user", "content": content}], detail=detail)  # type: ignore[arg-type]
    assert inputs.pixel_values is not None, "there is a picture"
    np.savez(folder / "inputs.npz", input_ids=inputs.input_ids, pixel_values=inputs.pixel_values)
    dtype = vlm.dtype if vlm.dtype in ("float32", "float16") else "bfloat16"
    command = [sys.executable, "-m", f"{__package__}.rival", str(directory), str(folder / "inputs.npz"), dtype]
    command += [str(speed.context), str(speed.new_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        return f"transformers failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_report(found: dict[str, Any]) -> None:
    machine, speed, shares, rates = found["machine"], found["speed"], found["shares"], found["limits"]
    rival = found["transformers"] if isinstance(found["transformers"], dict) else {}
    print(f"{machine['cores']} cores, {machine['kernels']}, {machine['free_bytes'] / GIGA:,.1f} GB of memory are free")
    print(f"{found['model']}: runtime {found['runtime']}, {found['device']}, {found['dtype']}\n")
    seen = "1 tile" if speed["tiles"] == 1 else f"{speed['tiles']} tiles"
    header = ("", "smolvlm", "of limit", f"transformers, {rival['dtype']}" if rival else "")
    rows = (
        ("images/s, seen", f"{speed['images_per_s']:.2f}", "", ""),
        ("preprocess, ms", f"{1000 * speed['preprocess_s']:.0f}", "", ""),
        _row("vision, ms a tile", "tile_s", speed, rival, shares, 1000),
        _row("prefill, tokens/s", "prefill_tps", speed, rival, shares),
        _row(f"first token, s ({seen})", "first_token_s", speed, rival, shares),
        _row(f"{speed['new_tokens']} tokens, s", "total_s", speed, rival, shares),
        _row(f"decode, tokens/s at {speed['context']}", "decode_tps", speed, rival, shares),
        _row("peak memory, MB", "peak_bytes", speed, rival, shares, 1 / MEGA),
        ("cold start to answer, s", f"{speed['cold_s']:.2f}", "", ""),
    )
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for first, *rest in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    if rates:
        names = ", ".join(f"{name} {rate / GIGA:,.0f}" for name, rate in rates.items() if name != "read")
        print(f"\nlimits, measured: products in G operations/s: {names}; memory {rates['read'] / GIGA:.1f} GB/s")
    print(
        "\ntransformers is given the inputs: its preprocessing isn't counted."
        if rival
        else f"\n{found['transformers']}"
    )


def _row(
    name: str, key: str, speed: dict[str, Any], rival: dict[str, Any], shares: dict[str, float], unit: float = 1
) -> tuple[str, str, str, str]:
    values = [f"{unit * one[key]:.4g}" if one.get(key) else "" for one in (speed, rival)]
    return name, values[0], f"{shares[key]:.0%}" if key in shares else "", values[1]


def _shares(speed: Speed, work: Work | None, rates: dict[str, float]) -> dict[str, float]:
    """What the machine would need at its limit, of what was needed."""
    if work is None:
        return {}
    prompt_s = work.prompt_operations / rates[work.text_dtype]
    return {
        "tile_s": work.tile_operations / rates[work.vision_dtype] / speed.tile_s,
        "prefill_tps": prompt_s * speed.prefill_tps / speed.context,
        "decode_tps": work.token_bytes / rates["read"] * speed.decode_tps,
    }


def _kernels() -> str:
    from ..runtimes.bindings import kernels_name

    try:
        return f"kernels for {kernels_name()}"
    except ConfigError:
        return "no native kernels"
