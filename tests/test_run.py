"""Runs on data sets: exact resume after any end, what is kept, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import smolvlm
from smolvlm.cli import main
from smolvlm.errors import CheckpointError, ConfigError, DataError, TrainingError
from smolvlm.scenes import SKILLS
from smolvlm.training import loop
from smolvlm.training.loop import Metrics, train
from smolvlm.training.recipe import Recipe, build_recipe, read_recipe

COLOURS = ("red", "green", "blue", "black")
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["text.q_proj", "connector"], "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of one colour, each with a question of a kind that the bundled model doesn't know."""
    folder = tmp_path_factory.mktemp("notes")
    lines = []
    for index in range(8):
        colour = COLOURS[index % 4]
        picture = Image.new("RGB", (64, 48), "white")
        ImageDraw.Draw(picture).rectangle((8, 8, 40, 40), fill=colour)
        picture.save(folder / f"{index}.png")
        lines.append(line(f"{index}.png", "Say the word.", f"{colour} it is"))
    (folder / "notes.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "notes.jsonl"


def line(picture: str, question: str, answer: str) -> str:
    asked = [{"type": "image", "path": picture}, {"type": "text", "text": question}]
    said = [{"type": "text", "text": answer}]
    return json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]})


def two_places() -> str:
    talk = [{"from": "human", "value": "<image> <image> Same?"}, {"from": "gpt", "value": "yes"}]
    return json.dumps({"image": "0.png", "conversations": talk})


def recipe_of(file: Path, **changes: Any) -> Recipe:
    values = {
        "name": "notes", "start": "nano", "steps": 4, "samples_per_step": 4, "learning_rate": 1e-3,
        "data": [{"path": str(file)}], "compute": "float32", "save_every": 2, "evaluate_every": 100,
    }  # fmt: skip
    return build_recipe({**values, **changes}, file.parent / "recipe.toml")


def trained(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "state.pt", weights_only=True)["model"]  # type: ignore[no-any-return]


