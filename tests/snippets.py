"""Run the commands and snippets of a Markdown page as a newcomer would: from the top, in one folder and one session.

A fenced block of `python` is executed, one of `sh` line by line. A `text` block right after it is what it prints ("..."
stands for anything); when that is an error, the error is expected. A block behind `<!-- not run: reason -->` is left
out.
"""

from __future__ import annotations

import dataclasses
import doctest
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from smolvlm.cli import main

MARKDOWN = MarkdownIt("commonmark").enable("table")
ERROR = re.compile(r"(\w*Error): ")
COMMANDS = re.compile(
    r"(smolvlm|make|python) \w"
)  # how a block begins that is for a shell, also when it doesn't say so
# Commands that a page may show and a test leaves out, and why.
LEFT_OUT = {
    "git": "needs the network",
    "pip": "changes the environment; .ci/run installs the wheel into one of its own",
    "source": "changes the shell",
    "python benchmarks/": "takes minutes; its parts have tests of their own",
    "python -m smolvlm.evaluation.harness.vlmevalkit": "needs VLMEvalKit; tests/harness runs it",
    "lmms-eval": "needs lmms-eval; tests/harness runs it",
    "serve run": "runs until it is stopped; tests/test_ray_serve.py runs the same application",
    "vllm serve": "needs a GPU; tests/test_vllm_video.py compares what it is sent with what it is asked about",
    "smolvlm serve": "runs until it is stopped; tests/test_server_life.py starts and stops it",
}
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
Substitute = Callable[[str], str]


@dataclass(frozen=True)
class Snippet:
    """A fenced block. line: its first one. shown: the output that the page prints below it, None for none."""

    page: Path
    line: int
    language: str
    text: str
    shown: str | None = None
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def read_snippets(page: Path) -> list[Snippet]:
    """The blocks of a page in order."""
    snippets: list[Snippet] = []
    not_run = ""
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            found = re.search(r"<!-- not run: (.+?) -->", token.content, re.DOTALL)
            not_run = found[1] if found else ""
        if token.type != "fence":
            continue
        assert token.map is not None, "fences have lines"
        line, language = token.map[0] + 2, token.info or ("sh" if COMMANDS.match(token.content) else "")
        if language == "text" and snippets and not not_run:
            snippets[-1] = dataclasses.replace(snippets[-1], shown=token.content)
        else:
            snippets.append(Snippet(page, line, language, token.content, not_run=not_run))
        not_run = ""
    return snippets


class Session:
    """One reader at work: a folder that is the current one, variables that stay."""

    def __init__(self, captured: pytest.CaptureFixture[str], substitute: Substitute, repository: Path) -> None:
        self._captured = captured
        self._substitute = substitute
        self._repository = repository
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def replace(self, text: str, by: str) -> None:
        """In all blocks from now on, after the other substitutions."""
        before = self._substitute
        self._substitute = lambda block: before(block).replace(text, by)

    def run(self, snippet: Snippet) -> None:
        """Execute a block and compare what it prints. Fails with the page and line."""
        self._captured.readouterr()
        text = self._substitute(snippet.text)
        try:
            printed = self._python(text, snippet) if snippet.language == "python" else self._shell(text, snippet)
        except Exception as error:
            raise AssertionError(f"{snippet} failed with {type(error).__name__}: {error}") from error
        if snippet.shown is not None and not alike(snippet.shown, printed):
            raise AssertionError(f"{snippet} prints\n{printed}\nbut the page shows\n{snippet.shown}")

    def _python(self, text: str, snippet: Snippet) -> str:
        code = compile("\n" * (snippet.line - 1) + text, str(snippet.page), "exec", dont_inherit=True)
        expected = ERROR.match(snippet.shown or "")
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            try:
                exec(code, self._names)
            except Exception as error:
                if expected is None:
                    raise
                return f"{type(error).__name__}: {error}"
        assert expected is None, f"no error, although the page shows {expected[1]}"
        return self._captured.readouterr().out

    def _shell(self, text: str, snippet: Snippet) -> str:
        printed = ""
        for line in text.replace("\\\n", " ").splitlines():
            words = list(_words(line))
            code = self._command(words) if words else 0
            out, err = self._captured.readouterr()
            printed += out + err
            expected = "smolvlm: error: " in (snippet.shown or "")
            assert code == 0 or expected, f"{line!r} ended with {code}: {err}"
        return printed

    def _command(self, words: list[str]) -> int:
        """One line: `command`, `echo text | command`, `command < file`."""
        given = b""
        if "|" in words:
            cut = words.index("|")
            given, words = _output_of(words[:cut]), words[cut + 1 :]
        if "<" in words:
            cut = words.index("<")
            given, words = Path(words[cut + 1]).read_bytes(), words[:cut]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
            return self._execute(words, patch)

    def _execute(self, words: list[str], patch: pytest.MonkeyPatch) -> int:
        command, *arguments = words
        if any(" ".join(words).startswith(start) for start in LEFT_OUT):
            if command == "python" and arguments[0] != "-m":
                assert (self._repository / arguments[0]).is_file(), f"there is no {arguments[0]}"
            return 0
        if command == "smolvlm":
            return _exit_code(arguments)
        if command == "python" and arguments[0] == "-m":
            patch.setattr(sys, "argv", arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__")
            return 0
        if command == "python":
            patch.setattr(sys, "argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")
            return 0
        if command == "make":
            return self._make(arguments, patch)
        if command == "cp":
            for source in arguments[:-1]:
                (Path(arguments[-1]) / Path(source).name).write_bytes(Path(source).read_bytes())
            return 0
        raise AssertionError(f"{command!r} is a command this test doesn't know; say why it is not run")

    def _make(self, targets: list[str], patch: pytest.MonkeyPatch) -> int:
        """The target must exist; what it asks of `smolvlm` is asked, in the repository."""
        rules = re.findall(r"^([\w-]+):", (self._repository / "Makefile").read_text(), re.MULTILINE)
        assert set(targets) <= set(rules), f"the Makefile has no target {set(targets) - set(rules)}"
        dry = subprocess.run(["make", "-n", *targets], cwd=self._repository, capture_output=True, text=True)
        if dry.returncode == 0:
            patch.chdir(self._repository)
            for line in dry.stdout.splitlines():
                if line.startswith(".venv/bin/smolvlm "):
                    assert self._execute(shlex.split(line.removeprefix(".venv/bin/")), patch) == 0
        return dry.returncode


def alike(shown: str, printed: str) -> bool:
    """Equal but for white space, and "..." in what is shown stands for anything."""
    return doctest.OutputChecker().check_output(shown.strip() + "\n", printed.strip() + "\n", ALIKE)


def _exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)


def _words(line: str) -> Iterator[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    return iter(lexer)


def _output_of(words: list[str]) -> bytes:
    command, *arguments = words
    assert command in ("echo", "printf", "cat"), f"{command!r} can't be piped here"
    if command == "cat":
        return b"".join(Path(name).read_bytes() for name in arguments)
    text = " ".join(arguments)
    return (text.replace("\\n", "\n") if command == "printf" else text + os.linesep).encode()
