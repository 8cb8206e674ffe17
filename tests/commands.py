"""Command lines for tests: run in this process with captured output, or as a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]


class Outcome:
    """Exit code and output of one command line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The single line of an error, without its head; nothing else may have been printed."""
        assert self.out == "" and self.err.count("\n") == 1 and "Traceback" not in self.err, (self.out, self.err)
        assert self.err.startswith("smolvlm: error: ")
        return self.err.removeprefix("smolvlm: error: ").strip()


def run(captured: pytest.CaptureFixture[str], words: list[str]) -> Outcome:
    """Run a command line in this process."""
    return Outcome(main(words), *captured.readouterr())


def process(*words: object, **options: object) -> subprocess.Popen[bytes]:
    """The command as a process of its own, with pipes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-m", "smolvlm", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, **{"stdin": pipe, "stdout": pipe, "stderr": pipe, "env": environment, **options})  # type: ignore[call-overload, no-any-return]
