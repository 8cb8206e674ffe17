"""The training loop, to be read from top to bottom. No callbacks, no inheritance.

One step: draw samples, forward and backward batch by batch, one update. Everything a step does is a function of the
recipe and its number, so a run that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..config import SmolVLMConfig
from ..errors import ConfigError
from ..model import SmolVLMForConditionalGeneration
from ..processing.image import SmolVLMImageProcessor
from ..processing.processor import SmolVLMProcessor
from ..processing.template import DEFAULT_TEMPLATE
from ..processing.tokenizer import SmolVLMTokenizer
from ..processing.video import SmolVLMVideoProcessor
from ..scenes import draw
from .checkpoints import STATE, export, load_state, save_state
from .collate import Batch
from .mixture import Mixture, group
from .optimiser import Average, Optimisers
from .probes import Probes
from .recipe import Recipe
from .samples import SampleMaker

IMAGE_TOKEN = "<image>"
MAX_FRAMES = 16  # twice what the drawn clips have


@dataclass(frozen=True)
class Progress:
    """What the caller is told after every step, and a line of metrics.jsonl.

    step: how many are done. gradient: its norm before clipping. seconds: this step's.
    scores: skill -> share of right answers, when just evaluated.
    """

    step: int
    steps: int
    loss: float
    gradient: float
    samples: int
    seconds: float
    scores: dict[str, float] | None = None


def train(
    recipe: Recipe,
    output: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    workers: int = 1,
    lanes: int = 1,
    report: Callable[[Progress], None] | None = None,
) -> Path:
    """Run or go on with a recipe; returns the directory of the finished (or, after `minutes`, current) checkpoint.

    output gets state.pt (to resume from), metrics.jsonl (a line a step) and checkpoint/ (averaged weights).
    workers: processes that draw. lanes: batches that go through the model side by side, the CPU's threads divided
    among them: for small models faster than all threads on one batch, and steady beside other work.
    Raises ConfigError, and CheckpointError when output holds another run.
    """
    output.mkdir(parents=True, exist_ok=True)
    processor = make_processor(recipe, vocabulary_directory(recipe))
    maker = sample_maker(recipe, processor)
    torch.manual_seed(recipe.seed)
    model = start_model(recipe, maker.tokenizer).to(device).train()
    probes = Probes(model.config.vision_config.hidden_size).to(device)
    optimisers, average = Optimisers(model, probes, recipe), Average(model, recipe.ema)
    start = 0
    if (output / STATE).exists():
        start = load_state(output, repr(recipe), model, probes, optimisers, average)
    _forget_metrics(output / "metrics.jsonl", start)

    began = last = time.monotonic()
    with (output / "metrics.jsonl").open("a", encoding="utf-8") as metrics, side_by_side_lanes(lanes) as side_by_side:
        for step, batches in enumerate(_steps(recipe, maker, start, workers), start=start):
            loss = backward(model, probes, batches, recipe.probe(step), device, side_by_side)
            norm = optimisers.step(step)
            average.update(step)

            done = step + 1
            scores = None
            if done % recipe.evaluate_every == 0 or done == recipe.steps:
                with average.in_place():
                    scores = evaluate(model, maker, recipe, device)
            samples = sum(len(batch.input_ids) for batch in batches)
            now = time.monotonic()
            progress = Progress(
                done, recipe.steps, round(loss, 4), round(norm, 3), samples, round(now - last, 3), scores
            )
            last = now
            metrics.write(json.dumps(asdict(progress)) + "\n")
            metrics.flush()
            if report:
                report(progress)
            stop = done == recipe.steps or (minutes is not None and now - began > 60 * minutes)
            if stop or done % recipe.save_every == 0:
                save_state(output, done, repr(recipe), model, probes, optimisers, average)
                with average.in_place():
                    export(model, processor, output / "checkpoint")
            if stop:
                break
    return output / "checkpoint"


def backward(
    model: SmolVLMForConditionalGeneration,
    probes: Probes,
    batches: list[Batch],
    probe_weight: float,
    device: str,
    side_by_side: Callable[..., Iterable[Any]] = map,
) -> float:
    """Add up the gradients of one step's batches, always in their order. Returns the step's loss."""
    parameters = [*model.parameters(), *probes.parameters()]
    whole = sum(float(batch.weight.sum()) for batch in batches)

    def work(batch: Batch) -> tuple[tuple[torch.Tensor | None, ...], float]:
        part = objective(model, probes, batch.to(device), whole, probe_weight)
        return torch.autograd.grad(part, parameters, allow_unused=True), float(part.detach())

    loss = 0.0
    for gradients, part in side_by_side(work, batches):
        loss += part
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return loss


@contextmanager
def side_by_side_lanes(number: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A map() that works on `number` batches at a time, each on its share of the CPU's threads."""
    if number <= 1:
        yield map
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // number))  # taken over by the threads that the pool starts
    try:
        with ThreadPoolExecutor(number) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def objective(
    model: SmolVLMForConditionalGeneration, probes: Probes, batch: Batch, whole: float, probe_weight: float
) -> torch.Tensor:
    """This batch's share of the step's loss: weighted cross-entropy of its answer tokens, plus the probes.

    whole: the weights of all answer tokens of the step together.
    """
    with torch.autocast(batch.input_ids.device.type, torch.bfloat16):
        logits, patches = forward(model, batch)
        loss = (F.cross_entropy(logits.float(), batch.target, reduction="none") * batch.weight).sum() / whole
        if probe_weight and patches is not None:
            share = batch.weight.sum() / whole
            loss = loss + probe_weight * share * probes(patches, batch.patch_labels)
    return loss


