"""The adapters to other harnesses, as far as they need none: requests, options, the submission. See tests/harness."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import smolvlm
from smolvlm.errors import DataError, InputError, MissingDependencyError, SmolVLMError
from smolvlm.evaluation.harness import lmms_eval, vlmevalkit
from smolvlm.evaluation.harness.docvqa import write_submission
from smolvlm.evaluation.harness.vlmevalkit_messages import request_for, turns_of
from smolvlm.evaluation.records import Record, write_records
from smolvlm.evaluation.task import Protocol

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
PICTURE = str(Path(smolvlm.__file__).parent / "assets" / "demo" / "picture.png")
VIDEO = str(Path(smolvlm.__file__).parent / "assets" / "demo" / "video.mp4")
SHOWN = {"type": "image", "value": PICTURE}
TURNS = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


# ---- VLMEvalKit: messages ----


def test_a_message_about_a_picture_is_asked_in_the_wrapper_of_the_protocol() -> None:
    message = [SHOWN, {"type": "text", "value": "What is it?"}]
    request = request_for(message, "OCRBench", Protocol())
    body = "<image>What is it?\nGive a very brief answer."
    assert request["prompt"] == f"<|im_start|>User:{body}<end_of_utterance>\nAssistant:"
    assert (request["detail"], request["max_new_tokens"]) == ("high", 2048)
    chat = request_for(message, "OCRBench", Protocol(wrapper="chat", max_new_tokens=7))
    assert "prompt" not in chat and chat["max_new_tokens"] == 7


def test_frames_are_one_tile_each_and_at_most_as_many_as_the_protocol_shows() -> None:
    message = [*[SHOWN] * 5, {"type": "text", "value": "What moves?"}]
    request = request_for(message, "Video-MME", Protocol(frames=2, frame_side=64))
    assert [max(picture.size) for picture in request["images"]] == [64, 64]
    assert "Frame from 00:00: <image> Frame from 00:04: <image> \n" in request["prompt"]
    assert request["detail"] == "low"
    as_pictures = request_for(message, "Video-MME", Protocol(wrapper="smolvlm", frames=2))
    assert len(as_pictures["images"]) == 5 and as_pictures["detail"] == "high"


def test_a_video_itself_is_for_the_models_own_template() -> None:
    message = [
        {"type": "text", "value": "Look well.", "role": "system"},
        {"type": "video", "value": VIDEO},
        {"type": "text", "value": "What moves?"},
        {"type": "text", "value": "Best option:(", "role": "assistant"},
    ]
    request = request_for(message, "MVBench", Protocol(wrapper="chat", frames=8))
    assert [turn["role"] for turn in request["messages"]] == ["system", "user"]
    assert request["messages"][1]["content"][0] == {"type": "video", "video": VIDEO, "max_frames": 8, "fps": 1.0}
    assert smolvlm.load().tokens(messages=request["messages"]).total > 0
    with pytest.raises(InputError, match="video"):
        request_for(message, "WorldSense", Protocol())


def test_several_turns_keep_their_pictures() -> None:
    turns = [
        {"role": "user", "content": [SHOWN, {"type": "text", "value": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "A drawing."}]},
        {"role": "user", "content": [{"type": "text", "value": "Of what?"}]},
    ]
    request = turns_of(turns, Protocol(max_new_tokens=8))
    assert smolvlm.load().ask(**request).text


# ---- VLMEvalKit: the launcher, with a stand-in for the harness ----


@pytest.fixture()
def harness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Its package, table and class as far as we touch them, and a run.py that answers and notes how it was called."""
    package, script = ModuleType("vlmeval"), tmp_path / "kit" / "run.py"
    package.__file__ = str(tmp_path / "kit" / "vlmeval" / "__init__.py")
    script.parent.mkdir()
    found = SimpleNamespace(supported_VLM={"SmolVLM2": None}, BaseModel=object, script=script)
    for name in ("vlmeval", "vlmeval.config", "vlmeval.vlm", "vlmeval.vlm.base"):
        monkeypatch.setitem(sys.modules, name, package if name == "vlmeval" else ModuleType(name))
    sys.modules["vlmeval.config"].supported_VLM = found.supported_VLM  # type: ignore[attr-defined]
    sys.modules["vlmeval.vlm.base"].BaseModel = found.BaseModel  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "smolvlm.evaluation.harness.vlmevalkit_model", raising=False)
    return found