def same(one: Path, other: Path) -> bool:
    first, second = trained(one), trained(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", [{"rates": {"vision": 0.0}, "ema": 0.9}, {"adapter": LORA}], ids=["full", "lora"])
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(
    notes: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = recipe_of(notes, **changes)
    train(recipe, tmp_path / "whole", workers=0)
    told: list[Metrics] = []
    train(recipe, tmp_path / "parts", workers=0, report=told.append, stop=lambda: not told)
    assert len(told) == 1
    train(recipe, tmp_path / "parts", workers=1)
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert [one["step"] for one in lines_of(tmp_path / "parts")] == [1, 2, 3, 4]
    assert all(one["samples"] == 4 and one["tokens"] > 4 for one in lines_of(tmp_path / "parts"))


def test_a_frozen_part_stays_and_is_not_in_the_state(notes: Path, tmp_path: Path) -> None:
    checkpoint = train(recipe_of(notes, steps=1, rates={"vision": 0.0, "embeddings": 0.0}), tmp_path, workers=0)
    assert not any("vision_model" in name or "embed_tokens" in name for name in trained(tmp_path))
    before = smolvlm.SmolVLMForConditionalGeneration.from_pretrained("nano").state_dict()
    after = smolvlm.SmolVLMForConditionalGeneration.from_pretrained(checkpoint).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision_model" in name or "embed_tokens" in name for name in changed)


def test_only_new_rows_of_the_vocabulary_are_trained(notes: Path, tmp_path: Path) -> None:
    train(recipe_of(notes, steps=2, train_rows_from=1000, weight_decay=0.1), tmp_path, workers=0)
    before = smolvlm.SmolVLMForConditionalGeneration.from_pretrained("nano").lm_head.weight
    after = trained(tmp_path)["lm_head.weight"]
    assert torch.equal(after[:1000], before[:1000]) and not torch.equal(after[1000:], before[1000:])


def test_a_killed_run_goes_on_to_the_same_weights(notes: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'name = "k"\nstart = "nano"\nsteps = 12\nsamples_per_step = 2\nsave_every = 2\ncompute = "float32"\n'
        f'[rates]\nvision = 0.0\n[[data]]\npath = "{notes}"\n'
    )

    def command(output: Path) -> list[str]:
        return [sys.executable, "-m", "smolvlm", "train", str(file), "-o", str(output), "--workers", "0", "--quiet"]

    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command(tmp_path / "whole"), env=alone, timeout=300).returncode == 0
    process = subprocess.Popen(command(tmp_path / "killed"), env=alone)
    metrics, deadline = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    enough = random.Random().randint(1, 10)  # any step will do
    while time.monotonic() < deadline and (not metrics.exists() or metrics.read_text().count("\n") < enough):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still running"
    assert subprocess.run(command(tmp_path / "killed"), env=alone, timeout=300).returncode == 0
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert [one["step"] for one in lines_of(tmp_path / "killed")] == list(range(1, 13))


@pytest.mark.parametrize("more", [[], ["shard=true"], ["sequence_ranks=2"]], ids=["copies", "shares", "sequences"])
def test_two_processes_learn_what_one_does(notes: Path, tmp_path: Path, more: list[str]) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        'name = "two"\nstart = "nano"\nsteps = 3\nsamples_per_step = 4\ntiles_per_batch = 2\ncompute = "float32"\n'
        f'learning_rate = 1e-4\n[[data]]\npath = "{notes}"\n'
    )
    train(read_recipe(file), tmp_path / "one", workers=0)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "smolvlm", "train", str(file), "-o", str(tmp_path / "two"), "--workers", "0", "--quiet", *more]
    done = subprocess.run(
        [*start, *command], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    for name, weight in one.items():  # sums in another order; AdamW makes whole steps of tiny gradients
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    for first, second in zip(lines_of(tmp_path / "one"), lines_of(tmp_path / "two"), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=2e-4) and second["samples"] == first["samples"]


def test_epochs_are_counted_in_steps(notes: Path, tmp_path: Path) -> None:
    train(recipe_of(notes, steps=0, epochs=1.5, samples_per_step=5), tmp_path, workers=0)
    assert len(lines_of(tmp_path)) == 3  # 12 samples


def test_the_last_checkpoints_and_the_best_are_kept(notes: Path, tmp_path: Path) -> None:
    scores = iter([{"a": 0.1, "b": 0.3}, {"a": 0.9, "b": 0.2}, {"a": 0.4, "b": 0.2}, {"a": 0.1, "b": 0.1}])
    recipe = recipe_of(notes, evaluate_every=1, keep_last=2, save_every=1, selection={"a": 3.0, "b": 1.0})
    train(recipe, tmp_path, workers=0, score=lambda checkpoint: next(scores))
    kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert kept == ["best", "checkpoint", "checkpoint-3"]
    assert json.loads((tmp_path / "best" / "training.json").read_text()) == {"step": 2}
    history = json.loads((tmp_path / "scores.json").read_text())
    assert [one["combined"] for one in history] == pytest.approx([0.15, 0.725, 0.35, 0.1])
    smolvlm.load(tmp_path / "best")


def test_drawn_questions_choose_the_best_checkpoint(notes: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        f'name = "r"\nstart = "nano"\nsteps = 2\nsamples_per_step = 2\nevaluate_every = 1\n[[data]]\npath = "{notes}"\n'
        '[adapter]\nr = 2\ntarget_modules = ["text.q_proj"]\n'
    )
    assert main(["train", str(file), "-o", str(tmp_path / "run"), "--workers", "0", "--score", "2"]) == 0
    history = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert [sorted(one["scores"]) for one in history] == [sorted(SKILLS)] * 2
    assert history[0]["combined"] > 0.5 and (tmp_path / "run" / "best" / "adapter_config.json").is_file()


def test_held_out_samples_are_scored(notes: Path, tmp_path: Path) -> None:
    told: list[Metrics] = []
    train(
        recipe_of(notes, evaluate_every=2, validation=[{"path": str(notes)}]), tmp_path, workers=0, report=told.append
    )
    assert [sorted(one.scores or {}) for one in told] == [[], ["exact", "loss"], [], ["exact", "loss"]]


def test_a_loss_that_is_no_number_stops_with_its_samples_and_keeps_the_last_state(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(notes)
    train(recipe, tmp_path, workers=0, stop=lambda: True)
    before = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr(loop, "backward", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match=r"Step 2: the loss is no number.*notes\.jsonl, row \d") as raised:
        train(recipe, tmp_path, workers=0)
    assert str(raised.value).count("row") == 4 and (tmp_path / "state.pt").read_bytes() == before


def test_a_full_disk_leaves_what_was_saved(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(notes)
    train(recipe, tmp_path, workers=0, stop=lambda: True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jsonl"}

    def full(state: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left.*as it was"):
        train(recipe, tmp_path, workers=0)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob("*.partial"))


def test_changed_data_and_another_recipe_are_refused(notes: Path, tmp_path: Path) -> None:
    data = tmp_path / "notes.jsonl"
    text = notes.read_text().replace('"path": "', f'"path": "{notes.parent}/')
    data.write_text(text.replace(str(notes.parent), "."))
    for picture in notes.parent.glob("*.png"):
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    train(recipe_of(data), tmp_path / "run", workers=0, stop=lambda: True)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(recipe_of(data, clip=0.5), tmp_path / "run", workers=0)
    data.write_text(data.read_text() + line("0.png", "More?", "no") + "\n")
    with pytest.raises(CheckpointError, match="whose data has changed"):
        train(recipe_of(data), tmp_path / "run", workers=0)


def test_bad_samples_are_skipped_listed_and_stop_the_run_when_they_are_many(notes: Path, tmp_path: Path) -> None:
    bad = [
        line("missing.png", "What?", "a thing"), line("0.png", "Who?", ""), two_places(),
        line("0.png", "Long?", "word " * 10_000),
    ]  # fmt: skip
    data = notes.parent / "bad.jsonl"
    data.write_text(notes.read_text() + "\n".join(bad) + "\n")
    recipe = recipe_of(data, steps=3, bad_share=0.5)
    train(recipe, tmp_path / "run", workers=0)
    listed = (tmp_path / "run" / "skipped.txt").read_text()
    assert listed.count("bad.jsonl, row") == 4 and "missing.png" in listed and "is empty" in listed
    assert lines_of(tmp_path / "run")[-1]["skipped"] == 4
    with pytest.raises(DataError, match=r"can't be used, more than 1\.0%.*bad\.jsonl, row"):
        train(recipe_of(data, steps=3), tmp_path / "other", workers=0)


def test_a_preference_run_and_a_reward_run_go_through(notes: Path, tmp_path: Path) -> None:
    rows = [
        {"images": [f"{index}.png"], "prompt": [{"role": "user", "content": "<image>Say the word."}],
         "chosen": [{"role": "assistant", "content": "red"}], "rejected": [{"role": "assistant", "content": "a word"}]}
        for index in range(4)
    ]  # fmt: skip
    pairs = notes.parent / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, rows)) + "\n")
    told: list[Metrics] = []
    recipe = recipe_of(
        pairs, objective="dpo", adapter=LORA, learning_rate=1e-3, steps=3, evaluate_every=3,
        validation=[{"path": str(pairs)}],
    )  # fmt: skip
    train(recipe, tmp_path / "dpo", workers=0, report=told.append)
    assert told[0].loss == pytest.approx(0.6931, abs=2e-3) and told[2].loss < told[0].loss
    assert told[2].scores == {"preferred": 1.0}
    settings = {"reward": "contains", "group": 3, "max_new_tokens": 4, "kl": 0.1, "updates": 2}
    recipe = recipe_of(notes, objective="grpo", adapter=LORA, grpo=settings, steps=2, samples_per_step=2)
    train(recipe, tmp_path / "grpo", workers=0, report=told.append)
    assert all(0 <= (one.reward if one.reward is not None else -1) <= 1 for one in told[3:]) and len(told) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "needs steps or, with data, epochs"), ({"epochs": 1.0}, "not both"),
        ({"start": ""}, "needs start"), ({"objective": "ppo"}, "'sft', 'dpo', 'grpo'"),
        ({"objective": "grpo"}, "needs a table"), ({"grpo": {"reward": "exact", "group": 1}}, "at least 2"),
        ({"rates": {"head": 1.0}}, "parts are vision"), ({"adapter": {"bits": 3}}, "16, 8, 4"),
        ({"adapter": {"rank": 3}}, "unknown loraconfig key 'rank'"), ({"dpo": {"beta": 0.0}}, "above 0"),
        ({"learning_rate": 0.0}, "above 0"), ({"look": {"detail": "huge"}}, "'low', 'auto' or 'high'"),
        ({"data": [{"path": "x", "wheight": 1}]}, "wheight"), ({"warmup": 2.0}, "from 0 to 1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(notes: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as raised:
        recipe_of(notes, **changes)
    assert isinstance(raised.value, ConfigError | DataError | smolvlm.InputError)


def test_lines_of_a_recipe_are_changed_on_the_command_line(notes: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f'name = "r"\nstart = "nano"\nsteps = 3\n[[data]]\npath = "{notes}"\n')
    changed = read_recipe(file, ["steps=5", "adapter.r=2", "schedule=cosine", "rates.vision=0.0"])
    assert changed.steps == 5 and changed.adapter is not None and changed.adapter.r == 2
    assert changed.schedule == "cosine" and changed.rates == {"vision": 0.0}
    for wrong in ("steps", "=3", "steps.more=3"):
        with pytest.raises(ConfigError):
            read_recipe(file, [wrong])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_rates_stay_between_floor_and_one(notes: Path, schedule: str) -> None:
    recipe = recipe_of(notes, steps=50, schedule=schedule, floor=0.1, warmup=0.1)
    rates: Sequence[float] = [recipe.rate(step) for step in range(50)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0) if schedule == "constant" else 0.1 <= rates[-1] < 0.2
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_ctrl_c_saves_after_the_step(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f'name = "r"\nstart = "nano"\nsteps = 9\nsamples_per_step = 2\n[[data]]\npath = "{notes}"\n')
    real = loop.learn

    def pressed(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "learn", pressed)
    assert main(["train", str(file), "-o", str(tmp_path / "run"), "--workers", "0"]) == 0
    assert len(lines_of(tmp_path / "run")) == 1 and (tmp_path / "run" / "state.pt").is_file()
