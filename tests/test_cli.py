"""The command line, run as users run it: what is printed where, and with which exit code.

Most tests call main() in this process with a tiny checkpoint; what depends on pipes and terminals runs as a process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smolvlm
from smolvlm.vlm import VLM, load
from tests.commands import REPOSITORY, process, run
from tests.tiny import tiny_checkpoint
from tests.videos import write_video


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return load(directory)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


# ---- ask ----


def test_ask_prints_the_answer_and_nothing_else(
    vlm: VLM, directory: Path, cat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", str(cat), "What is this?", "--model", str(directory), "--max-new-tokens", "9"]
    outcome = run(capsys, words)
    expected = vlm.ask("What is this?", images=[cat], max_new_tokens=9)
    assert (outcome.code, outcome.out, outcome.err) == (0, expected.text + "\n", "")


def test_options_of_the_answer_reach_the_model(
    vlm: VLM, directory: Path, cat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", str(cat), "What?", "--model", str(directory), "--max-new-tokens", "9", "--temperature", "1.2"]
    words += ["--seed", "3", "--top-p", "0.9", "--system", "Be brief.", "--detail", "low"]
    outcome = run(capsys, words)
    expected = vlm.ask(
        "What?", images=[cat], max_new_tokens=9, temperature=1.2, seed=3, top_p=0.9, system="Be brief.", detail="low"
    )
    assert outcome.out == expected.text + "\n"


def test_json_is_one_object_with_the_answer_its_cost_and_the_frames_seen(
    vlm: VLM, directory: Path, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=30, rate=10)
    words = ["ask", str(cat), str(clip), "What?", "--json", "--model", str(directory), "--max-new-tokens", "4"]
    outcome = run(capsys, [*words, "--fps", "2", "--max-frames", "4"])
    content = [
        {"type": "image", "image": str(cat)},
        {"type": "video", "video": str(clip)},
        {"type": "text", "text": "What?"},
    ]
    expected = vlm.ask(messages=[{"role": "user", "content": content}], max_new_tokens=4, fps=2, max_frames=4)
    found = json.loads(outcome.out)
    assert outcome.code == 0 and outcome.out.count("\n") == 1
    assert found["answer"] == expected.text
    assert found["prompt_tokens"] == expected.prompt_tokens and found["new_tokens"] == len(expected.token_ids)
    assert found["finish_reason"] == expected.finish_reason and found["total_s"] > 0
    assert [seen["indices"] for seen in found["frames"]] == [list(seen.indices) for seen in expected.frames]
    assert 0 < len(found["frames"][0]["timestamps_s"]) <= 4


def test_what_a_file_is_is_decided_by_its_content(
    vlm: VLM, directory: Path, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    misnamed = write_video(tmp_path / "clip.mp4").rename(tmp_path / "clip.png")
    words = ["ask", str(misnamed), "What?", "--json", "--model", str(directory), "--max-new-tokens", "2"]
    assert len(json.loads(run(capsys, words).out)["frames"]) == 1


def test_a_picture_may_come_on_stdin(
    vlm: VLM, directory: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(cat.read_bytes())))
    outcome = run(capsys, ["ask", "-", "What?", "--model", str(directory), "--max-new-tokens", "5"])
    assert outcome.out == vlm.ask("What?", images=[cat], max_new_tokens=5).text + "\n"


def test_a_question_may_come_through_a_pipe(
    vlm: VLM, directory: Path, cat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is this?\n"))
    outcome = run(capsys, ["ask", str(cat), "--model", str(directory), "--max-new-tokens", "5"])
    assert outcome.out == vlm.ask("What is this?", images=[cat], max_new_tokens=5).text + "\n"


def test_with_the_question_option_every_word_is_a_file(
    vlm: VLM, directory: Path, cat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", "--question", "Same?", str(cat), str(cat), "--model", str(directory), "--max-new-tokens", "5"]
    assert run(capsys, words).out == vlm.ask("Same?", images=[cat, cat], max_new_tokens=5).text + "\n"


def test_a_question_needs_no_file(vlm: VLM, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, ["ask", "Who are you?", "--model", str(directory), "--max-new-tokens", "5"])
    assert outcome.out == vlm.ask("Who are you?", max_new_tokens=5).text + "\n"


# ---- what is typed wrong ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aks", "x"], "there is no command 'aks': use one of ask, chat, highlights"),
        (["ask"], "nothing was asked. Example: smolvlm ask picture.png"),
        (["ask", "cat.png"], "there is no question, cat.png is a file. Example: smolvlm ask cat.png"),
        (["ask", "cta.png", "What?"], "there is no file cta.png. Did you mean cat.png?"),
        (["ask", "cta.png"], "there is no file cta.png. Did you mean cat.png?"),
        (["ask", "What is this?", "cat.png"], "there is no file 'What is this?'. If that is the question, put it last"),
        (["ask", "away/cat.png", "What?"], "the directory away doesn't exist"),
        (["chat", "."], ". is a directory: name the files in it"),
        (["ask", "-", "-", "What?"], "'-' is given twice"),
        (["ask", "cat.png", "  "], "the question is empty"),
        (["ask", "cat.png", "What?", "--fps", "0"], "argument --fps: 0 can't be used: it must be above 0"),
        (["ask", "cat.png", "What?", "--max-new-tokens", "0"], "argument --max-new-tokens: 0 is too small"),
        (["ask", "cat.png", "What?", "--max-new", "5"], "unrecognized arguments: --max-new"),
        (["ask", "cat.png", "What?", "--detail", "best"], "argument --detail: invalid choice: 'best'"),
        (["ask", "cat.png", "What?", "--temperature", "-1"], "temperature=-1.0 is out of range"),
        (["tokens"], "the following arguments are required: FILE"),
        (["tokens", "cta.png"], "there is no file cta.png. Did you mean cat.png?"),
        (["chat", "cta.png"], "there is no file cta.png"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_one_line_with_its_cure(
    words: list[str], message: str, cat: Path, directory: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(cat.parent)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    if len(words) > 1:
        words = [*words, "--model", str(directory)]
    outcome = run(capsys, words)
    assert message in outcome.error
    assert outcome.code == 2


def test_an_unforeseen_failure_is_one_line_unless_debugging(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr("smolvlm.vlm.load", broken)
    outcome = run(capsys, ["ask", "Who?", "--model", str(directory)])
    assert outcome.code == 1 and "Unexpected RuntimeError: out of luck (SMOLVLM_DEBUG=1" in outcome.error
    monkeypatch.setenv("SMOLVLM_DEBUG", "1")
    with pytest.raises(RuntimeError, match="out of"):
        run(capsys, ["ask", "Who?", "--model", str(directory)])


def test_control_c_ends_with_130_and_no_traceback(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smolvlm.vlm.load", interrupted)
    outcome = run(capsys, ["ask", "Who?", "--model", str(directory)])
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "")


# ---- processes, pipes and terminals ----


def test_help_and_version_answer_in_under_300_ms() -> None:
    for words in (["--help"], ["ask", "--help"], ["--version"]):
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            out, _ = process(*words).communicate(timeout=60)
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.3, f"smolvlm {' '.join(words)} took {min(seconds):.2f} s"
    assert out.decode() == f"smolvlm {smolvlm.__version__}\n"


def test_a_reader_that_leaves_ends_the_command_quietly(directory: Path) -> None:
    long = ("--max-new-tokens", "1500", "--temperature", "3", "--seed", "3")  # with this seed 1,451 tokens come
    command = process("ask", "Who are you?", "--model", directory, *long)
    assert command.stdout is not None and command.stderr is not None
    command.stdout.read(1)
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(timeout=60) == 141


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are Unix's")
def test_progress_goes_to_a_watched_terminal_and_never_into_a_pipe(directory: Path) -> None:
    import pty

    words = ("ask", "Who are you?", "--model", directory, "--max-new-tokens", "4")
    ours, theirs = pty.openpty()
    watched = process(*words, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as screen:  # OSError: the other end closed
        while part := screen.read(4096):
            shown += part
    out, _ = watched.communicate(timeout=60)
    quiet_out, quiet_err = process(*words).communicate(timeout=60)
    assert b"Loading" in shown and b"cut after 4 tokens" in shown
    assert quiet_err == b"" and out == quiet_out and b"\x1b" not in out


def test_the_module_and_the_installed_command_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"smolvlm": "smolvlm.cli:main"}
    assert run(capsys, []).code == 2