def test_our_models_stand_beside_the_harnesss(harness: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ["smolvlm", "smolvlm:org/SmolVLM-256M-Instruct", "smolvlm:/runs/a b", "SmolVLM2"]
    names = vlmevalkit.register(models, {"max_new_tokens": 5})
    assert names == ["smolvlm", "smolvlm-org--SmolVLM-256M-Instruct", "smolvlm-runs--a-b", "SmolVLM2"]
    assert [made and made.args for made in map(harness.supported_VLM.get, names)] == [
        (None,), ("org/SmolVLM-256M-Instruct",), ("/runs/a b",), None,
    ]  # fmt: skip
    model = harness.supported_VLM["smolvlm"]()
    assert model.INTERLEAVE and model.is_api and not model.VIDEO_LLM
    assert model.protocol == Protocol(max_new_tokens=5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not model.is_api  # which the harness has for one process alone
    answer = model.generate_inner([SHOWN, {"type": "text", "value": "What is it?"}], "MMStar")
    asked = request_for([SHOWN, {"type": "text", "value": "What is it?"}], "MMStar", model.protocol)
    assert answer == smolvlm.load().ask(**asked).text.strip()
    with pytest.raises(InputError, match="names no checkpoint"):
        vlmevalkit.register(["smolvlm:"], {})


def test_a_checkpoint_is_asked_as_its_published_scores_were_measured() -> None:
    first = vlmevalkit.protocol_for("HuggingFaceTB/SmolVLM-Instruct", None, None, None)
    assert (first.wrapper, first.frame_side) == ("smolvlm", 384)
    assert vlmevalkit.protocol_for("/runs/mine", None, None, None).wrapper == "smolvlm2"
    chosen = vlmevalkit.protocol_for(None, "chat", 256, 9)
    assert (chosen.wrapper, chosen.frame_side, chosen.max_new_tokens) == ("chat", 256, 9)
    with pytest.raises(InputError, match="no wrapper 'qwen'"):
        vlmevalkit.protocol_for(None, "qwen", None, None)


RUN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1]) / "smolvlm" / "T1"
folder.mkdir(parents=True)
(folder / "status.json").write_text(json.dumps({"datasets": SETS}))
(folder / "smolvlm_DocVQA_TEST.tsv").write_text("index\\tquestionId\\tprediction\\n0\\t77\\tYes \\n")
(folder / "argv.json").write_text(json.dumps(sys.argv[1:]))
"""


def test_what_isnt_ours_on_the_command_line_is_the_harnesss(harness: SimpleNamespace, tmp_path: Path) -> None:
    harness.script.write_text(f"SETS = {{'DocVQA_TEST': {{'skip_reason': 'no truth'}}}}\n{RUN}")
    before, work = list(sys.argv), str(tmp_path / "work")
    words = ["--data", "MMStar", "DocVQA_TEST", "--model", "smolvlm", "--dtype", "float32", "--mode", "infer"]
    vlmevalkit.main([*words, "--work-dir", work])
    folder = tmp_path / "work" / "smolvlm" / "T1"
    told = ["--model", "smolvlm", "--work-dir", work, "--data", "MMStar", "DocVQA_TEST", "--mode", "infer"]
    assert json.loads((folder / "argv.json").read_text()) == told
    assert json.loads((folder / "smolvlm_DocVQA_TEST_submission.json").read_text()) == [
        {"questionId": 77, "answer": "Yes"}
    ]
    assert sys.argv == before


def test_a_data_set_that_the_harness_gave_up_is_a_failure(harness: SimpleNamespace, tmp_path: Path) -> None:
    harness.script.write_text(f"SETS = {{'A': {{'metrics': {{'x': 1}}}}, 'B': {{'error_message': 'no'}}}}\n{RUN}")
    with pytest.raises(SmolVLMError, match="gave up B:"):
        vlmevalkit.launch(["--model", "smolvlm", "--work-dir", str(tmp_path / "work")])


def test_without_a_run_script_the_harness_is_asked_for_as_a_clone(harness: SimpleNamespace) -> None:
    with pytest.raises(MissingDependencyError, match="a clone of it"):
        vlmevalkit.launch(["--model", "smolvlm"])


@pytest.mark.skipif(importlib.util.find_spec("vlmeval") is not None, reason="VLMEvalKit is installed here")
def test_without_the_harness_its_absence_is_told_in_a_line() -> None:
    with pytest.raises(SystemExit, match="VLMEvalKit can't be imported.*git clone"):
        vlmevalkit.main(["--data", "MMStar", "--model", "smolvlm"])


# ---- lmms-eval ----


def test_greedy_unless_a_task_asks_for_sampling() -> None:
    def settings(**given: Any) -> dict[str, Any]:
        request = dict(lmms_eval.request_for(TURNS, given, seed=3))
        assert request.pop("messages") == TURNS and request.pop("detail") == "high"
        return request

    assert settings() == settings(temperature=0, top_p=1.0, num_beams=1, image_aspect_ratio="pad") == {}
    assert settings(temperature=0.7, do_sample=False, until=[], max_new_tokens=5) == {"max_new_tokens": 5}
    assert settings(temperature=0.7, top_p=0.9) == {"temperature": 0.7, "top_p": 0.9, "seed": 3}
    assert settings(do_sample=True, top_k=4) == {"temperature": 1.0, "top_k": 4, "seed": 3}
    assert settings(until=["\n\n"], repetition_penalty=1.2) == {"stop": ["\n\n"], "repetition_penalty": 1.2}
    with pytest.raises(InputError, match="num_beams=4"):
        settings(num_beams=4)


def test_a_part_of_a_video_is_refused_and_not_taken_for_the_whole() -> None:
    part = [{"role": "user", "content": [{"type": "video", "video": VIDEO, "video_start": 1.0}]}]
    with pytest.raises(InputError, match="part of a video"):
        lmms_eval.request_for(part, {}, 0)


def test_requests_of_lmms_eval_are_requests_of_ours() -> None:
    vlm = smolvlm.load()
    shown = [{"role": "user", "content": [{"type": "image", "image": Image.open(PICTURE)}, *TURNS[0]["content"]]}]
    settings = {"max_new_tokens": 4, "until": "zzz"}
    (answer,) = vlm.ask_batch([lmms_eval.request_for(shown, settings, 0)])
    assert answer.text == vlm.ask("Hi", images=PICTURE, detail="high", max_new_tokens=4).text


def test_the_entry_point_names_what_is_there() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    found = project["entry-points"]["lmms_eval.models"]
    assert found == {lmms_eval.MODEL: f"{lmms_eval.__name__}:{lmms_eval.manifest.__name__}"}
    module, _, name = lmms_eval.CLASS.rpartition(".")
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None and f"class {name}(" in Path(spec.origin).read_text()


# ---- DocVQA's submission ----


def test_a_submission_is_made_of_our_records(tmp_path: Path) -> None:
    records = [
        Record("docvqa-test", "57344", "Who?", (), output=" “Ann” \n"),
        Record("docvqa", "1", "Where?", ("Here",), output="There"),
        Record("docvqa-test", "57345", "When?", (), status="failed", reason="no picture"),
    ]
    write_records(tmp_path / "records.jsonl", records)
    assert write_submission(tmp_path / "records.jsonl", tmp_path / "upload.json") == 2
    assert json.loads((tmp_path / "upload.json").read_text(encoding="utf-8")) == [
        {"questionId": 57344, "answer": "“Ann”"}, {"questionId": 57345, "answer": ""},
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [".tsv", ".json", ".xlsx"])
def test_a_submission_is_made_of_the_harnesss_predictions(tmp_path: Path, ending: str) -> None:
    rows: list[dict[str, Any]] = [
        {"index": 5, "question": "Who?\tWho", "prediction": "Ann"}, {"index": 6, "question": "2", "prediction": ""},
    ]  # fmt: skip
    file = tmp_path / f"smolvlm_DocVQA_TEST{ending}"
    if ending == ".json":
        file.write_text(json.dumps(rows))
    elif ending == ".tsv":
        with file.open("w", newline="") as lines:
            table = csv.DictWriter(lines, rows[0], delimiter="\t", quoting=csv.QUOTE_ALL)
            table.writeheader()
            table.writerows(rows)
    else:
        openpyxl = pytest.importorskip("openpyxl", reason="spreadsheets need openpyxl, which isn't installed")
        book = openpyxl.Workbook()
        for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
            book.active.append(cells)
        book.save(file)
    write_submission(file, tmp_path / "upload.json")
    assert json.loads((tmp_path / "upload.json").read_text()) == [
        {"questionId": 5, "answer": "Ann"}, {"questionId": 6, "answer": ""},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", "{", "is damaged"),
        ("a.json", '[{"index": 1, "answer": "x"}]', "needs a prediction"),
        ("a.json", '[{"index": 1, "prediction": "x"}, {"index": 1, "prediction": "y"}]', "question 1 twice"),
        ("a.jsonl", "", "holds no answers"),
        ("a.txt", "", "can't be read"),
    ],
)
def test_predictions_that_make_no_submission_are_refused(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        write_submission(tmp_path / name, tmp_path / "upload.json")
    assert not (tmp_path / "upload.json").exists()
