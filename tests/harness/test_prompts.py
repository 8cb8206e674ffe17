"""What we send to the model, against what VLMEvalKit's own SmolVLM and SmolVLM2 classes send: the classes run here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import smolvlm
from smolvlm.evaluation.harness.vlmevalkit_messages import VIDEO_SETS, request_for
from smolvlm.evaluation.task import Protocol
from smolvlm.evaluation.tasks import find_task
from smolvlm.evaluation.twins import draw_twin
from tests.harness.runs import WITHOUT_VLMEVALKIT

pytestmark = [pytest.mark.harness, pytest.mark.skipif(WITHOUT_VLMEVALKIT[0], reason=WITHOUT_VLMEVALKIT[1])]

ROWS = 6
SETS = {
    "ai2d": "AI2D_TEST",
    "chartqa": "ChartQA_TEST",
    "docvqa": "DocVQA_VAL",
    "docvqa-test": "DocVQA_TEST",
    "mathvista": "MathVista_MINI",
    "mmmu": "MMMU_DEV_VAL",
    "mmstar": "MMStar",
    "ocrbench": "OCRBench",
    "scienceqa": "ScienceQA_TEST",
    "textvqa": "TextVQA_VAL",
}
OTHERS = ("MMBench_DEV_EN", "HallusionBench", "MME", "SEEDBench_IMG", "RealWorldQA")
QUESTION = "Question: What moves?\nOptions:\nA. a ball\nB. Options: none\n"
PLEASE = "Please select the correct answer from the options above. \n"
Message = list[dict[str, str]]


class SentToProcessor(Exception):
    """text and images as their class hands them to the processor."""


class StandIn:
    """In the processor's place."""

    def __init__(self) -> None:
        self.image_processor = SimpleNamespace()

    def __call__(self, text: str, images: Sequence[Image.Image], **_: object) -> None:
        raise SentToProcessor(text, images)


def test_image_tasks_send_the_prompts_of_the_harness(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("LMUData", str(folder))
    for task, name in SETS.items():
        draw_twin(task, folder, ROWS)
        rows = {row.key: row for row in find_task(task).read(folder)}
        assert len(rows) >= 5
        dataset = their_data(name)
        for line in (dataset.data.iloc[place] for place in range(len(dataset))):
            if str(line["index"]) in rows:
                message, row = dataset.build_prompt(line), rows[str(line["index"])]
                for wrapper in ("smolvlm", "smolvlm2"):
                    asked = find_task(task).ask(row, Protocol(wrapper=wrapper)).request
                    assert same_request(asked, message, name, wrapper)


@pytest.mark.parametrize("wrapper", ["smolvlm", "smolvlm2"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_sets_are_asked_as_the_harness_does(frames: list[str], name: str, wrapper: str) -> None:
    pictures: Message = [{"type": "image", "value": frames[0]}]
    for text in (QUESTION + PLEASE, f"Hint: Look.\n{QUESTION}{PLEASE}", "  Is it red? \n"):
        same_request(None, [*pictures, {"type": "text", "value": text}], name, wrapper)


@pytest.mark.parametrize("name", [*sorted(VIDEO_SETS), "WorldSense"])
def test_videos_are_asked_as_the_harness_does(frames: list[str], name: str) -> None:
    system = {"type": "text", "value": "Watch it. ", "role": "system"}
    asked = [{"type": "text", "value": " \nOptions:\n(A) up "}, {"type": "text", "value": PLEASE + "Best option:("}]
    for shown in (1, 3, 64, 65, 150):
        pictures = [{"type": "image", "value": frames[place % len(frames)]} for place in range(shown)]
        same_request(None, [system, *pictures, *asked], name, "smolvlm2")
        same_request(None, [asked[0], *pictures, asked[1]], name, "smolvlm2")
    same_request(None, [*pictures[:2], asked[0], *pictures[2:70], asked[1]], name, "smolvlm2")  # subtitles between
    same_request(None, asked, name, "smolvlm2")


def test_a_picture_after_a_video_is_cut_as_before(frames: list[str]) -> None:
    vlm = smolvlm.load()
    picture: Message = [{"type": "image", "value": frames[0]}, {"type": "text", "value": "What is it?"}]
    video = [*({"type": "image", "value": frame} for frame in frames), {"type": "text", "value": "What moves?"}]
    before = vlm.ask(**request_for(picture, "MMStar", Protocol()))
    vlm.ask(**request_for(video, "Video-MME", Protocol()))
    after = vlm.ask(**request_for(picture, "MMStar", Protocol()))
    assert before.image_tokens > vlm.processor.image_seq_len
    assert (after.image_tokens, after.token_ids) == (before.image_tokens, before.token_ids)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Files of frames, of several shapes."""
    folder, generator = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    files = []
    for number, (width, height) in enumerate([(300, 200), (64, 90), (700, 701), (16, 9)]):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        files.append(str(folder / f"{number}.jpg"))
    yield files


def same_request(asked: Any, message: Message, name: str, wrapper: str) -> bool:
    """Compare our request, and the runner's where there is one, with what their class sends."""
    prompt, pictures = sent(deepcopy(message), name, wrapper)
    protocol = Protocol(wrapper=wrapper)  # type: ignore[arg-type]
    for request in filter(None, [asked, request_for(message, name, protocol)]):
        assert request["prompt"] == prompt
        if request["detail"] == "high":  # of frames, ours are brought to their size already
            assert [pixels(one) for one in request["images"]] == [pixels(one) for one in pictures]
        else:
            assert len(request["images"]) == len(pictures)
    return True


def sent(message: Message, name: str, wrapper: str) -> tuple[str, Sequence[Image.Image]]:
    """What their class hands to its processor."""
    from vlmeval.vlm import smolvlm as theirs

    model = object.__new__({"smolvlm": theirs.SmolVLM, "smolvlm2": theirs.SmolVLM2}[wrapper])
    model.sampling_frames, model.resolution, model.processor = 64, 512, StandIn()
    with pytest.raises(SentToProcessor) as caught:
        model.generate(message, dataset=name)
    return caught.value.args[0], caught.value.args[1]


def their_data(name: str) -> Any:
    """Their reader of a drawn file, which is not the one whose sum it knows."""
    from vlmeval.dataset import DATASET_CLASSES, build_dataset

    for found in DATASET_CLASSES:
        getattr(found, "DATASET_MD5", {}).clear()
    return build_dataset(name)


def pixels(image: Image.Image) -> tuple[tuple[int, int], bytes]:
    return image.size, image.convert("RGB").tobytes()
