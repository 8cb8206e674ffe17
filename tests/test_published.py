"""Published tables: the document's own figures, which score a checkpoint has, and the protocol of each."""

from __future__ import annotations

import pytest

from smolvlm.evaluation.published import protocol_of, published_score, tables
from smolvlm.evaluation.task import Protocol
from smolvlm.evaluation.tasks import TASKS

# Not tasks, or not one that can be scored here.
OTHER_COLUMNS = {"gpu_gb", "average", "docvqa-test"}

# The document's tables as it prints them: columns, then rows.
DOCUMENT = {
    "mathvista mmmu ocrbench mmstar ai2d chartqa scienceqa textvqa docvqa": """
        SmolVLM2-2.2B-Instruct | 51.5 | 42 | 72.9 | 46 | 70 | 68.84 | 90 | 73.21 | 79.98
        SmolVLM-Instruct | 43.9 | 38.3 | 65.5 | 41.8 | 84.5 | 71.6 | 84.5 | 72.1 | 79.7""",
    "videomme mlvu mvbench": """
        SmolVLM2-2.2B-Instruct | 52.1 | 55.2 | 46.27
        SmolVLM2-500M-Video-Instruct | 42.2 | 47.3 | 39.73
        SmolVLM2-256M-Video-Instruct | 33.7 | 40.6 | 32.7""",
    "mmmu mathvista mmstar docvqa-test textvqa gpu_gb": """
        SmolVLM-Instruct | 38.8 | 44.6 | 42.1 | 81.6 | 72.7 | 5.02
        Qwen2-VL 2B | 41.1 | 47.8 | 47.5 | 90.1 | 79.7 | 13.70
        InternVL2 2B | 34.3 | 46.3 | 49.8 | 86.9 | 73.4 | 10.52
        PaliGemma 3B 448px | 34.9 | 28.7 | 48.3 | 32.2 | 56.0 | 6.72
        moondream2 | 32.4 | 24.3 | 40.3 | 70.5 | 65.2 | 3.87
        MiniCPM-V-2 | 38.2 | 39.8 | 39.1 | 71.9 | 74.1 | 7.88
        MM1.5 1B | 35.8 | 37.2 | 0.0 | 81.0 | 72.5""",
    "cinepile": "SmolVLM-Instruct | 27.14",
}


@pytest.mark.parametrize("columns", DOCUMENT)
def test_the_documents_tables_are_there_number_by_number(columns: str) -> None:
    for line in DOCUMENT[columns].strip().split("\n"):
        model, *printed = (cell.strip() for cell in line.split("|"))
        row = dict(zip(columns.split(), map(float, printed), strict=False))
        assert any(table.scores.get(model) == row for table in tables()), model


def test_every_column_is_a_task_and_every_table_says_its_source() -> None:
    for table in tables():
        assert table.title and table.source and set(table.unsure) <= set.union(*map(set, table.scores.values()))
        for scores in table.scores.values():
            assert scores.keys() <= TASKS.keys() | OTHER_COLUMNS
            assert all(0 <= value <= 100 for value in scores.values())


@pytest.mark.parametrize(
    ("checkpoint", "task", "value"),
    [
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "chartqa", 68.84),
        ("SmolVLM2-500M-Video-Instruct", "mvbench", 39.73),
        ("/models/SmolVLM-256M-Instruct/", "docvqa", 58.3),
        ("C:\\models\\smolvlm2-2.2b-instruct", "worldsense", 36.2),
        ("SmolVLM-Instruct", "ai2d", 64.0),  # not the misprint
        ("SmolVLM-Instruct", "mmmu", 38.3),  # the later table
        ("SmolVLM-Instruct", "cinepile", 27.14),
    ],
)
def test_a_checkpoint_is_known_by_its_name(checkpoint: str, task: str, value: float) -> None:
    found = published_score(checkpoint, task)
    assert found is not None and found.value == value


def test_a_score_that_only_digests_confirm_is_unsure() -> None:
    assert (found := published_score("SmolVLM2-2.2B-Instruct", "tempcompass")) is not None and found.unsure
    assert (found := published_score("SmolVLM2-2.2B-Instruct", "worldsense")) is not None and not found.unsure


@pytest.mark.parametrize(
    ("checkpoint", "task"),
    [("nano", "mmmu"), ("runs/SmolVLM2-2.2B-mine", "mmmu"), ("SmolVLM-256M-Instruct", "videomme"), ("", "mmmu")],
)
def test_others_have_no_published_score(checkpoint: str, task: str) -> None:
    assert published_score(checkpoint, task) is None


@pytest.mark.parametrize(
    ("checkpoint", "wrapper", "side", "frames"),
    [
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm2", 384, 64),
        ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm2", 512, 64),
        ("SmolVLM2-2.2B-Instruct/checkpoint-25", "smolvlm2", 384, 64),  # the harness looks for it anywhere in the path
        ("HuggingFaceTB/SmolVLM-Instruct", "smolvlm", 384, 50),
        ("HuggingFaceTB/SmolVLM-500M-Instruct", "smolvlm", 512, 50),
        ("nano", "smolvlm2", 512, 64),
    ],
)
def test_the_protocol_is_that_of_the_published_tables(checkpoint: str, wrapper: str, side: int, frames: int) -> None:
    expected = Protocol(wrapper=wrapper, frame_side=side, frames=frames)  # type: ignore[arg-type]
    assert protocol_of(checkpoint) == expected
    assert (expected.mode, expected.fps) == ("vlmevalkit", 1.0)
