"""`smolvlm tokens`, `smolvlm chat` and `smolvlm doctor`, on a tiny checkpoint."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm import hub
from smolvlm.runtimes.bindings import load_kernels
from smolvlm.vlm import VLM, load
from tests.commands import REPOSITORY, run
from tests.tiny import tiny_checkpoint
from tests.videos import write_video


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), context=512)


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return load(directory)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with cat.png and clip.mp4, made the current one."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cat.png")
    write_video(tmp_path / "clip.mp4", frames=30, rate=10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


# ---- tokens ----


def test_tokens_shows_one_line_a_file_and_what_is_left(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(capsys, ["tokens", "cat.png", "clip.mp4", "--question", "What?", "--model", str(directory)])
    content = [
        {"type": "image", "image": "cat.png"},
        {"type": "video", "video": "clip.mp4"},
        {"type": "text", "text": "What?"},
    ]
    report = vlm.tokens(messages=[{"role": "user", "content": content}])
    header, picture, clip, empty, total = outcome.out.splitlines()
    assert header.split() == ["file", "kind", "pixels", "grid", "tiles", "tokens"] and empty == ""
    assert picture.split()[0].endswith("cat.png") and picture.split()[-1] == str(report.media[0].tokens)
    assert "50 x 40" in picture and "64 x 48" in clip and "video" in clip
    assert clip.split()[-2:] == [str(report.media[1].tiles), str(report.media[1].tokens)]
    assert total.startswith(f"{report.total} tokens: ") and f"{report.left} of 512 are left" in total
    assert (outcome.code, outcome.err) == (0, "")


def test_tokens_says_that_a_request_is_too_large_and_fails(
    directory: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(capsys, ["tokens", *["cat.png"] * 9, "--detail", "high", "--model", str(directory)])
    assert outcome.code == 2 and "too much for a context of 512" in outcome.out


def test_tokens_as_json_is_the_report(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(run(capsys, ["tokens", "cat.png", "--json", "--model", str(directory)]).out)
    report = vlm.tokens("", images=["cat.png"])
    assert (found["total"], found["left"], found["context"]) == (report.total, report.left, 512)
    assert found["media"][0]["tokens"] == report.media[0].tokens


def test_tokens_needs_no_torch(directory: Path, files: Path) -> None:
    program = (
        f"import sys\nfrom smolvlm.cli import main\ncode = main(['tokens', 'cat.png', '--model', {str(directory)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(code, 'torch' in sys.modules)"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert done.stdout.endswith("\n0 False\n"), done.stdout + done.stderr


# ---- chat ----


def test_a_chat_answers_each_line_and_remembers(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "/image cat.png", "What is this?", "And where?", "/save talk.json", "/quit", "never read")
    outcome = run(capsys, ["chat", "--model", str(directory), "--max-new-tokens", "6", "--system", "Be brief."])
    chat = vlm.chat(system="Be brief.")
    first = chat.ask("What is this?", images=["cat.png"], max_new_tokens=6).text
    second = chat.ask("And where?", max_new_tokens=6).text
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{first}\n{second}\n", "")
    assert json.loads((files / "talk.json").read_text()) == chat.transcript()


def test_files_on_the_command_line_belong_to_the_first_question_of_a_chat(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "What moves?")
    outcome = run(capsys, ["chat", "clip.mp4", "--model", str(directory), "--max-new-tokens", "6"])
    assert outcome.out == vlm.ask("What moves?", videos=["clip.mp4"], max_new_tokens=6).text + "\n"


def test_a_chat_goes_on_after_a_mistake_and_ends_with_a_failure(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistakes = ["/image dog.png", "/image", "/dance", "/save", "/save away/talk.json"]
    type_lines(monkeypatch, *mistakes, "Who are you?")
    outcome = run(capsys, ["chat", "--model", str(directory), "--max-new-tokens", "6"])
    assert outcome.out == vlm.ask("Who are you?", max_new_tokens=6).text + "\n"
    errors = outcome.err.splitlines()
    assert len(errors) == len(mistakes) and all(line.startswith("smolvlm: error: ") for line in errors)
    assert "no file dog.png" in errors[0] and "which file?" in errors[1] and "no command /dance" in errors[2]
    assert outcome.code == 2


def test_reset_forgets_and_history_shows(
    vlm: VLM, directory: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "/image cat.png", "What?", "/reset", "Who are you?", "/history")
    outcome = run(capsys, ["chat", "--model", str(directory), "--max-new-tokens", "3"])
    answer = vlm.ask("Who are you?", max_new_tokens=3).text
    assert outcome.out.endswith(f"\n{answer}\nuser: Who are you?\nassistant: {answer}\n")


# ---- doctor ----


def test_doctor_finds_everything_in_order_here(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", directory)
    outcome = run(capsys, ["doctor"])
    assert outcome.code == 0 and "PROBLEM" not in outcome.out
    for subject in ("smolvlm", "python", "torch", "device", "video codecs", "picture formats", "model cache"):
        assert any(line[8:].startswith(subject) for line in outcome.out.splitlines()), subject
    assert "bundled model     answers " in outcome.out and "Everything that answers need is here." in outcome.out


def test_doctor_fails_with_a_cure_when_the_bundled_model_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", tmp_path)
    findings = {one["subject"]: one for one in json.loads(run(capsys, ["doctor", "--json"]).out)}
    assert findings["bundled model"]["level"] == "problem" and findings["bundled model"]["cure"]
    assert findings["torch"]["level"] == "ok"
    assert run(capsys, ["doctor"]).code == 1


def test_doctor_names_the_kernels_or_how_to_get_them(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", directory)
    monkeypatch.setattr("smolvlm.runtimes.bindings.kernels_name", lambda: "avx2")
    assert (
        "ok      native kernels    AVX2, no products of bf16 or 8 bits; large models in float32 ("
        in run(capsys, ["doctor"]).out
    )
    monkeypatch.setattr("smolvlm.runtimes.bindings.kernels_name", lambda: "avx512")
    assert "AVX-512 with bf16 and VNNI; large models in bfloat16\n" in run(capsys, ["doctor"]).out
    monkeypatch.undo()
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", directory)
    monkeypatch.setattr("smolvlm.runtimes.bindings.LIBRARY", directory / "none.so")
    load_kernels.cache_clear()
    outcome = run(capsys, ["doctor"])
    load_kernels.cache_clear()
    assert (
        outcome.code == 0 and "native kernels    were not compiled" in outcome.out and "apt install gcc" in outcome.out
    )


def test_doctor_names_the_cure_of_a_missing_package_and_codec(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_BUNDLED_DIRECTORY", directory)
    monkeypatch.setattr("smolvlm.cli.doctor.PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr("smolvlm.cli.doctor.CODECS", ("h264", "no_such_codec"))
    outcome = run(capsys, ["doctor"])
    assert outcome.code == 1
    assert (
        "PROBLEM no-such-package   is not installed" in outcome.out and "-> pip install no-such-package" in outcome.out
    )
    assert "warning video codecs      no decoder for no_such_codec" in outcome.out
