"""A prompt that is written already: what harnesses and people with a template of their own send."""

from __future__ import annotations

from pathlib import Path

import pytest

import smolvlm
from smolvlm.errors import InputError, PromptError

PICTURE = Path(smolvlm.__file__).parent / "assets" / "demo" / "picture.png"
QUESTION = "Describe the picture."


@pytest.fixture(scope="module")
def vlm() -> smolvlm.VLM:
    return smolvlm.load()


def written(vlm: smolvlm.VLM, content: list[dict[str, str]]) -> str:
    talk = [{"role": "user", "content": content}]
    return str(vlm.processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False))


def test_a_written_prompt_is_the_same_request_as_its_question(vlm: smolvlm.VLM) -> None:
    prompt = written(vlm, [{"type": "image"}, {"type": "text", "text": QUESTION}])
    asked, told = vlm.ask(QUESTION, images=PICTURE), vlm.ask(prompt=prompt, images=PICTURE)
    assert (told.token_ids, told.prompt_tokens, told.text) == (asked.token_ids, asked.prompt_tokens, asked.text)
    assert vlm.tokens(prompt=prompt, images=PICTURE).total == asked.prompt_tokens
    (batched,) = vlm.ask_batch([{"prompt": prompt, "images": PICTURE}])
    assert batched.token_ids == asked.token_ids
    features = vlm.encode(images=PICTURE)
    assert vlm.ask(prompt=prompt, features=features).token_ids == asked.token_ids


def test_a_written_prompt_is_taken_to_the_letter(vlm: smolvlm.VLM) -> None:
    prompt = "<|im_start|>User:<image>What is this?<end_of_utterance>\nAssistant: Answer:"
    shown = [{"role": "user", "content": [{"type": "image", "image": PICTURE}]}]
    inputs = vlm.processor.prepare(shown, prompt=prompt, detail="high")
    theirs = vlm.processor(text=prompt, images=[[PICTURE]], return_tensors="np")["input_ids"][0]
    assert inputs.input_ids.tolist() == theirs.tolist()


def test_text_alone_can_be_a_written_prompt(vlm: smolvlm.VLM) -> None:
    question = "3 + 4?"
    assert vlm.ask(prompt=written(vlm, [{"type": "text", "text": question}])).text == vlm.ask(question).text


@pytest.mark.parametrize("images", [(), (PICTURE, PICTURE)])
def test_a_written_prompt_with_another_number_of_places_is_refused(vlm: smolvlm.VLM, images: tuple[Path, ...]) -> None:
    with pytest.raises(PromptError, match="placeholders"):
        vlm.ask(prompt="<|im_start|>User:<image>Hi<end_of_utterance>\nAssistant:", images=images)


@pytest.mark.parametrize(
    "options", [{"question": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}, {"system": "Be brief."}]
)
def test_a_written_prompt_stands_alone(vlm: smolvlm.VLM, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="prompt="):
        vlm.ask(prompt="Hi", **options)  # type: ignore[arg-type]


def test_a_written_prompt_is_a_text(vlm: smolvlm.VLM) -> None:
    with pytest.raises(InputError, match="must be a text; got int"):
        vlm.ask(prompt=7)  # type: ignore[arg-type]
