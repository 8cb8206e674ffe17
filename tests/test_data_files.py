"""Files of training data: every row at random, damage where it is, nothing opened outside one folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from smolvlm.errors import ConfigError, DataError, ImageError, MediaError, MissingDependencyError
from smolvlm.media.image import open_image
from smolvlm.parquet import read_group
from smolvlm.training.data import DataSet, Source, arrow, offsets, stream
from smolvlm.training.data.offsets import find_rows
from smolvlm.training.data.roots import inside, resolve

ROWS = [{"question": f'{number} "]}}{{[" \\', "answer": "é" * number} for number in range(5)]


def png(colour: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def open_set(path: Path | str, **options: Any) -> DataSet:
    return DataSet(Source(str(path), **options))


def texts(data_set: DataSet) -> list[str]:
    """The first question of each sample, asked for from the last to the first."""
    backwards = [data_set.sample(index).messages[0]["content"] for index in reversed(range(len(data_set)))]
    return [blocks[-1]["text"] for blocks in reversed(backwards)]  # type: ignore[index]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


# ---- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("windows.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, ROWS)) + "\r\n\r\n"),
        ("lines.json", "\n".join(map(json.dumps, ROWS)) + "\n"),
        ("list.json", json.dumps(ROWS)),
        ("pretty.json", "\n " + json.dumps(ROWS, indent=3, ensure_ascii=False)),
    ],
)
def test_every_way_to_write_rows_as_json_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert texts(open_set(tmp_path / name)) == [row["question"] for row in ROWS]


def test_a_file_of_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(ROWS[3], indent=2))
    assert texts(open_set(tmp_path / "one.json")) == [ROWS[3]["question"]]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.lists(st.integers(), max_size=3))))
def test_rows_of_any_content_are_found_where_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.json"
    for indent in (None, 1):
        path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8", newline="")
        content = path.read_bytes()
        assert [json.loads(content[start:end]) for start, end in find_rows(path)] == rows


def test_offsets_of_large_files_are_kept_beside_them_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "KEEP_BYTES", 10)
    path, kept = tmp_path / "rows.jsonl", tmp_path / ".rows.jsonl.rows.npy"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    first = find_rows(path)
    assert kept.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(offsets, "_scan", lambda path: pytest.fail("the kept offsets were not used"))
        np.testing.assert_array_equal(find_rows(path), first)
    path.write_text("\n".join(map(json.dumps, ROWS[:2])))
    assert len(find_rows(path)) == 2
    kept.write_bytes(b"rubbish")
    assert len(find_rows(path)) == 2


def test_a_folder_that_cant_be_written_to_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "KEEP_BYTES", 10)
    (tmp_path / ".rows.jsonl.rows.npy").mkdir()  # nothing can be written under this name
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert len(open_set(tmp_path / "rows.jsonl")) == 5


def test_a_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    lines = [json.dumps(ROWS[0]), '{"question": "broken', "[" * 100_000, "7", json.dumps(ROWS[1])]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    data_set = open_set(tmp_path / "rows.jsonl")
    assert len(data_set) == 5 and data_set.sample(4).place.row == 4
    for index, message in ((1, "not valid JSON"), (2, "not valid JSON"), (3, "but is a int")):
        with pytest.raises(DataError, match=message):
            data_set.sample(index)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b'[{"text": "a"}, {"text": "b', "cut off"),
        ("a.jsonl", b"text, more", "no JSON objects"),
        ("a.json", b"[1, 2]", "holds no rows"),
        ("a.parquet", b"PAR1rubbish", "damaged or no parquet file"),
        ("a.tar", b"rubbish" * 200, "no plain tar file"),
        ("a.csv", b"a,b", "kinds are .json"),
        ("a.jsonl", b'{"picture": "a"}', "No format fits the columns picture"),
    ],
)
def test_files_that_are_none_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_set(tmp_path / name)
    with pytest.raises(DataError, match="no file or folder"):
        open_set(tmp_path / "nothing")


# ---- parquet --------------------------------------------------------------------------------------------------------


def cauldron(count: int) -> list[dict[str, Any]]:
    """Rows as the hub stores them, pictures inside; the second picture is broken."""
    pictures = [png(), b"\x89PNG broken", *[png("blue")] * (count - 2)]
    return [
        {
            "images": [{"bytes": pictures[number], "path": None}],
            "texts": [{"user": f"{number}?", "assistant": f"{number}.", "source": "x"}],
        }
        for number in range(count)
    ]


def test_rows_of_parquet_files_come_at_random_across_groups_and_files(tmp_path: Path) -> None:
    for name, start, end in (("train-0.parquet", 0, 7), ("train-1.parquet", 7, 10)):
        parquet.write_table(pyarrow.Table.from_pylist(cauldron(10)[start:end]), tmp_path / name, row_group_size=3)
    parquet.write_table(pyarrow.Table.from_pylist(cauldron(2)), tmp_path / "test-0.parquet")
    data_set = open_set(tmp_path)
    assert texts(data_set) == [f"{number}?" for number in range(10)]
    assert [file.name for file in data_set.left_out] == ["test-0.parquet"]
    assert data_set.sample(0).media[0]["source"] == png()
    assert str(data_set.place(8)) == f"{tmp_path / 'train-1.parquet'}, row 1"
    assert sorted(data_set.shuffled(0)) == list(range(10))
    assert texts(pickle.loads(pickle.dumps(data_set))) == texts(data_set)


def test_a_shuffled_pass_reads_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": str(number)} for number in range(60)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=5)
    reads: list[int] = []
    monkeypatch.setattr(
        arrow, "read_group", lambda path, number, _: reads.append(number) or read_group(path, number, _)
    )
    data_set = open_set(tmp_path / "a.parquet")
    reads.clear()
    order = data_set.shuffled("seed")
    assert {data_set.sample(int(index)).place.row for index in order} == set(range(60))
    assert sorted(reads) == list(range(12)) and reads != sorted(reads)
    assert len({int(index) // 5 for index in order[:8]}) > 1  # rows of several groups are mixed


def test_without_pyarrow_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"pip install 'smolvlm\[train\]'"):
        open_set(tmp_path / "a.parquet")


# ---- shards, folders, texts -----------------------------------------------------------------------------------------


def test_members_of_a_shard_that_share_a_name_are_a_row(tmp_path: Path) -> None:
    talk = {"image": ["x/1.png", "x/2.png"], "conversations": [
        {"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "Red."}]}  # fmt: skip
    shard = write_tar(
        tmp_path / "shard.tar",
        {
            "a/0.json": json.dumps(talk).encode(), "a/0.10.png": png("blue"), "a/0.9.png": png("red"),
            "a/1.jpg": png("green"), "a/1.txt": "Grün.".encode(), "a/1.cls": b"3", "b/1.txt": b"Alone.",
        },
    )  # fmt: skip
    data_set = open_set(shard)
    assert len(data_set) == 3
    assert [block["source"] for block in data_set.sample(0).media] == [png("red"), png("blue")]
    assert data_set.converted(1)[0] == "caption" and data_set.converted(2)[0] == "text"


def test_names_of_files_in_a_shard_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    content = json.dumps({"image": "secret.png", "question": "What?", "answer": "That."}).encode()
    with pytest.raises(MediaError, match="has no folder of files"):
        open_set(write_tar(tmp_path / "a.tar", {"0.json": content})).sample(0)


def test_a_folder_of_files_with_captions_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for name in ("cats/a.png", "b.png", ".hidden.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "cats/a.txt").write_text("A cat.\n")
    data_set = open_set(tmp_path)
    assert len(data_set) == 2
    sample = data_set.sample(1)
    assert sample.media[0]["source"] == Path(os.path.realpath(tmp_path / "cats/a.png"))
    assert sample.messages[1]["content"] == [{"type": "text", "text": "A cat."}]
    with pytest.raises(DataError, match=r"b\.txt is missing"):
        data_set.sample(0)
    (tmp_path / "b.txt").symlink_to("/etc/passwd")
    with pytest.raises(MediaError, match="leads out of"):
        data_set.sample(0)


def test_texts_are_rows_of_their_own(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"Text {name}.")
    assert texts(open_set(tmp_path)) == ["Text a.txt.", "Text b.txt."]
    assert texts(open_set(tmp_path / "b.txt")) == ["Text b.txt."]
    assert texts(open_set(tmp_path / "*.txt")) == ["Text a.txt.", "Text b.txt."]
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        open_set(tmp_path).sample(0)


# ---- what may be opened ---------------------------------------------------------------------------------------------


def test_nothing_outside_the_media_root_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (tmp_path / "data-secret").mkdir()
    for file in (tmp_path / "secret.png", tmp_path / "data-secret" / "a.png", root / "images" / "a.png"):
        file.write_bytes(png())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "good.png").symlink_to(root / "images" / "a.png")
    for name in ("images/a.png", "images/../images/a.png", str(root / "images/a.png"), "good.png"):
        assert resolve(name, root) == Path(os.path.realpath(root / "images/a.png"))
    outside = ("../secret.png", "images/../../secret.png", str(tmp_path / "secret.png"), "link.png", "/etc/passwd",
               "../data-secret/a.png", "a\0b", "\ud800.png")  # fmt: skip
    for name in outside:
        with pytest.raises(MediaError, match="leads out of"):
            inside(name, root)
    with pytest.raises(ImageError, match="no file"):
        open_image(inside("loop.png", root))


def test_a_file_may_say_how_closely_to_look_and_no_more(tmp_path: Path) -> None:
    good = {"type": "image", "image": "a.png", "detail": "low", "fps": 2}
    bad = {"type": "image", "image": "a.png", "detail": ["x"], "fps": "x", "max_frames": -1, "max_image_tokens": "x"}
    talk = [{"role": "user", "content": [good, bad]}, {"role": "assistant", "content": "Yes."}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": talk}))
    first, second = open_set(tmp_path / "rows.jsonl").sample(0).media
    assert first == {"type": "image", "detail": "low", "fps": 2, "source": Path(os.path.realpath(tmp_path / "a.png"))}
    assert set(second) == {"type", "source"}


def test_media_may_be_bytes_files_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert resolve({"bytes": b"abc", "path": "/etc/passwd"}, tmp_path) == b"abc"
    assert resolve({"bytes": None, "path": "a.png"}, tmp_path).name == "a.png"
    assert resolve("data:image/png;base64,AAAA", None) == "data:image/png;base64,AAAA"
    for missing in (None, {"bytes": None, "path": None}, {"bytes": [1]}):
        with pytest.raises(MediaError, match="missing"):
            resolve(missing, tmp_path)


def test_a_folder_of_frames_is_a_video_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in (10, 9, 1):
        (tmp_path / "clip" / f"f{number}.png").write_bytes(png())
    assert [file.name for file in resolve("clip", tmp_path, "video")] == ["f1.png", "f9.png", "f10.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="no frames"):
        resolve("empty", tmp_path, "video")


def test_a_media_root_takes_the_place_of_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "caption": "Red."}))
    assert (
        open_set(tmp_path / "rows.jsonl", media_root=str(tmp_path / "pictures")).sample(0).media[0]["source"].exists()
    )
    with pytest.raises(DataError, match="no folder"):
        open_set(tmp_path / "rows.jsonl", media_root=str(tmp_path / "nothing"))
    for weight in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="above 0"):
            Source("a", weight=weight)


def test_addresses_are_refused_by_the_door_unless_allowed(tmp_path: Path) -> None:
    assert resolve("https://example.com/a.png", tmp_path) == "https://example.com/a.png"
    with pytest.raises(MediaError, match="not fetched unless you allow it"):
        open_image(resolve("https://example.com/a.png", tmp_path))
    with pytest.raises(ImageError):
        open_image(resolve("file:///etc/passwd", tmp_path))


# ---- the hub --------------------------------------------------------------------------------------------------------


class Stream:
    """What the package `datasets` returns, as far as we use it."""

    def __init__(self, rows: list[dict[str, Any]], skipped: list[int]) -> None:
        self.rows, self.skipped = rows, skipped
        self.info = types.SimpleNamespace(splits={"train": types.SimpleNamespace(num_examples=len(rows))})

    def decode(self, enable: bool) -> Stream:
        assert enable is False
        return self

    def skip(self, count: int) -> list[dict[str, Any]]:
        self.skipped.append(count)
        return self.rows[count:]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    skipped: list[int] = []
    rows = [{"text": str(number)} for number in range(10)]

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Stream:
        if name == "owner/gone":
            raise FileNotFoundError("no such data set")
        assert (name, config, streaming) == ("owner/name", "config(a,b)", True)
        return Stream(rows, skipped)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(stream, "RUN", 4)
    return skipped


def test_the_hub_is_read_as_a_stream_in_runs(hub: list[int]) -> None:
    data_set = open_set("hub:owner/name/config(a,b)")
    order = data_set.shuffled("seed").tolist()
    assert sorted(order) == list(range(10)) and order != sorted(order)
    assert [index // 4 for index in order] == sorted(index // 4 for index in order)  # one run after another
    hub.clear()
    assert [blocks(data_set, index) for index in order] == [str(index) for index in order]
    assert hub == []  # it was opened for its first run already, and then read on
    assert blocks(data_set, 9) == "9" and blocks(data_set, 0) == "0" and blocks(data_set, 5) == "5"
    assert blocks(pickle.loads(pickle.dumps(data_set)), 5) == "5"


def blocks(data_set: DataSet, index: int) -> str:
    return str(data_set.sample(index).messages[0]["content"][0]["text"])  # type: ignore[index]


def test_what_the_hub_cant_give_is_told(hub: list[int]) -> None:
    for spec, message in (
        ("hub:owner/gone", "can't be read from the hub: no such data set"),
        ("hub:owner/name/config(a,b):test", "doesn't say how many rows"),
        ("hub:name", "names no data set"),
        ("hub:owner/name/config/more", "names no data set"),
    ):
        with pytest.raises(DataError, match=message):
            open_set(spec)


def test_without_the_package_datasets_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="pip install datasets"):
        open_set("hub:owner/name")