def forward(model: SmolVLMForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits at the places that predict an answer token (targets, vocabulary), and the patches' features."""
    patches = features = None
    if len(batch.tiles):
        patches = model.model.vision_model(batch.pixel_values()).last_hidden_state  # (tiles, patches, vision hidden)
        features = model.model.connector(patches)  # (tiles, image tokens, text hidden)
    hidden = model.model(
        batch.input_ids,
        attention_mask=batch.attention_mask(),
        position_ids=batch.position_ids,
        image_hidden_states=features,
        use_cache=False,
    ).last_hidden_state  # (samples, tokens, hidden)
    return model.lm_head(hidden.flatten(0, 1)[batch.place]), patches


@torch.inference_mode()
def evaluate(
    model: SmolVLMForConditionalGeneration, maker: SampleMaker, recipe: Recipe, device: str
) -> dict[str, float]:
    """Share of validation turns answered exactly right, per skill and per "skill/kind", as hard as the last stage.

    Every token of the answer must be the most likely one after the right ones before it: the same as greedy decoding
    giving the exact answer, at the cost of one forward pass.
    """
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    last = recipe.stages[-1]
    for skill in last.skills:
        level = last.levels.get(skill, 1.0)
        scenes = (draw(skill, recipe.seed, index, "validation", level=level) for index in range(recipe.evaluate_scenes))
        samples = [maker.make(scene, Random(0)) for scene in scenes]
        samples.sort(key=lambda sample: sample.length)
        for batch in group(samples, recipe, maker.tokenizer.pad_token_id):
            batch = batch.to(device)
            hits = forward(model, batch)[0].argmax(-1) == batch.target  # (targets,)
            turns = torch.ones(len(batch.skill_kinds), dtype=torch.bool, device=hits.device)
            turns[batch.turn[~hits]] = False
            for (name, kind), ok in zip(batch.skill_kinds, turns.tolist(), strict=True):
                right[name].append(ok)
                right[f"{name}/{kind}"].append(ok)
    model.train()
    return {name: round(sum(turns) / len(turns), 4) for name, turns in right.items()}


def start_model(recipe: Recipe, tokenizer: SmolVLMTokenizer) -> SmolVLMForConditionalGeneration:
    """The recipe's geometry with random weights, or in float32 with those of the checkpoint it starts from.

    A recipe may have more text layers than that checkpoint: see `deepened`.
    """
    config = model_config(recipe, tokenizer)
    if not recipe.start:
        return SmolVLMForConditionalGeneration(config, "eager")
    directory = directory_of(recipe.start)
    model = SmolVLMForConditionalGeneration.from_pretrained(directory, dtype="float32", attn_implementation="eager")
    if model.config.text_config.num_hidden_layers < config.text_config.num_hidden_layers:
        model = deepened(model, config.text_config.num_hidden_layers)
    given = model.config.to_dict()
    if any(given.get(key) != value for key, value in config.to_dict().items()):
        raise ConfigError(f"start={recipe.start!r} in recipe {recipe.name!r}: {directory} is of another geometry.")
    return model


def deepened(model: SmolVLMForConditionalGeneration, layers: int) -> SmolVLMForConditionalGeneration:
    """The same function with more text layers: evenly spread copies of layers, whose outputs are zero at first."""
    values: dict[str, Any] = model.config.to_dict()
    fewer = values["text_config"]["num_hidden_layers"]
    config = SmolVLMConfig.from_dict({**values, "text_config": {**values["text_config"], "num_hidden_layers": layers}})
    deep = SmolVLMForConditionalGeneration(config, "eager")
    sources = [layer * fewer // layers for layer in range(layers)]
    weights = {key: value for key, value in model.state_dict().items() if ".text_model.layers." not in key}
    for layer, source in enumerate(sources):
        added = layer > 0 and source == sources[layer - 1]
        for key, value in model.model.text_model.layers[source].state_dict().items():
            silent = added and key.startswith(("self_attn.o_proj", "mlp.down_proj"))
            weights[f"model.text_model.layers.{layer}.{key}"] = torch.zeros_like(value) if silent else value
    deep.load_state_dict(weights)
    return deep


def directory_of(name: str) -> Path:
    """A directory, or where the bundled one of that name is."""
    bundled = Path(__file__).parents[1] / "assets" / name
    return bundled if bundled.is_dir() else Path(name)


def vocabulary_directory(recipe: Recipe) -> Path:
    """Where the tokenizer's files are: a directory, or the name of a bundled one (which needs no weights yet)."""
    directory = directory_of(recipe.vocabulary)
    if not (directory / "tokenizer.json").is_file():
        raise ConfigError(
            f"vocabulary={recipe.vocabulary!r} in recipe {recipe.name!r}: there is no {directory / 'tokenizer.json'}. "
            "Name a directory with the tokenizer's files, or 'nano' for the bundled ones."
        )
    return directory


def make_processor(recipe: Recipe, vocabulary: Path) -> SmolVLMProcessor:
    """The tokenizer of the vocabulary directory, and tiles of the recipe's geometry: pictures of up to 2 x 2 tiles."""
    tokenizer = SmolVLMTokenizer.from_directory(vocabulary)
    config = model_config(recipe, tokenizer)
    tile, edge = (
        {"longest_edge": config.vision_config.image_size},
        {"longest_edge": 2 * config.vision_config.image_size},
    )
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=tile),
        tokenizer,
        SmolVLMVideoProcessor(
            max_image_size=tile, video_sampling={"fps": 1, "max_frames": MAX_FRAMES, "video_size": tile}
        ),
        config.image_seq_len,
        DEFAULT_TEMPLATE,
    )


