"""The trainer: exact prompts, answer-only targets, branches that equal single conversations, exact resume."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import smolvlm
from smolvlm.cli import main
from smolvlm.errors import CheckpointError, ConfigError, InputError
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.scenes import draw
from smolvlm.training.collate import collate
from smolvlm.training.evaluate import evaluate_scenes
from smolvlm.training.loop import train
from smolvlm.training.objectives import Trainee, logits_of, loss_of
from smolvlm.training.optimiser import Optimisers
from smolvlm.training.probes import Probes
from smolvlm.training.recipe import Recipe, Stage, read_recipe
from smolvlm.training.run import sample_maker
from smolvlm.training.samples import Sample, SampleMaker
from smolvlm.training.start import model_config, open_processor, start_model
from smolvlm.training.steps import SceneSteps, stream
from smolvlm.training.update import backward, side_by_side_lanes

RECIPES = Path(__file__).parents[1] / "recipes"
GEOMETRY = {
    "model_type": "smolvlm",
    "scale_factor": 4,
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "image_size": 128, "patch_size": 16},
    "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                    "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
}  # fmt: skip


def tiny_recipe(**changes: object) -> Recipe:
    stage = Stage(1.0, {"scene": 2, "read": 1, "pair": 1, "video": 1, "text": 1, "document": 0.5})
    recipe = Recipe(
        "tiny", 6, vocabulary="nano", model=GEOMETRY, stages=(stage,), tiles_per_step=10, tiles_per_batch=6,
        evaluate_scenes=2, evaluate_every=1000, save_every=1000, linear_chats=0.2, split_pictures=0.1, pack=False,
        optimiser="muon", learning_rate=1e-3, ema=0.999, probe_weight=0.3,
    )  # fmt: skip
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def maker() -> SampleMaker:
    return sample_maker(open_processor(tiny_recipe()), 8)


@pytest.mark.parametrize("skill", ["scene", "read", "chart", "document", "pair", "video", "text", "tiles"])
def test_targets_are_the_answers_and_their_ends_and_nothing_else(maker: SampleMaker, skill: str) -> None:
    for index in range(5):
        scene = draw(skill, 3, index)
        batch = collate([maker.make(scene, Random(0))], maker.tokenizer.pad_token_id)
        said = [maker.tokenizer.decode(batch.target[batch.turn == turn]) for turn in range(len(scene.turns))]
        assert said == [f" {turn.answer}<end_of_utterance>" for turn in scene.turns]


def test_patch_labels_lie_where_the_things_are(maker: SampleMaker) -> None:
    scene = draw("scene", 3, 1)
    sample = maker.make(scene, Random(0))
    side = maker.patches_per_side
    labels = sample.patch_labels.reshape(side, side, 3)
    assert (labels[..., 0] >= 0).any()
    for mark in scene.marks:
        row, column = int((mark.box[1] + mark.box[3]) / 2 * side), int((mark.box[0] + mark.box[2]) / 2 * side)
        assert labels[row, column].tolist() == [mark.shape, mark.colour, mark.character]


@torch.inference_mode()
def test_a_branch_gives_the_same_logits_as_its_own_conversation(maker: SampleMaker) -> None:
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(model_config(tiny_recipe(), maker.tokenizer), "eager").eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    sample = maker.make(draw("scene", 3, 2), Random(0))
    assert len(sample.branches) > 2
    together = logits_of(model, collate([sample], 2)).split([sum(b.is_answer) for b in sample.branches])
    for branch, logits in zip(sample.branches, together, strict=True):
        alone = collate([dataclasses.replace(sample, branches=(branch,))], 2)
        plain = model(
            alone.input_ids, attention_mask=torch.ones_like(alone.input_ids), pixel_values=alone.pixel_values()[None]
        ).logits[0, alone.place]
        torch.testing.assert_close(logits_of(model, alone), plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_what_shares_the_batch_changes_no_loss(maker: SampleMaker) -> None:
    model = SmolVLMForConditionalGeneration(model_config(tiny_recipe(), maker.tokenizer), "eager").eval()
    samples = [maker.make(draw(skill, 3, 4), Random(0)) for skill in ("scene", "video", "text", "document")]

    def loss(batch: list[Sample]) -> torch.Tensor:
        joined = collate(batch, 2)
        return F.cross_entropy(logits_of(model, joined), joined.target, reduction="sum")

    torch.testing.assert_close(loss(samples), sum(loss([sample]) for sample in samples), rtol=1e-5, atol=0)


def test_even_answers_make_long_and_short_answers_count_the_same(maker: SampleMaker) -> None:
    sample = maker.make(draw("scene", 3, 2), Random(0))
    lengths = [sum(branch.is_answer) for branch in sample.branches]
    assert len(set(lengths)) > 1
    for even, expected in ((0.0, lengths), (0.5, [n**0.5 for n in lengths]), (1.0, [1.0] * len(lengths))):
        batch = collate([sample], 2, even)
        weights = torch.zeros(len(lengths)).index_add(0, batch.turn, batch.weight)
        torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))


def test_emphasis_makes_a_kind_of_question_count_more(maker: SampleMaker) -> None:
    sample = maker.make(draw("scene", 3, 2), Random(0))
    kinds = [kind for branch in sample.branches for kind in branch.kinds]
    batch = collate([sample], 2, 1.0, {kinds[0]: 3.0})
    weights = torch.zeros(len(kinds)).index_add(0, batch.turn, batch.weight)
    assert weights.tolist() == pytest.approx([3.0 if kind == kinds[0] else 1.0 for kind in kinds])
    whole_numbers = collate([sample], 2, 0.5, dict.fromkeys(kinds, 3))
    torch.testing.assert_close(whole_numbers.weight, 3 * collate([sample], 2, 0.5).weight)


@pytest.mark.parametrize("skill", ["scene", "chart", "pair", "video"])
def test_further_rounds_ask_other_questions_on_the_same_pictures(maker: SampleMaker, skill: str) -> None:
    scene = draw(skill, 3, 2)
    once, thrice = maker.make(scene, Random(0)), maker.make(scene, Random(0), rounds=3)
    assert (thrice.tiles == once.tiles).all() and thrice.prefix == once.prefix
    assert thrice.branches[: len(once.branches)] == once.branches and len(thrice.branches) > len(once.branches)
    assert len({branch.ids for branch in thrice.branches}) == len(thrice.branches)


def test_batches_side_by_side_give_the_same_gradients(maker: SampleMaker) -> None:
    recipe = tiny_recipe(tiles_per_step=20)
    batches = SceneSteps(recipe, maker).batches(0)
    assert len(batches) > 2
    model = SmolVLMForConditionalGeneration(model_config(recipe, maker.tokenizer), "eager")
    trainee = Trainee(model, torch.bfloat16, Probes(32))
    parameters = Optimisers(model, trainee.probes, recipe).parameters
    whole = sum(float(batch.weight.sum()) for batch in batches)
    found = []
    for lanes in (1, 2):
        with side_by_side_lanes(lanes) as side_by_side:
            loss = backward(loss_of(trainee, recipe), parameters, batches, whole, 0.3, "cpu", side_by_side)
        found.append((loss, [parameter.grad for parameter in parameters]))
        for parameter in parameters:
            parameter.grad = None
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


def test_a_run_starts_from_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    first = train(tiny_recipe(steps=1), tmp_path / "first", workers=0)
    recipe = tiny_recipe(start=str(first))
    given = SmolVLMForConditionalGeneration.from_pretrained(first, dtype="float32").state_dict()
    tokenizer = open_processor(recipe).tokenizer
    assert all(torch.equal(value, given[key]) for key, value in start_model(recipe, tokenizer).state_dict().items())
    with pytest.raises(ConfigError, match="another geometry"):
        start_model(tiny_recipe(start="nano"), tokenizer)


def test_layers_added_to_a_checkpoint_change_nothing_at_first_and_learn(tmp_path: Path) -> None:
    first = train(tiny_recipe(steps=1), tmp_path / "first", workers=0)
    deeper = {**GEOMETRY, "text_config": {**GEOMETRY["text_config"], "num_hidden_layers": 3}}  # type: ignore[dict-item]
    recipe = tiny_recipe(start=str(first), model=deeper)
    processor = open_processor(recipe)
    maker, deep = sample_maker(processor, 8), start_model(recipe, processor.tokenizer)
    shallow = start_model(tiny_recipe(start=str(first)), processor.tokenizer)
    assert [len(model.model.text_model.layers) for model in (deep, shallow)] == [3, 2]
    batch = SceneSteps(recipe, maker).batches(0)[0]
    with torch.inference_mode():
        torch.testing.assert_close(logits_of(deep, batch), logits_of(shallow, batch), rtol=0, atol=0)
    loss_of(Trainee(deep, torch.float32), recipe)(batch, 1.0, 0.0).backward()
    silent = deep.model.text_model.layers[1].mlp.down_proj.weight
    assert not silent.any() and silent.grad is not None and silent.grad.any()


def test_probes_tell_nothing_from_something() -> None:
    probes = Probes(8)
    labels = torch.full((2, 4, 3), -1, dtype=torch.int16)
    labels[0, 0] = torch.tensor([1, 2, 3], dtype=torch.int16)
    before = probes(torch.zeros(2, 4, 8), labels)
    for name, parameter in probes.named_parameters():
        torch.nn.init.zeros_(parameter)
        if name.endswith("bias"):
            parameter.data[0] = 20.0
    assert probes(torch.zeros(2, 4, 8), labels) != before


def test_the_steps_of_a_mixture_depend_on_nothing_but_their_number(maker: SampleMaker) -> None:
    recipe = tiny_recipe()
    steps = SceneSteps(recipe, maker)
    alone = [steps.batches(step) for step in (0, 4)]
    again = [made.batches for made in stream(steps, 0, recipe.steps, workers=0)]
    for expected, got in zip(alone, (again[0], again[4]), strict=True):
        assert [b.input_ids.tolist() for b in got] == [b.input_ids.tolist() for b in expected]
        assert all(torch.equal(a.tiles, b.tiles) for a, b in zip(got, expected, strict=True))


def test_batches_stay_within_tiles_and_tokens(maker: SampleMaker) -> None:
    recipe = tiny_recipe(tiles_per_step=60, tokens_per_batch=1500)
    for batch in SceneSteps(recipe, maker).batches(1):
        assert len(batch.input_ids) == 1 or (len(batch.tiles) <= 6 and batch.input_ids.numel() <= 1500)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "state.pt", weights_only=True)["model"]


def test_a_run_that_was_stopped_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    recipe = tiny_recipe(evaluate_every=5)
    torch.manual_seed(1)
    train(recipe, tmp_path / "whole", workers=0)
    train(recipe, tmp_path / "parts", workers=1, minutes=0)  # one step, then stopped
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 2}\n{"step": 3, "lo')  # a kill after the last save, in the middle of a line
    torch.manual_seed(99)
    train(recipe, tmp_path / "parts", workers=2)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[4]["scores"] and lines[5]["scores"] and not lines[3]["scores"]


def test_the_finished_checkpoint_loads_and_answers(tmp_path: Path) -> None:
    directory = train(tiny_recipe(steps=1), tmp_path, workers=0)
    answer = smolvlm.load(directory).ask("What is this?", images=[Image.new("RGB", (90, 50), "red")], max_new_tokens=3)
    assert len(answer.token_ids) <= 3 and answer.image_tokens == 4
    config = json.loads((directory / "config.json").read_text())
    assert config["model_type"] == "smolvlm" and config["text_config"]["eos_token_id"] == 1023
    assert transformers_reads(directory)


def transformers_reads(directory: Path) -> bool:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.SmolVLMForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    ours = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32")
    ids = torch.tensor([[1, 5, 6]])
    return torch.allclose(theirs(ids).logits, ours(ids).logits, atol=1e-4)


def test_a_directory_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tiny_recipe(steps=1), tmp_path, workers=0)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(steps=1, clip=0.5), tmp_path, workers=0)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_makes_a_step(path: Path) -> None:
    recipe = read_recipe(path)
    if recipe.data:
        return  # of files that are made first; the rest learn from drawn scenes
    processor = open_processor(recipe)
    config = model_config(recipe, processor.tokenizer)
    with torch.device("meta"):
        SmolVLMForConditionalGeneration(config)
    maker = sample_maker(processor, config.vision_config.patches_per_side)
    for step in (0, recipe.steps - 1):
        assert SceneSteps(dataclasses.replace(recipe, tiles_per_step=12), maker).batches(step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = ", "not valid TOML"),
        ('name = "x"\nstep = 3', "unknown recipe key 'step'"),
        ('name = "x"\nsteps = 3', "needs one of"),
        ("[[stages]]\nuntil = 1.0\nskills = { juggle = 1.0 }", "'juggle' is unknown"),
        ("[[stages]]\nuntil = 1.0\nskill = { scene = 1.0 }", "unknown stage key 'skill'"),
        ("[[stages]]\nuntil = 1.0\nskills = { scene = 1.0 }\neven_answers = 2.0", "even_answers=2.0"),
        ("[[stages]]\nuntil = 1.0\nskills = { scene = 1.0 }\nrounds = 0", "rounds=0"),
        ("[[stages]]\nuntil = 1.0\nskills = { scene = 1.0 }\nemphasis = { where = -1 }", "'where' is -1"),
        ('name="x"\nsteps=3\nstart="nano"\n[[stages]]\nuntil=0.5\nskills={scene=1.0}', "last be 1.0"),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "r.toml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cuda' can't be used here"):
        train(tiny_recipe(steps=1), tmp_path / "run", device="cuda", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")


def test_rates_rise_stay_and_fall() -> None:
    recipe = tiny_recipe(steps=100, warmup=0.1, decay=0.2)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:80] == [1.0] * 71 and rates[99] == pytest.approx(0.05)
    assert recipe.probe(0) == recipe.probe_weight and recipe.probe(99) == 0.0


def test_the_command_trains_goes_on_and_prints_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.toml"
    sizes = "hidden_size=32\nintermediate_size=64\nnum_hidden_layers=1\nnum_attention_heads=2"
    recipe.write_text(
        f'name="r"\nsteps=2\nvocabulary="nano"\ntiles_per_step=2\nevaluate_scenes=1\n[model]\nscale_factor=4\n'
        f"[model.vision_config]\n{sizes}\nimage_size=128\npatch_size=16\n[model.text_config]\n{sizes}\n"
        "[[stages]]\nuntil=1.0\nskills={scene=1.0}\n"
    )
    output = tmp_path / "run"
    assert main(["train", str(recipe), "-o", str(output), "--minutes", "0.00001", "--workers", "0"]) == 0
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(["train", str(recipe), "-o", str(output), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(output / "checkpoint")] * 2
    assert main(["train", str(tmp_path / "none.toml"), "-o", str(output)]) == 2


@pytest.mark.slow
def test_a_small_model_learns_colours_counts_and_places_from_nothing(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "shapes.toml")
    checkpoint = train(recipe, tmp_path)
    model = SmolVLMForConditionalGeneration.from_pretrained(checkpoint)
    maker = sample_maker(open_processor(recipe), 8)
    trainee = Trainee(model, torch.float32)
    scores = evaluate_scenes(trainee, maker, dataclasses.replace(recipe, evaluate_scenes=200), "cpu")
    assert scores["scene/colour_of"] > 0.7  # 0.88 when measured; guessing gives 0.12
    assert scores["scene/count_all"] > 0.85  # 0.97
    assert scores["scene/where"] > 0.55  # 0.74; guessing gives 0.11
