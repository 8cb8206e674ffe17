"""Layouts of the benchmarks: VLMEvalKit's TSV (pandas is the oracle), the hub's parquet, JSON beside pictures."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from smolvlm.errors import DataError
from smolvlm.evaluation.layouts import Files, Record, literal_list, read_records
from smolvlm.evaluation.layouts.tsv import as_pandas
from smolvlm.evaluation.tasks import TASKS

FILES = Files("Made", "made", ("data/test*.parquet",), "somebody/made")


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = base64.b64encode(png("red")).decode(), base64.b64encode(png("blue")).decode()


def write(directory: Path, *rows: Sequence[str], name: str = "Made.tsv") -> Path:
    with (directory / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    return directory / name


def records(directory: Path) -> list[Record]:
    return list(read_records(directory, FILES))


def test_pictures_are_given_as_base64_as_lists_and_by_another_row(tmp_path: Path) -> None:
    both = repr([RED, BLUE])
    write(tmp_path, ["index", "question", "image"], ["1", "a", "3"], ["2", 'b\n"c"\td', both], ["3", "e", BLUE])
    found = records(tmp_path)
    assert [one.images for one in found] == [(png("blue"),), (png("red"), png("blue")), (png("blue"),)]
    assert [one.columns for one in found][1] == {"index": "2", "question": 'b\n"c"\td'}
    assert [one.where for one in found] == ["Made.tsv, line 2", "Made.tsv, line 3", "Made.tsv, line 5"]


def test_pictures_in_files_are_looked_for_under_images_and_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "images" / "Made").mkdir(parents=True)
    (tmp_path / "images" / "Made" / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png())
    rows = [["index", "question", "image_path"], ["1", "a", "a.png"], ["2", "b", "['a.png', 'b.png']"]]
    write(tmp_path, *rows, name="Made_local.tsv")
    first, second = records(tmp_path)
    assert first.images == (tmp_path / "images" / "Made" / "a.png",)
    assert second.images == (tmp_path / "images" / "Made" / "a.png", tmp_path / "b.png")


def test_a_long_row_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    noise = io.BytesIO()
    Image.frombytes("RGB", (300, 300), random.Random(0).randbytes(270_000)).save(noise, "PNG")
    write(tmp_path, ["index", "question", "image"], ["1", "a", base64.b64encode(noise.getvalue()).decode()])
    path = tmp_path / "Made.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (found,) = records(tmp_path)
    assert found.images == (noise.getvalue(),) and found.columns["index"] == "1"


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2", "007", "-3", "+4"],
        ["1", "", "30"],
        ["1.50", "2", ".5", "1e3"],
        ["1", "two", "3.0"],
        ["None", "N/A", "null", "nan", "none", "NAN", ""],
        ["None", "5"],
        ["1_000", "2"],
        ["1,000", "2"],
        [" 7", "8 "],
        ["99999999999999999999", "1"],
        ["inf", "-Infinity", "1"],
        ["", ""],
    ],
)
def test_cells_are_read_as_pandas_reads_them(cells: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    text = "\n".join(["index\toption", *(f"{at}\t{cell}" for at, cell in enumerate(cells))]) + "\n"
    column = pandas.read_csv(io.StringIO(text), sep="\t")["option"]
    assert as_pandas(cells) == [None if pandas.isna(cell) else f"{cell}" for cell in column]


HEADER = ["index", "question", "image"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([HEADER, ["1", "a", ""]], "Made.tsv, line 2: the row has no picture"),
        ([HEADER, ["1", "a", RED], ["2", "b", "7"]], "Made.tsv, line 3: the picture is said to be that of row '7'"),
        ([HEADER, ["1", "a", "2"], ["2", "b", "1"]], "Made.tsv, line 2: the picture is said to be that of row '2'"),
        ([HEADER, ["1", "a", RED], ["1", "b", RED]], "the index 1 is on line 2 and again on 3"),
        ([HEADER, ["1", "a", RED], ["2", "b"]], "Made.tsv, line 3: .*2 cells, but the header has 3"),
        ([HEADER, ["1", "a\tb", RED, "more"]], "Made.tsv, line 2: .*4 cells, but the header has 3"),
        ([["index", "question"], ["1", "a"]], "needs the columns index, and image or image_path; it has: index, qu"),
        ([["index", "image_path"], ["1", "gone.png"]], "line 2: there is no picture 'gone.png' in .*images/Made"),
    ],
)
def test_a_bad_table_is_refused_before_its_first_row(rows: list[list[str]], reason: str, tmp_path: Path) -> None:
    write(tmp_path, *rows)
    with pytest.raises(DataError, match=reason):
        read_records(tmp_path, FILES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'index\tquestion\timage\n1\t"a\t' + RED.encode(), "line 2: .*unexpected end of data"),
        (b"index\tquestion\timage\n1\t\xff\t" + RED.encode(), "line 2: .*can't decode byte 0xff"),
    ],
)
def test_a_damaged_table_is_refused_by_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "Made.tsv").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_records(tmp_path, FILES)


def test_a_picture_outside_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    home = tmp_path / "home"
    home.mkdir()
    write(home, ["index", "question", "image_path"], ["1", "a", "../secret.png"])
    with pytest.raises(DataError, match="leads out of"):
        read_records(home, FILES)


def test_what_is_no_picture_is_kept_for_whoever_opens_it(tmp_path: Path) -> None:
    write(tmp_path, HEADER, ["1", "a", "@" * 65 + "x"], ["2", "b", "QUJD" * 20])
    first, second = records(tmp_path)
    assert all(isinstance(image, bytes) for one in (first, second) for image in one.images)


def test_parquet_holds_pictures_in_several_columns_and_names_of_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "made" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "made" / "c.png").write_bytes(png())
    rows = [
        {"question": "a", "image_1": {"bytes": png(), "path": "x"}, "image_2": {"bytes": png("blue"), "path": None}},
        {"question": "b", "image_1": None, "image_2": {"bytes": None, "path": "c.png"}},
        {"question": "c", "image_1": None, "image_2": None},
    ]
    for part in range(2):
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"test-0000{part}-of-00002.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    found = records(tmp_path)
    assert [one.images for one in found[:3]] == [(png(), png("blue")), (tmp_path / "made" / "c.png",), ()]
    assert [one.number for one in found] == list(range(6))
    assert found[4].where == "data/test-00001-of-00002.parquet, row 5" and found[4].columns["question"] == "b"
    (folder / "test-00001-of-00002.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="test-00001-of-00002.parquet is damaged"):
        read_records(tmp_path, FILES)


def test_json_and_json_lines_name_their_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "one.json").write_text(json.dumps([{"question": "a", "image": "a.png"}]))
    (folder / "two.jsonl").write_text(json.dumps({"question": "b\u2028c", "images": ["a.png", "a.png"]}) + "\n\n")
    found = records(tmp_path)
    assert [len(one.images) for one in found] == [1, 2] and found[1].where == "two.jsonl, line 1"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", '{"question": "a"}', "a.json must hold a list of objects, but holds a dict"),
        ("a.json", '[{"image": "b.png"}]', "a.json, row 1: there is no picture 'b.png'"),
        ("a.jsonl", '{"a": 1}\n{"a": ', "a.jsonl, line 2 is not valid JSON"),
        ("a.jsonl", "[]", "a.jsonl, line 1: a row must be a JSON object, but is a list"),
    ],
)
def test_bad_json_is_refused_by_row(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        read_records(tmp_path, FILES)


def test_a_benchmark_that_is_not_there_says_what_was_looked_for(tmp_path: Path) -> None:
    address = "https://opencompass.openxlab.space/utils/VLMEval/MMStar.tsv"
    with pytest.raises(DataError, match=f"(?s)no MMStar under .*{address}.*folder mmstar .*Lin-Chen/MMStar.*jsonl"):
        TASKS["mmstar"].read(tmp_path)
    with pytest.raises(DataError, match=r"utils/benchmarks/ScienceQA/ScienceQA_TEST\.tsv"):
        TASKS["scienceqa"].read(tmp_path)
    with pytest.raises(DataError, match=r"Looked for VQAv2_VAL\.tsv; in the folder vqav2"):
        TASKS["vqav2"].read(tmp_path)


def test_lists_that_are_written_out_are_read_and_nothing_is_run() -> None:
    assert literal_list("['a', 2]") == ["a", "2"]
    assert literal_list("[print(1)]") is literal_list("[a]") is literal_list("text") is literal_list("[1") is None