def sample_maker(recipe: Recipe, processor: SmolVLMProcessor) -> SampleMaker:
    """Makes samples with the processor's tokenizer and tiles."""
    patches = model_config(recipe, processor.tokenizer).vision_config.patches_per_side
    return SampleMaker(processor.tokenizer, processor.image_processor, processor.image_seq_len, patches)


def model_config(recipe: Recipe, tokenizer: SmolVLMTokenizer) -> SmolVLMConfig:
    """The recipe's geometry with the ids of its vocabulary."""
    text = dict(recipe.model["text_config"]) | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    values = {**recipe.model, "text_config": text, "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)}
    return SmolVLMConfig.from_dict({**values, "pad_token_id": tokenizer.pad_token_id})


def _forget_metrics(path: Path, start: int) -> None:
    """Drop the lines of steps that will be run again, and a last line that a kill cut in two."""
    if path.exists():
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        path.write_text("".join(line for line in whole if json.loads(line)["step"] <= start), encoding="utf-8")


def _steps(recipe: Recipe, maker: SampleMaker, start: int, workers: int) -> Iterable[list[Batch]]:
    """Batches of every step from `start` on, drawn in worker processes; how many changes nothing but the speed."""
    mixture = Mixture(recipe, maker, start)
    if not workers:
        return mixture
    return DataLoader(mixture, batch_size=None, num_workers=workers, prefetch_factor=4)
