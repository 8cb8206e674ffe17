"""Finding and downloading models, with the real client of huggingface_hub against an imitation of the hub."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smolvlm import hub
from smolvlm.errors import CheckpointError, ModelNotFoundError
from tests.hub_imitation import COMMIT, Hub, serve

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILES = {
    "config.json": b'{"model_type": "smolvlm"}',
    "model.safetensors": WEIGHTS,
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"a b",
    "pytorch_model.bin": b"a pickle",
    "onnx/config.json": b"{}",
    "onnx/model.onnx": b"graph",
    "README.md": b"# A model",
}


@pytest.fixture
def server() -> Iterator[Hub]:
    pickled = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    with serve(Hub({"someone/tiny": dict(FILES), "someone/pickled": pickled})) as running:
        yield running


def test_download_takes_weights_and_text_files_but_no_pickles_and_no_folders(server: Hub, tmp_path: Path) -> None:
    directory = hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)
    assert sorted(file.name for file in directory.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "model.safetensors",
    ]
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert not any(name.endswith(".bin") for name in server.downloads())


def test_processor_files_come_without_the_weights_and_the_weights_can_follow(server: Hub, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path, "endpoint": server.endpoint}
    directory = hub.resolve("someone/tiny", patterns=hub.PROCESSOR_FILES, **options)
    assert not (directory / "model.safetensors").exists()
    assert hub.resolve("someone/tiny", **options) == directory
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert server.downloads().count("config.json") == 1


def test_second_load_needs_no_network(server: Hub, tmp_path: Path) -> None:
    first = hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)
    asked = len(server.requests)
    assert hub.resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True) == first
    assert hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=_closed_endpoint()) == first
    assert len(server.requests) == asked


def test_cut_download_continues_where_it_stopped(server: Hub, tmp_path: Path) -> None:
    large = WEIGHTS * 12
    server.repositories["someone/tiny"]["model.safetensors"] = large
    server.cut_after["model.safetensors"] = len(large) - 1
    directory = hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)
    assert (directory / "model.safetensors").read_bytes() == large
    ranges = [r.headers["range"] for r in server.requests if "range" in r.headers]
    assert ranges == [f"bytes={10 * 2**20}-"]  # the client keeps whole chunks of 10 MiB


def test_token_is_sent_as_a_bearer_header_with_every_request(server: Hub, tmp_path: Path) -> None:
    server.token = "hf_secret"
    hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, token="hf_secret")
    assert {r.headers.get("authorization") for r in server.requests} == {"Bearer hf_secret"}


def test_private_model_without_a_token_is_not_found_and_the_error_says_how_to_log_in(
    server: Hub, tmp_path: Path
) -> None:
    server.token = "hf_secret"
    with pytest.raises(ModelNotFoundError, match="token="):
        hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, token=False)


def test_revision_is_looked_up_and_a_commit_is_taken_as_it_is(server: Hub, tmp_path: Path) -> None:
    directory = hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, revision=COMMIT)
    assert directory.name == COMMIT
    with pytest.raises(ModelNotFoundError, match="no branch, tag or commit 'v9'"):
        hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, revision="v9")


def test_unknown_id_says_where_it_was_looked_for_and_what_else_there_is(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        hub.resolve("someone/tinny", cache_dir=tmp_path, endpoint=server.endpoint)
    for part in ("'someone/tinny'", server.endpoint, "spelling", "'nano'"):
        assert part in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_unreachable_hub_is_a_clear_error(tmp_path: Path) -> None:
    endpoint = _closed_endpoint()
    with pytest.raises(ModelNotFoundError, match=f"{endpoint} can't be reached: check the network"):
        hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=endpoint)


def test_local_files_only_without_a_cached_copy_names_the_cure(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="local_files_only=True forbids the download"):
        hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, local_files_only=True)
    assert server.requests == []


def test_cache_with_a_part_of_the_files_is_not_taken_for_the_whole(server: Hub, tmp_path: Path) -> None:
    hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint, patterns=hub.PROCESSOR_FILES)
    with pytest.raises(ModelNotFoundError, match="only a part of 'someone/tiny'"):
        hub.resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True)


def test_repository_with_only_pickles_is_refused_with_the_reason(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"only as pytorch_model.bin.*runs the code"):
        hub.resolve("someone/pickled", cache_dir=tmp_path, endpoint=server.endpoint)
    assert "pytorch_model.bin" not in server.downloads()


def test_refusal_of_the_hub_is_reported_with_its_status(server: Hub, tmp_path: Path) -> None:
    server.status = 403
    with pytest.raises(CheckpointError, match="403"):
        hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)


def test_no_progress_bar_when_stderr_is_not_a_terminal(
    server: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_is_shown_on_a_terminal(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    hub.resolve("someone/tiny", cache_dir=tmp_path, endpoint=server.endpoint)
    assert "Fetching 4 files" in terminal.getvalue()


def test_existing_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert hub.resolve(tmp_path) == tmp_path
    assert hub.resolve(str(tmp_path)) == tmp_path


def test_nothing_and_nano_are_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", tmp_path)
    assert hub.resolve() == tmp_path
    assert hub.resolve("nano") == tmp_path


def test_installation_without_the_bundled_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", tmp_path)
    with pytest.raises(ModelNotFoundError, match="not part of this installation"):
        hub.resolve()


@pytest.mark.parametrize("name", ["./missing", "/missing/directory", "missing", "a/b/c", "../x", "owner/na me", ""])
def test_name_that_is_neither_directory_nor_hub_id_touches_no_network(name: str, server: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no directory"):
        hub.resolve(name, endpoint=server.endpoint)
    assert server.requests == []


def test_id_the_hub_would_never_accept_is_an_error_of_ours(server: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a directory nor a hub id"):
        hub.resolve("owner/na--me..", endpoint=server.endpoint)


def test_file_instead_of_a_directory_says_which_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="Give the directory"):
        hub.resolve(str(file))


def _closed_endpoint() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
