"""The files around the package agree with each other: dependencies and pins, versions, commands."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import smolvlm

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in (*PROJECT["dependencies"], *(item for extra in extras for item in extra))]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_to_a_version_its_bound_allows() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_no_dependency_has_an_upper_cap() -> None:
    capped = [str(r) for r in requirements() if any(s.operator in ("<", "<=", "==", "~=") for s in r.specifier)]
    assert not capped


def test_torch_is_pinned_without_a_build_label() -> None:
    assert re.fullmatch(r"[\d.]+", pins()["torch"])


def test_the_version_is_the_same_everywhere() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {smolvlm.__version__}\n" in citation
    assert "## " in (REPOSITORY / "CHANGELOG.md").read_text()


def test_every_make_target_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        named = set(re.findall(r"(?:^|[`\s;])make ([a-z]+)\b", (REPOSITORY / name).read_text(), re.MULTILINE))
        assert named <= targets, f"{name} names {named - targets}"
        assert name == ".ci/run" or named


def test_ci_is_executable_and_runs_the_tests_as_the_readme_does() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    assert "make test" in (REPOSITORY / "README.md").read_text()


def test_licence_is_the_apache_licence() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
