"""Execute notebooks without Jupyter: their cells in turn, in one namespace, with what they print and show.

    python -m tests.notebooks examples/image_qa.ipynb        runs it and writes its outputs into the file

As in Jupyter, a cell's last expression is shown unless a semicolon follows, a picture as PNG and anything else as text;
so are figures that pyplot has open; and a line `!command` is for the shell. Here a command that fails ends the run.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image


def read_cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]  # type: ignore[no-any-return]


def source(cell: dict[str, Any]) -> str:
    """The cell's code as Python, commands as calls."""
    return re.sub(r"^!(.+)$", lambda line: f"_shell({line[1]!r})", "".join(cell["source"]), flags=re.MULTILINE)


def execute(notebook: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each cell. Runs in a folder of its own."""
    names: dict[str, Any] = {"__name__": "__main__", "_shell": _shell}
    outputs: list[list[dict[str, Any]]] = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where the command smolvlm is
    changed = patch.dict(os.environ, {"PATH": path, "MPLBACKEND": "agg"})
    with tempfile.TemporaryDirectory() as folder, chdir(folder), changed:
        for number, cell in enumerate(read_cells(notebook)):
            outputs.append(_run(source(cell), names, f"cell {number}") if cell["cell_type"] == "code" else [])
    return outputs


def _run(code: str, names: dict[str, Any], where: str) -> list[dict[str, Any]]:
    tree = ast.parse(code, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, shown = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), where, "eval"), names)  # type: ignore[attr-defined]
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)})
    if shown is not None and not code.rstrip().endswith(";"):
        found.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": _shown(shown)})
    return found + [
        {"output_type": "display_data", "metadata": {}, "data": _shown(picture)} for picture in _open_figures()
    ]


def _shell(command: str) -> None:
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"{command!r} ended with {done.returncode}:\n{done.stdout}")


def _open_figures() -> list[Image.Image]:
    """Drawn and closed. Empty where nothing has imported pyplot."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    pictures = []
    for number in pyplot.get_fignums() if pyplot else ():
        content = io.BytesIO()
        pyplot.figure(number).savefig(content)
        pyplot.close(number)
        pictures.append(Image.open(content))
    return pictures


def _shown(value: Any) -> dict[str, Any]:
    if isinstance(value, Image.Image):
        content = io.BytesIO()
        value.save(content, "PNG", optimize=True)
        return {"image/png": base64.b64encode(content.getvalue()).decode(), "text/plain": [f"picture {value.size}"]}
    return {"text/plain": (value if isinstance(value, str) else repr(value)).splitlines(keepends=True)}


def main() -> None:
    for name in sys.argv[1:]:
        notebook = Path(name).absolute()
        content = json.loads(notebook.read_text(encoding="utf-8"))
        count = 0
        for cell, outputs in zip(content["cells"], execute(notebook), strict=True):
            if cell["cell_type"] == "code":
                count += 1
                cell["outputs"], cell["execution_count"] = outputs, count
                for output in outputs:
                    if "execution_count" in output:
                        output["execution_count"] = count
        notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
