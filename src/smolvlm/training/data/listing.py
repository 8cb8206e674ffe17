"""Data sets as recipes and mixture files list them: tables of TOML -> sources. And which share of a mixture is what.

A table is the fields of a Source; or `mixture`, another file of such tables, and `weight`, by which its own are
multiplied.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .drawn import PREFIX as SCENES
from .sources import Source
from .stream import PREFIX as HUB

KNOWN = tuple(one.name for one in dataclasses.fields(Source))
OTHER = ("mixture", "weight")  # of a table that names another file


def read_mixture(file: Path, data_root: str = "") -> list[Source]:
    """The [[data]] tables of a mixture file. data_root: the folder that relative paths are taken from.

    Raises ConfigError naming the file, the number of the table and what is wrong in it.
    """
    return _read_file(file, data_root, ())


def read_sources(tables: Sequence[Mapping[str, Any]], file: Path, data_root: str = "") -> list[Source]:
    """Tables of a file -> sources. data_root: the folder that relative paths are taken from.

    Raises ConfigError naming the file, the number of the table and what is wrong in it.
    """
    return _read_tables(tables, file, data_root, ())


def shares(sources: Iterable[Source]) -> dict[str, float]:
    """Of an epoch's samples, by the published counts, the share of each kind; together 1.

    Raises ConfigError when no source says how many samples it has.
    """
    taken: dict[str, Fraction] = {}
    for one in sources:
        taken[one.kind] = taken.get(one.kind, Fraction()) + one.samples * one.share
    whole = sum(taken.values())
    if not whole:
        raise ConfigError("Shares can't be told: no data set of this mixture says how many samples it has.")
    return {kind: float(count / whole) for kind, count in taken.items()}


def _read_file(file: Path, data_root: str, outer: tuple[Path, ...]) -> list[Source]:
    """outer: the files that name this one, from the outermost on."""
    if file.resolve() in outer:
        raise ConfigError(f"{outer[-1]} names {file}, which names it.")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"There is no mixture {file}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from None
    unknown = sorted(set(values) - {"data"})
    if unknown:
        raise ConfigError(f"{file} has an unknown key {unknown[0]!r}: a mixture is tables [[data]].")
    return _read_tables(values.get("data", []), file, data_root, (*outer, file.resolve()))


def _read_tables(tables: Any, file: Path, data_root: str, outer: tuple[Path, ...]) -> list[Source]:
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: data sets are listed as tables [[data]], at least one.")
    found: list[Source] = []
    for number, table in enumerate(tables, start=1):
        where = f"{file}: data set {number}"
        known = OTHER if "mixture" in table else KNOWN
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise ConfigError(f"{where} has an unknown key {unknown[0]!r}; known are {', '.join(known)}.")
        first = known[0]
        if not isinstance(table.get(first), str) or not table[first]:
            raise ConfigError(f"{where} needs a {first}.")
        try:
            if "mixture" in table:
                weight = Source(table["mixture"], weight=table.get("weight", 1.0)).share
                inner = _read_file(file.parent / table["mixture"], data_root, outer)
                found += [dataclasses.replace(one, weight=float(one.share * weight)) for one in inner]
            else:
                found.append(_placed(Source(**table), data_root))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return found


def _placed(source: Source, data_root: str) -> Source:
    """The source with its relative paths taken from data_root."""

    def place(path: str) -> str:
        return path if not path or path.startswith((HUB, SCENES, "~")) else str(Path(data_root).expanduser() / path)

    if not data_root:
        return source
    return dataclasses.replace(source, path=place(source.path), media_root=place(source.media_root))
