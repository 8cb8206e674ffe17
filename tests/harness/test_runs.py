"""The bundled model through our runner, through VLMEvalKit and through lmms-eval, on the same drawn files."""

from __future__ import annotations

import csv
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest

from smolvlm.evaluation.twins import draw_twin
from tests.harness.runs import (
    WITHOUT_LMMS_EVAL,
    WITHOUT_VLMEVALKIT,
    run_lmms_eval,
    run_ours,
    run_vlmevalkit,
)

pytestmark = [pytest.mark.harness, pytest.mark.skipif(WITHOUT_VLMEVALKIT[0], reason=WITHOUT_VLMEVALKIT[1])]

ROWS = 300
FEW = 24
LMMS_WHOLE = 1000  # lmms-eval takes OCRBench to have that many rows
# Task -> its name in VLMEvalKit, what that calls the score, and how much of it is a score of 1.
SETS: dict[str, tuple[str, str, float]] = {
    "ai2d": ("AI2D_TEST", "split=none|Overall", 1),
    "chartqa": ("ChartQA_TEST", "Overall", 100),
    "docvqa": ("DocVQA_VAL", "Overall", 100),
    "mmmu": ("MMMU_DEV_VAL", "split=validation|Overall", 1),
    "mmstar": ("MMStar", "split=none|Overall", 1),
    "ocrbench": ("OCRBench", "Final Score", FEW),
    "scienceqa": ("ScienceQA_TEST", "split=test|Overall", 1),
    "textvqa": ("TextVQA_VAL", "Overall", 100),
}

# lmms-eval's own task on our rows: its reader, its prompt with what VLMEvalKit's class writes behind it, its scorer.
TASK = """
include: {theirs}
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {rows}}}}}
tag: []
lmms_eval_specific_kwargs: {{default: {{pre_prompt: "", post_prompt: {after}}}}}
generation_kwargs: {{max_new_tokens: 40, temperature: 0, do_sample: false, num_beams: 1, until: []}}
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    draw_twin("ocrbench", folder, ROWS)
    return folder


@pytest.mark.skipif(WITHOUT_LMMS_EVAL[0], reason=WITHOUT_LMMS_EVAL[1])
@pytest.mark.parametrize(("prompts", "after"), [("chat", ""), ("smolvlm2", "\nGive a very brief answer.")])
def test_300_rows_have_the_same_answers_and_scores_in_all_three(
    many: Path, tmp_path: Path, prompts: str, after: str
) -> None:
    ours = run_ours(many, tmp_path / "ours", ["ocrbench"], "--prompts", prompts)
    kit = run_vlmevalkit(many, tmp_path / "kit", ["OCRBench"], "--prompts", prompts)
    lmms = run_lmms_eval(write_task(many / "OCRBench.tsv", tmp_path / "task", after), tmp_path / "lmms", "drawn")
    answers = ours.answers["ocrbench"]
    assert len(answers) == ROWS
    assert kit.answers["OCRBench"] == answers
    assert lmms.answers["drawn"] == answers
    score = ours.metrics["ocrbench"]["figure"]["score"]
    assert kit.metrics["OCRBench"]["Final Score"] == pytest.approx(score * ROWS)
    assert lmms.metrics["drawn"]["ocrbench_accuracy,none"] == pytest.approx(score * ROWS / LMMS_WHOLE)
    assert prompts != "chat" or score > 0.5  # a score of nothing would be no comparison


@pytest.mark.parametrize("prompts", ["smolvlm", "smolvlm2"])
def test_every_image_task_has_the_same_answers_and_scores_in_vlmevalkit(tmp_path: Path, prompts: str) -> None:
    for task in SETS:
        draw_twin(task, tmp_path / "data", FEW)
    ours = run_ours(tmp_path / "data", tmp_path / "ours", list(SETS), "--prompts", prompts)
    sets = [name for name, _, _ in SETS.values()]
    kit = run_vlmevalkit(tmp_path / "data", tmp_path / "kit", sets, "--prompts", prompts)
    for task, (name, metric, whole) in SETS.items():
        assert kit.answers[name] == ours.answers[task], task
        assert kit.metrics[name][metric] / whole == pytest.approx(ours.metrics[task]["figure"]["score"], abs=1e-4), task


def test_a_run_on_docvqas_test_set_ends_with_its_submission(tmp_path: Path) -> None:
    draw_twin("docvqa-test", tmp_path / "data", 6)
    kit = run_vlmevalkit(tmp_path / "data", tmp_path / "kit", ["DocVQA_TEST"])
    (file,) = (tmp_path / "kit").rglob("*_submission.json")
    with (tmp_path / "data" / "DocVQA_TEST.tsv").open(encoding="utf-8", newline="") as lines:
        asked = {row["index"]: int(row["questionId"]) for row in csv.DictReader(lines, delimiter="\t")}
    expected = [{"questionId": asked[row], "answer": text} for row, text in kit.answers["DocVQA_TEST"].items()]
    assert json.loads(file.read_text(encoding="utf-8")) == expected


def test_a_directory_is_a_model_of_its_own_name(tmp_path: Path, copy_of_nano: Callable[[Path], Path]) -> None:
    draw_twin("mathvista", tmp_path / "data", 6)
    model = f"smolvlm:{copy_of_nano(tmp_path / 'tuned')}"
    kit = run_vlmevalkit(tmp_path / "data", tmp_path / "kit", ["MathVista_MINI"], "--mode", "infer", model=model)
    assert [folder.name[-7:] for folder in (tmp_path / "kit").glob("smolvlm-*")] == ["--tuned"]
    ours = run_ours(tmp_path / "data", tmp_path / "ours", ["mathvista"])
    assert kit.answers["MathVista_MINI"] == ours.answers["mathvista"]


def write_task(rows: Path, folder: Path, after: str) -> Path:
    """The rows of a TSV as the hub's parquet, and a task of lmms-eval that reads them."""
    import lmms_eval
    import pyarrow
    from pyarrow import parquet

    csv.field_size_limit(2**31 - 1)
    with rows.open(encoding="utf-8", newline="") as lines:
        read = list(csv.DictReader(lines, delimiter="\t"))
    table = [
        {
            "image": {"bytes": b64decode(row["image"]), "path": ""}, "question": row["question"], "dataset": "drawn",
            "answer": json.loads(row["answer"].replace("'", '"')), "question_type": row["category"],
        }
        for row in read
    ]  # fmt: skip
    image = {"info": {"features": {"image": {"_type": "Image"}}}}
    folder.mkdir()
    whole = pyarrow.Table.from_pylist(table).replace_schema_metadata({"huggingface": json.dumps(image)})
    parquet.write_table(whole, folder / "rows.parquet")
    theirs = Path(lmms_eval.__file__).parent / "tasks" / "ocrbench" / "ocrbench.yaml"
    text = TASK.format(theirs=theirs, name="drawn", rows=folder / "rows.parquet", after=json.dumps(after))
    (folder / "drawn.yaml").write_text(text)
    return folder
