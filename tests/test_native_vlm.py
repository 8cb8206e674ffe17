"""The whole hall on the native runtime: everything a VLM does gives what it gives with PyTorch."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm import scenes
from smolvlm.cli import main
from smolvlm.errors import ConfigError, InputError
from smolvlm.runtimes.kernels import build as kernels
from smolvlm.vlm import VLM, load
from tests.motors import question
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.skipif(not kernels.LIBRARY.is_file(), reason="the kernels were not built: no C compiler")


@pytest.fixture(scope="module")
def both() -> tuple[VLM, VLM]:
    return load(runtime="native"), load(dtype="float32")


@pytest.mark.parametrize("skill", scenes.SKILLS)
def test_nano_answers_the_same_on_both_runtimes(both: tuple[VLM, VLM], skill: str) -> None:
    ours, theirs = both
    requests = [question(skill, index, 40) for index in range(3)]
    expected = [answer.token_ids for answer in theirs.ask_batch(requests)]
    assert [answer.token_ids for answer in ours.ask_batch(requests)] == expected
    assert [ours.ask(**request).token_ids for request in requests] == expected
    stream = ours.stream(**requests[0])
    assert "".join(stream) == stream.answer.text and stream.answer.token_ids == expected[0]


def test_guessing_what_repeats_changes_no_answer(both: tuple[VLM, VLM]) -> None:
    guessing = load(runtime="native", lookup_tokens=8)
    for skill in ("scene", "text", "read"):
        assert guessing.ask(**question(skill, 1, 40)).token_ids == both[0].ask(**question(skill, 1, 40)).token_ids


def test_decisions_are_the_same_on_both_runtimes(both: tuple[VLM, VLM]) -> None:
    picture = scenes.draw("scene", 5, 0, "test").pictures[0]
    for choices in (("yes", "no"), ("dark red", "dark blue", "green")):
        ours, theirs = (vlm.decide("Is it red?", images=[picture], choices=choices) for vlm in both)
        assert ours.choice == theirs.choice and ours.label_mass == pytest.approx(theirs.label_mass, rel=1e-3)
        assert ours.probabilities == pytest.approx(theirs.probabilities, rel=1e-3)


def test_features_are_reused_and_those_of_other_weights_refused(both: tuple[VLM, VLM], tmp_path: Path) -> None:
    ours = both[0]
    picture = scenes.draw("scene", 5, 0, "test").pictures[0]
    features = ours.encode(images=[picture, picture])
    whole = ours.ask("How many pictures?", images=[picture, picture])
    assert ours.ask("How many pictures?", features=features).token_ids == whole.token_ids
    other = load(tiny_checkpoint(tmp_path), runtime="native")
    with pytest.raises(InputError, match="other weights"):
        other.ask("What?", features=features)


def test_threads_share_the_engine_and_get_their_own_answers(both: tuple[VLM, VLM]) -> None:
    ours = both[0]
    requests = [question(skill, index, 40) for skill in ("scene", "text") for index in range(3)]
    expected = [ours.ask(**request).text for request in requests]
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = "".join(ours.stream(**requests[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(requests))] == expected


def test_a_stream_that_is_closed_leaves_the_engine(both: tuple[VLM, VLM]) -> None:
    ours = both[0]
    stream = ours.stream(**question("scene", 1, 40))
    next(stream)
    engine = ours._driver._engine
    assert engine.busy
    stream.close()
    assert not engine.busy
    assert ours.ask(**question("scene", 1, 40)).text


def test_a_forgotten_stream_collected_during_a_step_holds_no_one_up(
    both: tuple[VLM, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = both[0]
    expected = ours.ask(**question("scene", 2, 40)).text
    forgotten = [ours.stream(**question("scene", 1, 40))]
    next(forgotten[0])
    forgotten.append(forgotten)  # a cycle: only the garbage collector finds it
    engine = ours._driver._engine
    step = engine.step

    def collecting() -> object:
        gc.collect()
        return step()

    monkeypatch.setattr(engine, "step", collecting)
    del forgotten
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(ours.ask(**question("scene", 2, 40)).text), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert found == [expected] and not engine.busy


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, smolvlm; from PIL import Image; vlm = smolvlm.load(runtime='native');"
        "answer = vlm.ask('What colour is this?', images=[Image.new('RGB', (64, 64), 'red')]);"
        "vlm.decide('Red?'); print(answer.text, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1:] == ["False"], done.stderr


def test_wrong_arguments_are_named(both: tuple[VLM, VLM]) -> None:
    with pytest.raises(ConfigError, match="float32, bfloat16, int8, int8-vision, int4"):
        load(runtime="native", dtype="int2")
    with pytest.raises(ConfigError, match="not on cuda"):
        load(runtime="native", device="cuda")
    with pytest.raises(ConfigError, match="torch, native"):
        load(runtime="tpu")
    with pytest.raises(ConfigError, match="attn_implementation"):
        load(runtime="native", attn_implementation="eager")
    with pytest.raises(InputError, match=r"\(2, 3, 64, 64\).*\(tiles, 3, 128, 128\)"):
        both[0]._driver.motor.encode(np.zeros((2, 3, 64, 64), np.float32))
    with pytest.raises(InputError, match="runtime='torch'"):
        _ = both[0].model


def test_the_command_answers_on_the_native_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (128, 128), "white").save(tmp_path / "p.png")
    assert main(["ask", str(tmp_path / "p.png"), "Who are you?", "--runtime", "native", "--dtype", "int8"]) == 0
    assert capsys.readouterr().out.strip()
