"""The floor plan as a test: who may import whom, where torch may be loaded, how long a file and a function may be.

Every import counts, also one inside a function or under TYPE_CHECKING. A room is a first-level module or package of
smolvlm; a new room needs a line in ROOMS (and in the README's map).
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "smolvlm"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
REASON = "# Long because "  # on the line above a function that is longer

# room -> what it may import. "a.b" is one module of a room; "*" is anything.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "types": {"errors"},
    "pages": set(),
    "parquet": {"errors"},
    "evaluation": {"errors", "types", "pages", "parquet", "media", "scenes", "vlm"},
    "highlights": {"errors", "types", "pages", "media", "vlm"},
    "server": {"errors", "types", "media", "vlm"},
    "hub": {"errors", "config", "types"},
    "checkpoint": {"errors", "config", "types"},
    "media": {"errors", "types"},
    "scenes": {"errors", "types"},
    "processing": {"errors", "config", "types", "hub", "media"},
    "model": {"errors", "config", "types", "hub", "checkpoint"},
    "runtimes": {"errors", "config", "types", "hub", "checkpoint"},
    "generation": {"errors", "config", "types", "runtimes"},
    "vlm": {
        "errors", "config", "types", "hub", "checkpoint", "media", "processing", "model", "runtimes", "generation",
    },
    "hf": {"errors", "config", "types", "hub", "checkpoint", "media", "processing", "model", "generation", "vlm"},
    "training": {
        "errors", "config", "types", "pages", "parquet", "hub", "checkpoint", "media", "scenes", "processing", "model",
        "generation.generate",
    },
    "export": {"errors", "config", "types", "hub", "checkpoint", "scenes", "processing", "model", "runtimes"},
    "cli": {"*"},
    "__init__": {"*"},  # for type checkers only, see below
    "__main__": {"cli"},
}  # fmt: skip
# Modules that may do more than their room: the plain loop, which drives the model without a motor, and the motor of it.
EXCEPTIONS: dict[str, set[str]] = {"generation.generate": {"model"}, "runtimes.torch": {"model"}}
# Where `import torch` may stand at the top of a file; everywhere else it stands inside a function.
TORCH_ROOMS = {"model", "generation.generate", "runtimes.torch", "hf", "training"}
# What a front door may import before a command runs.
CLI_AT_START = {"cli", "errors", "types", "__init__"}
# No dependencies, or of an extra only: used when they are there, each behind an error that names the cure.
OPTIONAL = {
    "flash_attn", "tensorflow", "jax", "onnx", "onnxruntime", "pyarrow", "datasets", "transformers", "matplotlib",
    "openpyxl", "vlmeval", "lmms_eval", "fastapi", "starlette", "uvicorn", "llguidance",
    "prometheus_client", "pydantic", "pydantic_core",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import statement. module: dotted name of the file, inside smolvlm. target: dotted, "smolvlm." included."""

    module: str
    target: str
    line: int
    lazy: bool  # inside a function
    typing_only: bool

    @property
    def room(self) -> str:
        return self.module.split(".")[0]

    @property
    def inner(self) -> str | None:
        """The imported module of ours without "smolvlm.", or None when it is somebody else's."""
        top, _, rest = self.target.partition(".")
        return None if top != "smolvlm" else rest or "__init__"

    def __str__(self) -> str:
        return f"{self.module} (line {self.line}) imports {self.target}"


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@lru_cache(maxsize=1)
def imports() -> tuple[Import, ...]:
    return tuple(found for file in files() for found in imports_of(file))


def imports_of(file: Path) -> Iterator[Import]:
    name = module_name(file)
    package = ["smolvlm", *file.relative_to(SOURCE).parent.parts]

    def visit(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                target = [*source, alias.name] if is_module([*source, alias.name]) else source
                yield Import(name, ".".join(target), node.lineno, lazy, typing_only)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                    for_types = isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.dump(node.test)
                    yield from visit(child, lazy or inside_function, typing_only or for_types)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")), False, False)


def is_module(parts: list[str]) -> bool:
    if parts[0] != "smolvlm":
        return False
    path = SOURCE.joinpath(*parts[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def allowed(found: Import) -> bool:
    assert found.inner is not None
    may = ROOMS[found.room] | EXCEPTIONS.get(found.module, set()) | {found.room}
    parts = found.inner.split(".")
    return "*" in may or any(".".join(parts[:length]) in may for length in range(1, len(parts) + 1))


def test_every_room_has_a_rule_and_every_rule_a_room() -> None:
    rooms = {module_name(file).split(".")[0] for file in files()}
    assert rooms == ROOMS.keys()


def test_imports_go_one_way() -> None:
    wrong = [str(found) for found in imports() if found.inner is not None and not allowed(found)]
    assert not wrong, "\n".join(["These imports break the floor plan:", *wrong])


def test_nothing_but_its_own_start_imports_the_command_line() -> None:
    wrong = [
        str(found)
        for found in imports()
        if (found.inner or "").split(".")[0] == "cli" and found.room not in ("cli", "__main__")
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for found in imports():
        if found.inner is not None and found.room != "__init__":
            target = found.inner.split(".")[0]
            graph.setdefault(found.room, set()).update({target} - {found.room, "__init__"})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other in a circle: {' -> '.join(error.args[1])}")


def test_modules_form_no_cycle_when_they_are_loaded() -> None:
    graph: dict[str, set[str]] = {}
    for found in imports():
        if found.inner is not None and not found.lazy and not found.typing_only and found.inner != found.module:
            # `from . import x` and `from .x import y` also load the package, whose __init__ imports its parts first.
            graph.setdefault(found.module, set()).add(found.inner)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_torch_is_loaded_at_the_top_of_few_files() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.target.split(".")[0] == "torch"
        and not found.lazy
        and not found.typing_only
        and not {found.room, found.module} & TORCH_ROOMS
    ]
    assert not wrong, "\n".join(["Import torch inside the function that needs it:", *wrong])


def test_only_one_module_names_the_parts_of_torch_that_need_a_gpu() -> None:
    named = {module_name(file) for file in files() if "torch.cuda." in file.read_text(encoding="utf-8")}
    assert named == {"model.cuda"}


def test_package_itself_imports_its_parts_for_type_checkers_only() -> None:
    wrong = [str(found) for found in imports() if found.room == "__init__" and found.inner and not found.typing_only]
    assert not wrong, "\n".join(wrong)


def test_command_line_imports_other_rooms_inside_functions_only() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.room == "cli"
        and not found.lazy
        and not found.typing_only
        and found.inner is not None
        and found.inner.split(".")[0] not in CLI_AT_START
    ]
    assert not wrong, "\n".join(wrong)


def test_every_foreign_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {plain(requirement) for requirement in project["dependencies"]}
    providers = packages_distributions()
    wrong = []
    for found in imports():
        top = found.target.split(".")[0]
        if top in ("smolvlm", "__future__") or top in sys.stdlib_module_names or top in OPTIONAL:
            continue
        if not {plain(name) for name in providers.get(top, [top])} & declared:
            wrong.append(str(found))
    assert not wrong, "\n".join(["Declare these in pyproject.toml, or do without:", *wrong])


def plain(requirement: str) -> str:
    """Name of a requirement as package indexes compare it."""
    return requirement.split(">")[0].split("=")[0].split("[")[0].strip().lower().replace("_", "-")


def test_no_file_is_longer_than_400_lines() -> None:
    places = [*files(), *(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")]
    lengths = {file.relative_to(REPOSITORY): len(file.read_text(encoding="utf-8").splitlines()) for file in places}
    wrong = [f"{file}: {length} lines" for file, length in lengths.items() if length > MAX_FILE_LINES]
    assert not wrong, "\n".join(wrong)


def test_no_function_is_longer_than_60_lines_without_a_reason() -> None:
    wrong = []
    for file in files():
        lines = file.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if length > MAX_FUNCTION_LINES and REASON not in lines[first - 2]:
                    wrong.append(f"{module_name(file)}.{node.name}: {length} lines")
    assert not wrong, "\n".join([f"Cut these, or say why above them ('{REASON}...'):", *wrong])


def test_no_room_for_leftovers() -> None:
    names = {part for file in files() for part in module_name(file).split(".")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


@pytest.mark.parametrize(
    "statement",
    [
        "import smolvlm; dir(smolvlm); smolvlm.SamplingParams; smolvlm.SmolVLMError; smolvlm.SmolVLMConfig",
        "import smolvlm.hub, smolvlm.checkpoint, smolvlm.types",
        "import smolvlm.media.image, smolvlm.processing.processor, smolvlm.processing.video",
        "import smolvlm.training.data, smolvlm.cli.data",
        "import smolvlm.cli as cli; cli.main(['--help'])",
        "import smolvlm.cli as cli; cli.main(['ask', '--help'])",
    ],
)
def test_what_needs_no_torch_loads_none(statement: str) -> None:
    heavy = {"torch", "transformers", "av", "rich", "huggingface_hub"}
    report = f"print('LOADED', sorted({heavy!r} & sys.modules.keys()))"
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n{report}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_all_is_sorted_and_every_name_in_it_resolves() -> None:
    import smolvlm

    assert smolvlm.__all__ == sorted(smolvlm.__all__)
    for name in smolvlm.__all__:
        assert getattr(smolvlm, name).__name__ == name
    assert set(smolvlm.__all__) <= set(dir(smolvlm))
    with pytest.raises(AttributeError, match="no attribute 'Pizza'"):
        smolvlm.Pizza  # noqa: B018
